defmodule HotPatch.Cluster.Analyses do
  @moduledoc false
  # What a patch means for each node, compared with what that node runs. The comparison needs the
  # native reader, which only the coordinator is sure to have. So every node sends the digests of
  # its modules; nodes that run the same are compared once, with the coordinator's own files
  # where it runs the same too, and only what it lacks is fetched from one of them.

  alias HotPatch.Agent.Inventory
  alias HotPatch.Agent.Payload
  alias HotPatch.Analysis
  alias HotPatch.Bridge
  alias HotPatch.Cluster
  alias HotPatch.Plan

  @doc "Plans with the analysis of each node, and their modules in its order."
  @spec add([Plan.Node.t()], Payload.t(), timeout()) :: [Plan.Node.t()]
  def add(plans, payload, timeout) do
    # A node of an earlier HotPatch gives an error to what follows, and no analysis.
    answering = for %{error: nil, node: node} <- plans, do: node

    if Bridge.check() == :ok and answering != [] do
      digests =
        for {node, {:ok, digests}} <- Cluster.call(answering, :digests, [], timeout),
            do: {node, digests}

      found = analyses(plans, Map.new(digests), payload, timeout)
      Enum.map(plans, &with_analysis(&1, found[&1.node]))
    else
      plans
    end
  end

  defp analyses(plans, digests, payload, timeout) do
    own = Inventory.digests()

    plans
    |> Enum.filter(&is_map_key(digests, &1.node))
    |> Enum.group_by(&{digests[&1.node], Enum.sort(&1.order)})
    |> Enum.flat_map(fn {{running, order}, [%{node: one} | _] = alike} ->
      with {:ok, later, deleted} <- change(payload, one, running, order, timeout),
           before = before(one, running, own, timeout),
           {:ok, analysis} <-
             Analysis.run(before, later, deleted: deleted, direction: direction(payload)) do
        for plan <- alike, do: {plan.node, analysis}
      else
        _cannot_be_compared -> []
      end
    end)
    |> Map.new()
  end

  # What comes and what goes. Of a patch that will not be loaded there, what the node runs.
  defp change(%Payload{kind: :apply} = payload, _node, running, order, _timeout) do
    concerned =
      case order do
        [] -> Map.keys(running)
        _ -> for {_change, module} <- order, do: file_name(module)
      end
      |> MapSet.new()

    beams = for %{beam: %{module: name}} = entry <- payload.entries, do: {name, entry.bytes}
    {:ok, for({name, bytes} <- beams, name in concerned, do: bytes), []}
  end

  defp change(%Payload{kind: :rollback} = payload, node, _running, _order, timeout) do
    with [{_node, {:ok, {:ok, files, _strategy}}}] <-
           Cluster.call([node], :former, [payload.patch], timeout) do
      beams = for {path, bytes} <- files, Path.extname(path) == ".beam", do: {path, bytes}
      {kept, gone} = Enum.split_with(beams, fn {_path, bytes} -> bytes != nil end)

      {:ok, Enum.map(kept, &elem(&1, 1)),
       for({path, nil} <- gone, do: Path.basename(path, ".beam"))}
    end
  end

  defp direction(%Payload{kind: :rollback}), do: :down
  defp direction(_payload), do: :up

  defp before(node, running, own, timeout) do
    {same, other} = Enum.split_with(running, fn {name, md5} -> own[name] == md5 end)
    files = same |> names() |> Inventory.files()
    # Also what runs here from another file than its own.
    missing = names(other) ++ (names(same) -- Map.keys(files))
    Map.values(files) ++ fetched(node, missing, timeout)
  end

  defp fetched(_node, [], _timeout), do: []

  defp fetched(node, names, timeout) do
    case Cluster.call([node], :files, [names], timeout) do
      [{_node, {:ok, files}}] -> Map.values(files)
      _ -> []
    end
  end

  defp names(digests), do: Enum.map(digests, &elem(&1, 0))

  defp with_analysis(plan, nil), do: plan

  defp with_analysis(plan, analysis) do
    counts =
      Enum.reduce(plan.processes, %{}, fn part, counts ->
        Map.update(counts, file_name(part.module), part.count, &(&1 + part.count))
      end)

    findings =
      for finding <- analysis.findings,
          do: %{finding | processes: Map.get(counts, finding.module, 0)}

    place =
      for {name, place} <- analysis.order |> List.flatten() |> Enum.with_index(),
          into: %{},
          do: {name, place}

    order = Enum.sort_by(plan.order, fn {_change, module} -> place[file_name(module)] end)
    # Of a node of an earlier HotPatch the key may be missing.
    Map.merge(plan, %{order: order, analysis: %{analysis | findings: findings}})
  end

  # Plans name modules as they are inspected, files as their atoms are written.
  defp file_name(":\"" <> rest), do: String.trim_trailing(rest, "\"")
  defp file_name(":" <> name), do: name
  defp file_name(name), do: "Elixir." <> name
end
