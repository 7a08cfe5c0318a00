defmodule HotPatch.Plan.NodePlan do
  @moduledoc """
  The plan of one node.

    * `:status` - the node's integral status
    * `:files` - what `HotPatch.check/2` foresees for each file
    * `:order` - `{:add | :replace | :delete, module}` in the order of loading, each behind those that
      it calls; all become current in one step
    * `:processes` - for each module and kind of process, how many there are, whether their
      state goes through `code_change`, and whether they pause for it; `rule` is that by which they were found
    * `:suspended` - how many processes will pause in all
    * `:strategy` - how it would be done: `transition` and `on_load`, see `HotPatch.apply/2`; a rollback
      takes them from the apply
    * `:disk` - the files that will be replaced or created
    * `:config` - which keys of which applications' environments will be set or put back
    * `:instructions` - what the manifest's instructions will have done beside the modules, in order
    * `:risks` - what the operator should know, each a `HotPatch.Plan.Risk`
    * `:analysis` - what the change means, compared with what runs on this node; each finding says how
      many of its processes work for the module. `nil` where that could not be compared
    * `:error` - why the node could not be asked, or `nil`
  """

  alias HotPatch.Analysis
  alias HotPatch.Status

  @type processes :: %{
          module: String.t(),
          kind: atom(),
          rule: atom(),
          count: pos_integer(),
          change_code?: boolean(),
          pauses?: boolean()
        }
  @type t :: %__MODULE__{
          node: node(),
          status: Status.t(),
          files: [HotPatch.Report.FileResult.t()],
          order: [{:add | :replace | :delete, String.t()}],
          processes: [processes()],
          suspended: non_neg_integer(),
          strategy:
            %{transition: :suspend | :none | :compatible, on_load: :restart | :load} | nil,
          disk: [Path.t()],
          config: [String.t()],
          instructions: [String.t()],
          risks: [HotPatch.Plan.Risk.t()],
          analysis: Analysis.t() | nil,
          error: String.t() | nil
        }
  @enforce_keys [:node, :status]
  defstruct [
    :node,
    :status,
    :error,
    :analysis,
    :strategy,
    files: [],
    order: [],
    processes: [],
    suspended: 0,
    disk: [],
    config: [],
    instructions: [],
    risks: []
  ]

  defimpl Inspect do
    defdelegate inspect(struct, options), to: HotPatch.Support.Printable, as: :inspected
  end
end
