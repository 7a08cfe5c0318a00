defmodule HotPatch.NodeAgent.KnownNodes do
  @moduledoc false
  # Which nodes this one knows to belong to the system, so that one that is away can be named. Known are
  # those that the configuration names as peers, and those that took part in the operations by which
  # patches are in force, or in the latest one. Who has left for good is dismissed, until it takes part
  # in an operation again.

  alias HotPatch.Host.Config
  alias HotPatch.Store
  alias HotPatch.Store.Applied

  @typedoc "By node: the configuration names it, or it took part in an operation, the last one then."
  @type known :: %{node() => :peers | DateTime.t()}
  @type dismissed :: %{node() => DateTime.t()}

  @doc "Who is known here, this node itself left out."
  @spec known(Applied.state()) :: known()
  def known(state) do
    peers = for peer <- Config.current().peers, into: %{}, do: {peer, :peers}

    state
    |> took_part()
    |> Map.merge(peers)
    |> Map.delete(node())
  end

  defp took_part(%{ops: ops, stack: stack}) do
    in_force = MapSet.new(stack, & &1.id)
    latest = Enum.max_by(ops, &{&1.seq, &1.id}, fn -> nil end)

    for op <- ops,
        op == latest or (op.kind == :apply and op.patch in in_force),
        node <- Map.get(op, :roster, []),
        reduce: %{} do
      known -> Map.update(known, node, op.at, &Enum.max([&1, op.at], DateTime))
    end
  end

  @doc "Who was dismissed, and when."
  @spec dismissed() :: dismissed()
  def dismissed do
    case Store.read_term(path()) do
      {:ok, %{} = dismissed} -> dismissed
      _none_or_damaged -> %{}
    end
  end

  @doc "A node has left for good."
  @spec dismiss(node(), DateTime.t()) :: :ok | {:error, File.posix()}
  def dismiss(node, at), do: Store.write_term(path(), Map.put(dismissed(), node, at))

  @doc "Whether a node is to be awaited, from what all nodes know."
  @spec awaited?(node(), [known()], [dismissed()]) :: boolean()
  def awaited?(node, known, dismissed) do
    last = fn maps -> for %{^node => at} <- maps, do: at end
    seen = last.(known)

    :peers in seen or
      case {seen, last.(dismissed)} do
        {[], _} -> false
        {_seen, []} -> true
        {seen, gone} -> latest(seen) > latest(gone)
      end
  end

  defp latest(times), do: times |> Enum.map(&DateTime.to_unix(&1, :microsecond)) |> Enum.max()

  defp path, do: Path.join(Store.directory(), "dismissed.record")
end
