defmodule HotPatch.Plan do
  @moduledoc """
  What applying a patch would do, node by node: load order, processes that will pause,
  files on disk, risks. `IO.puts/1` prints it, `HotPatch.to_json/1` gives JSON.
  """

  alias HotPatch.Plan.NodePlan
  alias HotPatch.Plan.Risk
  alias HotPatch.Status
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @typedoc """
    * `:unmanaged` - connected nodes that do not run HotPatch, and so are left out
    * `:missing` - nodes that belong to the system and are away: they could not be asked
  """
  @type t :: %__MODULE__{
          patch: String.t(),
          disk: :replace | :memory_only,
          status: Status.t(),
          nodes: [NodePlan.t()],
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

  defp process(%{kind: kind} = part) when kind in [:server, :hosted],
    do: "#{part.count} #{part.module}"

  defp process(part) do
    "#{part.count} #{part.module} (#{part.kind |> to_string() |> String.replace("_", " ")})"
  end

  defp notes(node), do: settings(node) ++ node.instructions ++ risks(node)
  defp settings(%NodePlan{config: []}), do: []
  defp settings(node), do: ["sets #{Enum.join(node.config, ", ")}"]

  defp risks(%NodePlan{error: nil, risks: risks}), do: Enum.map(risks, &Risk.line/1)
  defp risks(%NodePlan{error: error}), do: [error]

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
