defmodule HotPatch.Proving.Step do
  @moduledoc """
  One step of `HotPatch.Proving`.

    * `:name` - `:boot`, `:load`, `:upload`, `:rehearse`, `:apply`, `:rollback`, `:apply_again`, `:restart`, `:end`; with
      `replay:` also `:replay` behind `:rehearse`, and of an upgrade `:make_permanent` before `:restart`
    * `:outcome` - `:ok`, `:failed`, or `:skipped`: one before it has failed
    * `:text` - what was found, or what went wrong
    * `:us` - how long it took, in microseconds
  """

  @type t :: %__MODULE__{
          name: atom(),
          outcome: :ok | :failed | :skipped,
          text: String.t(),
          us: non_neg_integer()
        }
  @enforce_keys [:name, :outcome]
  defstruct [:name, :outcome, text: "", us: 0]

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
