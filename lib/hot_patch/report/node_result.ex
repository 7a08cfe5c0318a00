defmodule HotPatch.Report.NodeResult do
  @moduledoc """
  One node of a report.

    * `:status` - the smallest code of its files, or `:error` if the node failed
    * `:files` - `t:HotPatch.Report.FileResult.t/0`, in the order of the archive
    * `:pause_us` - microseconds from the first suspend to the last resume; 0 in a check
    * `:phases` - what that time went into, in its order: `t:HotPatch.Report.Phase.t/0`
    * `:suspended` - how many processes were suspended
    * `:stragglers` - processes that still run old code, see `HotPatch.Straggler`
    * `:killed` - processes that were killed because `purge: :force` was given
    * `:loaded_at_us` - when the new code became current, by that node's clock, in microseconds
      since 1970; `nil` where nothing was loaded
    * `:strategy` - how it was done there, or would be: `transition` and `on_load`, see
      `HotPatch.apply/2`. A rollback takes them from the apply. `nil` where the node did not come so far
    * `:already?` - whether the patch was in force there before it was applied. What follows by itself
      (a watch that trips, a node that fails) does not take it back there
    * `:restart_needed` - why memory is not what the disk is, or `nil`
    * `:error` - what is wrong with the node as a whole, or `nil`
    * `:warnings` - what should be known though nothing is wrong, in words
  """

  alias HotPatch.Report.FileResult
  alias HotPatch.Report.Phase
  alias HotPatch.Status
  alias HotPatch.Straggler

  @type t :: %__MODULE__{
          node: node(),
          status: Status.t(),
          files: [FileResult.t()],
          pause_us: non_neg_integer(),
          phases: [Phase.t()],
          suspended: non_neg_integer(),
          killed: [pid()],
          stragglers: [Straggler.t()],
          loaded_at_us: integer() | nil,
          strategy: %{transition: atom(), on_load: atom()} | nil,
          already?: boolean(),
          restart_needed: String.t() | nil,
          error: String.t() | nil,
          warnings: [String.t()]
        }
  @enforce_keys [:node, :status]
  defstruct [
    :node,
    :status,
    :loaded_at_us,
    :strategy,
    :restart_needed,
    :error,
    already?: false,
    files: [],
    pause_us: 0,
    phases: [],
    suspended: 0,
    killed: [],
    stragglers: [],
    warnings: []
  ]

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
