defmodule HotPatch.Console.Page.Plans do
  @moduledoc false
  # A plan put together for reading: what is the same on several nodes is said once.

  alias HotPatch.Analysis.Finding
  alias HotPatch.Plan
  alias HotPatch.Plan.Risk

  @type digest :: %{
          orders: [{[node()], list()}],
          processes: [
            {module :: String.t(), kind :: atom(), pauses? :: boolean(),
             counts :: %{node() => pos_integer()}}
          ],
          risks: [{String.t(), [node()]}],
          findings: [{Finding.t(), [node()]}],
          disk: [{[node()], [Path.t()]}],
          suspended: non_neg_integer(),
          modules: non_neg_integer(),
          files: non_neg_integer()
        }

  @doc "What a plan says, over all nodes."
  @spec digest(Plan.t()) :: digest()
  def digest(plan) do
    %{
      orders: by_value(plan.nodes, & &1.order),
      disk: by_value(plan.nodes, & &1.disk),
      processes: processes(plan.nodes),
      risks: risks(plan.nodes),
      findings: findings(plan.nodes),
      suspended: plan.nodes |> Enum.map(& &1.suspended) |> Enum.sum(),
      modules: plan.nodes |> Enum.map(&length(&1.order)) |> Enum.max(fn -> 0 end),
      files: plan.nodes |> Enum.map(&length(&1.disk)) |> Enum.max(fn -> 0 end)
    }
  end

  @doc "The least and the most of some counts."
  @spec range([non_neg_integer(), ...]) :: String.t()
  def range(counts) do
    case Enum.min_max(counts) do
      {same, same} -> "#{same}"
      {least, most} -> "#{least} to #{most}"
    end
  end

  defp by_value(nodes, fun) do
    nodes
    |> Enum.group_by(fun, & &1.node)
    |> Enum.map(fn {value, nodes} -> {nodes, value} end)
    |> Enum.reject(fn {_nodes, value} -> value == [] end)
    |> Enum.sort()
  end

  defp processes(nodes) do
    for(
      node <- nodes,
      part <- node.processes,
      do: {{part.module, part.kind, part.pauses?}, {node.node, part.count}}
    )
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.map(fn {{module, kind, pauses?}, counts} -> {module, kind, pauses?, sums(counts)} end)
    |> Enum.sort_by(fn {module, kind, pauses?, _counts} -> {not pauses?, module, kind} end)
  end

  defp sums(counts) do
    Enum.reduce(counts, %{}, fn {node, count}, sums ->
      Map.update(sums, node, count, &(&1 + count))
    end)
  end

  # The worst first. How many processes are concerned differs between the nodes, the finding does not.
  defp findings(nodes) do
    for(
      %{analysis: %{findings: findings}, node: node} <- nodes,
      finding <- findings,
      do: {%{finding | processes: nil}, node}
    )
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort_by(fn {finding, _nodes} ->
      {-severity(finding), finding.name, finding.message}
    end)
  end

  defp severity(finding), do: Enum.find_index(Finding.severities(), &(&1 == finding.severity))

  # Processes have other pids on each node; the risk is the same. They are named where it is that of one node.
  defp risks(nodes) do
    for(node <- nodes, risk <- said(node), do: {risk, node.node})
    |> Enum.group_by(fn {risk, _node} -> %{risk | processes: []} end)
    |> Enum.map(fn {risk, alike} ->
      nodes = alike |> Enum.map(&elem(&1, 1)) |> Enum.uniq()
      {to_string(%{risk | processes: named(alike, nodes)}), nodes}
    end)
    |> Enum.sort()
  end

  defp said(%{risks: risks, error: nil}), do: risks
  defp said(%{risks: risks, error: error}), do: risks ++ [%Risk{message: error}]

  defp named(alike, [_only_one]), do: Enum.flat_map(alike, fn {risk, _node} -> risk.processes end)
  defp named(_alike, _several), do: []
end
