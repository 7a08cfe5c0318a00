defmodule HotPatch.Report.File do
  @moduledoc """
  What a check foresees, or an apply found, for one file on one node.

    * `:path` - in the archive
    * `:module` - name of the module, or `nil`
    * `:status` - see `t:HotPatch.Status.t/0`
    * `:reason` - why, in words a person can act on; mostly `nil` for `ok` and `not_changed`
    * `:target` - where the file lies, or would lie, on that node; `nil` if nowhere
  """

  alias HotPatch.Status

  @type t :: %__MODULE__{
          path: String.t(),
          module: String.t() | nil,
          status: Status.t(),
          reason: String.t() | nil,
          target: Path.t() | nil
        }
  @enforce_keys [:path, :status]
  defstruct [:path, :module, :status, :reason, :target]

  defimpl Inspect do
    def inspect(file, _options),
      do: HotPatch.Printable.line("#HotPatch.Report.File<#{file.path} #{file.status}>")
  end
end
