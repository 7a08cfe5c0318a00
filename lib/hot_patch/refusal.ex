defmodule HotPatch.Refusal do
  @moduledoc """
  An archive was refused while it was read: one rule, one entry, in words.

  Nothing of a refused archive is kept. Fields:

    * `:rule` - the rule that was broken, an atom such as `:duplicate_entry`
    * `:entry` - the name of the entry at fault, printable, or `nil` when the archive as a
      whole is at fault
    * `:message` - the thing, the rule, and what to do next
  """

  @type t :: %__MODULE__{rule: atom(), entry: String.t() | nil, message: String.t()}

  defexception [:rule, :entry, :message]

  # For people; the field has it as it is.
  @impl Exception
  def message(refusal), do: HotPatch.Support.Printable.line(refusal.message)

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
