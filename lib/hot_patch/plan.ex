defmodule HotPatch.Plan do
  @moduledoc """
  What applying a patch would do, node by node: load order, processes that will pause,
  files on disk, risks. `IO.puts/1` prints it, `HotPatch.to_json/1` gives JSON.
  """

  alias HotPatch.Status
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  defmodule Node do
    @moduledoc """
    The plan of one node.

      * `:status` - the node's integral status
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
      * `:risks` - what the operator should know, in words
      * `:analysis` - what the change means, compared with what runs on this node; each finding says how
        many of its processes work for the module. `nil` where that could not be compared
      * `:error` - why the node could not be asked, or `nil`
    """

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
            status: HotPatch.Status.t(),
            order: [{:add | :replace | :delete, String.t()}],
            processes: [processes()],
            suspended: non_neg_integer(),
            strategy:
              %{transition: :suspend | :none | :compatible, on_load: :restart | :load} | nil,
            disk: [Path.t()],
            config: [String.t()],
            instructions: [String.t()],
            risks: [String.t()],
            analysis: HotPatch.Analysis.t() | nil,
            error: String.t() | nil
          }
    @enforce_keys [:node, :status]
    defstruct [
      :node,
      :status,
      :error,
      :analysis,
      :strategy,
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

  @typedoc """
    * `:unmanaged` - connected nodes that do not run HotPatch, and so are left out
    * `:missing` - nodes that belong to the system and are away: they could not be asked
  """
  @type t :: %__MODULE__{
          patch: String.t(),
          disk: :replace | :memory_only,
          status: Status.t(),
          nodes: [Node.t()],
          unmanaged: [node()],
          missing: [node()],
          duration_us: non_neg_integer()
        }
  @enforce_keys [:patch, :status, :nodes]
  defstruct [
    :patch,
    :status,
    :nodes,
    disk: :replace,
    unmanaged: [],
    missing: [],
    duration_us: 0
  ]

  @doc false
  @spec to_table(t()) :: iodata()
  def to_table(plan) do
    [
      "plan #{Printable.line(plan.patch)}: #{plan.status}, #{Table.nodes_of(plan)}, ",
      "#{Table.count(Enum.sum(Enum.map(plan.nodes, & &1.suspended)), "process", "processes")} to pause\n",
      if(plan.disk == :memory_only, do: "in memory only: gone with a restart\n", else: []),
      Table.render(
        ["node", "status", "load order", "will pause"],
        Enum.map(
          plan.nodes,
          &[Atom.to_string(&1.node), Status.text(&1.status), order(&1), processes(&1)]
        )
      ),
      Table.notes(
        for(node <- plan.nodes, note <- notes(node), do: {node.node, note}),
        length(plan.nodes)
      ),
      findings(plan),
      if(plan.missing == [],
        do: [],
        else: "\naway, and not asked: #{Enum.join(plan.missing, ", ")}\n"
      )
    ]
  end

  defp findings(plan) do
    rows =
      for(node <- plan.nodes, finding <- found(node), do: {finding, node.node})
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Enum.sort_by(fn {finding, _nodes} -> {worst_first(finding), finding.name} end)
      |> Enum.map(fn {finding, nodes} ->
        [Table.nodes(nodes, length(plan.nodes)), "#{finding.severity}", text(finding)]
      end)

    if rows == [], do: [], else: ["\n", Table.render(["nodes", "severity", "finding"], rows)]
  end

  defp found(%{analysis: %{findings: findings}}), do: findings
  defp found(_not_compared), do: []

  defp worst_first(finding),
    do: -Enum.find_index(HotPatch.Analysis.Finding.severities(), &(&1 == finding.severity))

  defp text(%{processes: count} = finding) when is_integer(count) and count > 0,
    do: "#{finding.name}: #{finding.message} (#{Table.count(count, "process", "processes")})"

  defp text(finding), do: "#{finding.name}: #{finding.message}"

  defp order(node) do
    Enum.map_join(node.order, ", ", fn
      {:add, module} -> "+" <> module
      {:delete, module} -> "-" <> module
      {:replace, module} -> module
    end)
  end

  defp processes(node) do
    case for part <- node.processes, part.pauses?, do: process(part) do
      [] -> "nobody"
      parts -> Enum.join(parts, ", ")
    end
  end

  defp process(%{kind: :server} = part), do: "#{part.count} #{part.module}"

  defp process(part) do
    "#{part.count} #{part.module} (#{part.kind |> to_string() |> String.replace("_", " ")})"
  end

  defp notes(node), do: settings(node) ++ node.instructions ++ risks(node)
  defp settings(%Node{config: []}), do: []
  defp settings(node), do: ["sets #{Enum.join(node.config, ", ")}"]

  defp risks(%Node{error: nil, risks: risks}), do: risks
  defp risks(%Node{error: error}), do: [error]

  defimpl Inspect do
    def inspect(plan, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Plan<#{plan.patch} #{plan.status} #{HotPatch.Support.Table.nodes_of(plan)}>"
      )
    end
  end

  defimpl String.Chars do
    def to_string(plan),
      do: plan |> HotPatch.Plan.to_table() |> HotPatch.Support.Printable.lines()
  end
end
