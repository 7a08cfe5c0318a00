defmodule HotPatch.Cluster.AbandonedCanary do
  @moduledoc false
  # A patch that is tried on some nodes first counts there only while its coordinator lives, or
  # when the last step has followed. A node whose coordinator is gone in between takes it
  # back by itself.

  alias HotPatch.Cluster.Ledger
  alias HotPatch.Cluster.Rollout
  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Release
  alias HotPatch.Store.Applied

  require HotPatch.Support.Log, as: Log

  # Milliseconds.
  @within 2_000

  @doc "Ends what nobody tries any more; says whether it did anything."
  @spec run(HotPatch.NodeAgent.History.history()) :: :ok | :changed | {:error, String.t()}
  def run(history) do
    ops =
      history.ops |> Enum.filter(&Applied.concerns?(&1, node())) |> Enum.sort_by(&{&1.seq, &1.id})

    in_force = Ledger.in_force(ops, history.retired)

    case Enum.find(history.ops, &abandoned?(&1, history, in_force)) do
      nil -> :ok
      op -> take_back(op)
    end
  end

  # What was in force before it was tried is nothing of the trial's.
  # rule: trial-ends
  defp abandoned?(%{kind: :apply, tried_by: {_node, _id} = led} = op, history, in_force) do
    op.patch in history.stack and {op.patch, op.id} in in_force and latest?(op, history.ops) and
      not led?(led)
  end

  defp abandoned?(_op, _history, _in_force), do: false

  defp latest?(op, ops),
    do: not Enum.any?(ops, &(&1.patch == op.patch and {&1.seq, &1.id} > {op.seq, op.id}))

  # One that cannot be asked does not lead any more. What was led before its node's restart is led by
  # nobody now.
  defp led?({_node, nil}), do: false

  defp led?({node, id}) do
    :erpc.call(node, NodeAgent, :leads?, [id], @within)
  catch
    _class, _reason -> false
  end

  defp take_back(op) do
    Log.notice("HotPatch: taking back #{op.patch}: its coordinator died while it was tried")
    payload = Payload.rollback(op.patch, Release.current(), undoes: [op.id])

    # Right behind what it takes back, wherever this node hears of the last step only later: that
    # one counts. And of every node that tried it an operation of its own.
    options = %{
      id: "#{op.id}-#{:erlang.phash2(node())}",
      seq: op.seq,
      nodes: [node()],
      by: "HotPatch",
      reason: "the coordinator died while it was tried",
      origin: :abandoned
    }

    case Rollout.run(payload, [node()], [], options) do
      {:ok, _report} -> :changed
      {:error, %{reason: :busy}} -> :ok
      {:error, %{message: message}} -> {:error, message}
    end
  end
end
