defmodule HotPatch.Cluster.CatchUp do
  @moduledoc false
  # What this node has missed while others applied or rolled back: it is done here too, as an
  # operation on this node alone that keeps the number and the name it had.

  alias HotPatch.Agent
  alias HotPatch.Agent.Payload
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Operation

  require Logger

  @within 10_000
  @options %{
    timeout: 60_000,
    pause_timeout: 2_000,
    transition: :suspend,
    purge: :soft,
    nodes: nil
  }

  @doc "Compares this node with others, and does what it has missed."
  @spec run([node()]) :: :ok | {:error, String.t()}
  def run(peers) do
    mine = Agent.fingerprint()

    # Only who differs is asked for more.
    others =
      for {node, {:ok, {release, _} = theirs}} <- Cluster.call(peers, :fingerprint, [], @within),
          release == elem(mine, 0),
          theirs != mine,
          do: node

    if others == [], do: :ok, else: with_others(others)
  end

  defp with_others(others) do
    mine = Agent.history()
    known = MapSet.new(mine.ops, & &1.id)
    histories = for {node, {:ok, h}} <- Cluster.call(others, :history, [], @within), do: {node, h}

    case for {_node, h} <- histories, op <- h.ops, op.id not in known, concerns_us?(op), do: op do
      [] -> :ok
      missed -> missed |> Enum.uniq_by(& &1.id) |> do_all(mine, histories)
    end
  end

  defp concerns_us?(%{scope: :all}), do: true
  defp concerns_us?(%{scope: nodes}), do: node() in nodes

  defp do_all(missed, mine, histories) do
    ops = Enum.sort_by(mine.ops ++ missed, &{&1.seq, &1.id})
    wanted = ops |> Enum.filter(&concerns_us?/1) |> stack(mine.retired)
    {same, _} = common(mine.stack, wanted, [])
    back = mine.stack |> Enum.drop(length(same)) |> Enum.reverse()
    forth = Enum.drop(wanted, length(same))
    Logger.notice("HotPatch: catching up: #{describe(back, forth)}")

    steps = Enum.map(back, &{:rollback, &1}) ++ Enum.map(forth, &{:apply, &1})

    with :ok <- each(steps, ops, histories), do: Agent.note(missed)
  end

  defp describe([], []), do: "nothing to do here"

  defp describe(back, forth) do
    Enum.join(Enum.map(back, &"take back #{&1}") ++ Enum.map(forth, &"apply #{&1}"), ", ")
  end

  @doc "The patches in force after these operations, the oldest first."
  @spec stack([HotPatch.Store.Applied.op()], %{String.t() => DateTime.t()}) :: [String.t()]
  def stack(ops, retired) do
    ops
    |> Enum.reject(&ended?(&1, retired))
    |> Enum.reduce([], fn
      %{kind: :apply, cumulative?: true, patch: id}, stack ->
        [{id, Enum.reject(stack, &(elem(&1, 0) == id))}]

      %{kind: :apply, patch: id}, stack ->
        if List.keymember?(stack, id, 0), do: stack, else: [{id, []} | stack]

      %{kind: :rollback, patch: id}, stack ->
        case List.keytake(stack, id, 0) do
          {{^id, replaced}, rest} -> rest ++ replaced
          nil -> stack
        end
    end)
    |> Enum.map(&elem(&1, 0))
    |> Enum.reverse()
  end

  defp ended?(op, retired) do
    case Map.fetch(retired, op.patch) do
      {:ok, at} -> DateTime.compare(op.at, at) == :lt
      :error -> false
    end
  end

  defp common([id | as], [id | bs], same), do: common(as, bs, [id | same])
  defp common(_, _, same), do: {Enum.reverse(same), nil}

  defp each(steps, ops, histories) do
    Enum.reduce_while(steps, :ok, fn step, :ok ->
      case step(step, ops, histories) do
        :ok -> {:cont, :ok}
        {:error, text} -> {:halt, {:error, text}}
      end
    end)
  end

  defp step({:rollback, id} = step, ops, _histories) do
    Payload.rollback(id, HotPatch.Release.current()) |> carry_out(op(step, ops), nil)
  end

  defp step({:apply, id} = step, ops, histories) do
    holders = for {node, %{stack: stack} = h} <- histories, id in stack, do: {node, h}

    Enum.find_value(holders, {:error, "no node that is connected has #{id} to give"}, fn {node, h} ->
      case Cluster.call([node], :payload, [id], @within) do
        [{_node, {:ok, {:ok, payload}}}] ->
          carry_out(payload, op(step, ops), Enum.find(h.abouts, &(&1.id == id)))

        _ ->
          nil
      end
    end)
  end

  # The last that says so; a patch that has to make room for a moment goes by a name of its own.
  defp op({kind, id}, ops),
    do: ops |> Enum.reverse() |> Enum.find(&(&1.kind == kind and &1.patch == id))

  defp carry_out(payload, op, about) do
    more = if op, do: %{id: op.id, seq: op.seq, by: op.by}, else: %{by: "HotPatch"}
    scope = if op && op.scope != :all, do: op.scope

    options =
      Map.merge(@options, Map.merge(more, %{nodes: scope, about: about, reason: "catching up"}))

    case Operation.run(payload, [node()], [], options) do
      {:ok, _report} -> :ok
      {:error, %{message: message}} -> {:error, message}
    end
  end
end
