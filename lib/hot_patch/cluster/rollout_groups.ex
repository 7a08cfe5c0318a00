defmodule HotPatch.Cluster.RolloutGroups do
  @moduledoc false
  # In which groups the nodes of an apply are changed, one group after the other.

  @typedoc "Which nodes go first: these, so many, or such a share of all."
  @type canary :: [node()] | pos_integer() | float() | nil

  @doc """
  All at once, unless canaries go first, or only so many are changed at the same time, or those
  of one host one after the other.
  """
  @spec of([node()], %{
          required(:canary) => canary(),
          required(:max_concurrency) => pos_integer() | nil,
          required(:one_per_host) => boolean(),
          optional(atom()) => term()
        }) :: [[node()], ...]
  def of(nodes, options) do
    nodes = Enum.sort(nodes)
    first = canaries(options.canary, nodes)
    rest = nodes -- first

    Enum.reject(
      [first | rest |> by_host(options) |> Enum.flat_map(&chunk(&1, options))],
      &(&1 == [])
    )
  end

  defp canaries(nil, _nodes), do: []
  defp canaries(named, nodes) when is_list(named), do: Enum.filter(nodes, &(&1 in named))

  defp canaries(share, nodes) when is_float(share),
    do: canaries(ceil(share * length(nodes)), nodes)

  # The node where the operator is comes last: it is to tell how the others do.
  defp canaries(count, nodes), do: nodes |> Enum.sort_by(&{&1 == node(), &1}) |> Enum.take(count)

  defp by_host(nodes, %{one_per_host: false}), do: [nodes]

  defp by_host(nodes, %{one_per_host: true}) do
    nodes
    |> Enum.group_by(&host/1)
    |> Map.values()
    |> Enum.flat_map(&Enum.with_index/1)
    |> Enum.group_by(&elem(&1, 1), &elem(&1, 0))
    |> Enum.sort()
    |> Enum.map(fn {_n, group} -> Enum.sort(group) end)
  end

  defp host(node), do: node |> Atom.to_string() |> String.split("@") |> List.last()

  defp chunk([], _options), do: []
  defp chunk(nodes, %{max_concurrency: nil}), do: [nodes]
  defp chunk(nodes, %{max_concurrency: most}), do: Enum.chunk_every(nodes, most)
end
