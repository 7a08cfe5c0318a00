defmodule HotPatch.Cluster.Restart do
  @moduledoc false
  # A node is restarted while all others are taken, as for an apply: so there is one at a time,
  # and nothing else goes on meanwhile.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Error
  alias HotPatch.NodeInfo
  alias HotPatch.Operation
  alias HotPatch.Store.Journal

  require HotPatch.Support.Log, as: Log

  @within 10_000
  @between 100

  @doc "Restarts a node and waits until HotPatch runs there again."
  @spec run(node(), map()) :: {:ok, NodeInfo.t()} | {:error, Error.t()}
  def run(node, options) do
    with {:ok, %{infos: [info]}} <- Cluster.members([node]),
         infos = Cluster.infos([node | Cluster.everyone()]),
         others = for(other <- infos, other.managed?, other.node != node, do: other),
         :ok <- spare(info, others, options) do
      if node == node(),
        do: hand_over(info, others, options),
        else: carry_out(info, others, options)
    end
  end

  defp spare(_info, _others, %{force: true}), do: :ok

  defp spare(info, others, _options) do
    if Enum.any?(others, &(&1.release.name == info.release.name)) do
      :ok
    else
      {:error,
       Error.new(
         :refused,
         "restart #{info.node}: it is the last node that serves #{info.release}; start another, or use force: true",
         %{node: info.node}
       )}
    end
  end

  # Nobody could wait for oneself.
  defp hand_over(info, [], options) do
    note(info, options)
    :ok = :init.restart()
    {:ok, info}
  end

  defp hand_over(info, [other | _], options) do
    :ok = :erpc.cast(other.node, __MODULE__, :run, [info.node, options])
    {:ok, info}
  end

  defp carry_out(info, others, options) do
    what = %{
      id: Coordinator.new_id(),
      kind: :restart,
      patch: Atom.to_string(info.node),
      by: options.by
    }

    Coordinator.run(what, fn tell -> tell.(lead(what, info, others, options)) end)
  end

  defp lead(what, info, others, options) do
    nodes = [info.node | Enum.map(others, & &1.node)]
    # Each node lets go when the calling process ends.
    operation = Operation.new(Map.merge(what, %{reason: options.reason, members: nodes}))

    with :ok <- reserve(nodes, operation) do
      note(info, options)

      try do
        restart(info, options.timeout, operation)
      after
        _ = Cluster.call(nodes, :abort, [operation.ref], @within)
      end
    end
  end

  # As an apply takes them.
  defp reserve(nodes, operation) do
    waiting = %{stop: Coordinator.stop(), timeout: @within}
    taken = Cluster.take(nodes, &Cluster.call_until(&1, :reserve, [operation], waiting))

    case {Coordinator.asked(), taken} do
      {nil, {:ok, _granted}} ->
        :ok

      {nil, {:error, node, answer}} ->
        _ = Cluster.call(nodes, :abort, [operation.ref], @within)
        not_reserved(node, answer, operation)

      {order, _taken} ->
        _ = Cluster.call(nodes, :abort, [operation.ref], @within)
        how = "nothing was done, the node has not been told to restart"
        {:error, Coordinator.error(operation, order, :nothing_changed, how)}
    end
  end

  defp not_reserved(node, {:ok, {:busy, holder}}, operation),
    do: busy(node, operation, "#{holder.kind} of #{holder.patch} by #{holder.by} is under way")

  defp not_reserved(node, {:ok, {:unfinished, text}}, operation),
    do: busy(node, operation, "an earlier operation is not ended on disk: #{text}")

  defp not_reserved(node, {:error, text}, operation) do
    {:error,
     Error.new(:unreachable, "restart #{operation.patch}: #{node} #{text}", %{nodes: [node]})}
  end

  defp busy(node, operation, why) do
    text =
      "restart #{operation.patch}: nothing was done, on #{node} #{why}; try again when that is done"

    {:error, Error.new(:busy, text, %{node: node})}
  end

  defp note(info, options) do
    Log.warning("HotPatch: restart of #{info.node} by #{options.by}",
      node: info.node,
      by: options.by
    )

    facts = Map.take(options, [:by, :reason, :from])
    _ = Journal.add(:restart, Map.merge(facts, %{node: info.node, release: info.release}))
    :ok
  end

  defp restart(info, timeout, operation) do
    true = Node.monitor(info.node, true)
    :ok = :erpc.call(info.node, :init, :restart, [], @within)
    deadline = now() + timeout

    with :ok <- stops(info.node, deadline, timeout, operation),
         do: await(info.node, deadline, timeout, operation)
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp stops(node, deadline, timeout, operation) do
    receive do
      {:nodedown, ^node} -> :ok
    after
      @between ->
        cond do
          order = Coordinator.asked() -> not_awaited(operation, order)
          now() >= deadline -> late(node, "has not stopped", timeout)
          true -> stops(node, deadline, timeout, operation)
        end
    end
  end

  defp await(node, deadline, timeout, operation) do
    with true <- Node.connect(node) == true,
         [{_node, {:ok, %NodeInfo{} = info}}] <- Cluster.call([node], :info, [], @within) do
      {:ok, info}
    else
      _not_yet ->
        receive after: (@between -> :ok)

        cond do
          order = Coordinator.asked() -> not_awaited(operation, order)
          now() >= deadline -> late(node, "is not back", timeout)
          true -> await(node, deadline, timeout, operation)
        end
    end
  end

  defp not_awaited(operation, order) do
    how = "the node had been told to restart by then, and is not waited for any longer"
    {:error, Coordinator.error(operation, order, :too_late, how)}
  end

  defp late(node, what, timeout) do
    {:error,
     Error.new(
       :failed,
       "restart #{node}: it #{what} after #{timeout} ms; look at its log and console",
       %{
         node: node
       }
     )}
  end
end
