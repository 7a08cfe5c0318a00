defmodule HotPatch.Cluster.DriftSurvey do
  @moduledoc false
  # What runs on each node against its disk, and against the other nodes of the same release.

  alias HotPatch.Answers
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Members
  alias HotPatch.Drift

  @doc "All differences, by module and node."
  @spec run(Members.t(), timeout()) :: Answers.t(Drift.t())
  def run(members, timeout) do
    releases = Map.new(members.infos, &{&1.node, &1.release})
    Cluster.collect(members, :drift, {:census, [], timeout}, &compare(&1, releases))
  end

  defp compare(answers, releases) do
    census = for {node, lines} <- answers, line <- lines, do: Map.put(line, :node, node)

    (Enum.flat_map(census, &from_disk/1) ++ from_nodes(census, releases))
    |> Enum.sort_by(&{&1.module, &1.node, &1.from})
  end

  defp from_disk(%{running: same, disk: same}), do: []

  defp from_disk(line) do
    [drift(line, :disk, line.disk, cause(line))]
  end

  defp cause(%{memory_only?: true, patch: patch}),
    do: "#{patch} is applied in memory only, until a restart"

  defp cause(%{restart: restart}) when restart != nil, do: "until a restart: #{restart}"
  defp cause(%{disk: nil}), do: "its file is missing or damaged"
  defp cause(%{patch: nil}), do: "loaded by hand, or its file was changed"

  defp cause(%{patch: patch}),
    do: "#{patch} was applied, and something else has changed memory or file since"

  # Where no version has the most nodes, all are named.
  defp from_nodes(census, releases) do
    census
    |> Enum.group_by(&{&1.module, releases[&1.node]})
    |> Enum.flat_map(fn {_module_and_release, lines} ->
      case lines |> Enum.frequencies_by(& &1.running) |> Enum.sort_by(&elem(&1, 1), :desc) do
        [_one] ->
          []

        [{_, n}, {_, n} | _] ->
          Enum.map(lines, &drift(&1, :nodes, nil, odd(&1, lines)))

        [{most, _} | _] ->
          for line <- lines, line.running != most, do: drift(line, :nodes, most, odd(line, lines))
      end
    end)
  end

  defp odd(line, lines) do
    others =
      lines |> Enum.map(& &1.patch) |> Enum.uniq() |> Enum.reject(&(&1 in [nil, line.patch]))

    cond do
      line.running != line.disk -> cause(line)
      line.patch -> "#{line.patch} is applied here"
      others != [] -> "#{Enum.join(others, ", ")} is applied elsewhere"
      true -> "the files of the nodes differ"
    end
  end

  defp drift(line, from, expected, cause) do
    %Drift{
      node: line.node,
      module: line.module,
      from: from,
      running: line.running,
      expected: expected,
      cause: cause
    }
  end
end
