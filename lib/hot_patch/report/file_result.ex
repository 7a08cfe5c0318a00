defmodule HotPatch.Report.FileResult do
  @moduledoc """
  What a check foresees, or an apply found, for one file on one node.

    * `:path` - in the archive
    * `:module` - name of the module, or `nil`
    * `:status` - see `t:HotPatch.Status.t/0`
    * `:reason` - why, in words a person can act on; mostly `nil` for `ok` and `not_changed`
    * `:target` - where the file lies, or would lie, on that node; `nil` if nowhere
    * `:carried?` - of a file that is no module: it is, or will be, where it belongs on that node, which
      is nowhere where the node has no such application
    * `:held_back?` - nothing is wrong with the file: it only waits for another one of the patch, which
      its reason names
  """

  alias HotPatch.Status

  @type t :: %__MODULE__{
          path: String.t(),
          module: String.t() | nil,
          status: Status.t(),
          reason: String.t() | nil,
          target: Path.t() | nil,
          carried?: boolean(),
          held_back?: boolean()
        }
  @enforce_keys [:path, :status]
  defstruct [:path, :module, :status, :reason, :target, carried?: false, held_back?: false]

  @doc """
  The status of a node from those of its files: the smallest code. Files that are no modules and are
  carried as they should be do not count beside others: all that there is to say of them is that they
  are no modules.

      iex> priv = %HotPatch.Report.FileResult{path: "a-1/priv/x", status: :not_beam, carried?: true}
      iex> module = %HotPatch.Report.FileResult{path: "a-1/ebin/a.beam", status: :ok}
      iex> HotPatch.Report.FileResult.combine([module, priv])
      :ok
      iex> HotPatch.Report.FileResult.combine([module, %{priv | carried?: false}])
      :not_beam
      iex> HotPatch.Report.FileResult.combine([priv])
      :not_beam
  """
  @spec combine([t()]) :: Status.t()
  def combine(files) do
    counted =
      case Enum.reject(files, & &1.carried?) do
        [] -> files
        others -> others
      end

    counted |> Enum.map(& &1.status) |> Status.combine()
  end

  defimpl Inspect do
    def inspect(file, _options),
      do:
        HotPatch.Support.Printable.line(
          "#HotPatch.Report.FileResult<#{file.path} #{file.status}>"
        )
  end
end
