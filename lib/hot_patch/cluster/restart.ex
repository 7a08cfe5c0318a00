defmodule HotPatch.Cluster.Restart do
  @moduledoc false
  # A node is restarted while all others are taken, as for an apply: so there is one at a time,
  # and nothing else goes on meanwhile.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Operation
  alias HotPatch.Error
  alias HotPatch.NodeInfo
  alias HotPatch.Store.Journal

  require HotPatch.Log, as: Log

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
    nodes = [info.node | Enum.map(others, & &1.node)]
    operation = operation(info, options)

    with :ok <- reserve(nodes, operation) do
      note(info, options)

      try do
        restart(info, options.timeout)
      after
        _ = Cluster.call(nodes, :abort, [operation.ref], @within)
      end
    end
  end

  # As an agent knows an apply. It lets go when the calling process ends.
  defp operation(info, options) do
    %{
      ref: make_ref(),
      id: Operation.new_id(),
      kind: :restart,
      patch: Atom.to_string(info.node),
      by: options.by,
      reason: options.reason,
      coordinator: self(),
      catching_up: nil
    }
  end

  # As an apply takes them.
  defp reserve(nodes, operation) do
    case Cluster.take(nodes, &Cluster.call(&1, :reserve, [operation], @within)) do
      {:ok, _granted} ->
        :ok

      {:error, node, answer} ->
        _ = Cluster.call(nodes, :abort, [operation.ref], @within)
        not_reserved(node, answer, operation)
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

  defp restart(info, timeout) do
    true = Node.monitor(info.node, true)
    :ok = :erpc.call(info.node, :init, :restart, [], @within)
    deadline = System.monotonic_time(:millisecond) + timeout

    receive do
      {:nodedown, node} when node == info.node -> await(info.node, deadline, timeout)
    after
      timeout -> late(info.node, "has not stopped", timeout)
    end
  end

  defp await(node, deadline, timeout) do
    with true <- Node.connect(node) == true,
         [{_node, {:ok, %NodeInfo{} = info}}] <- Cluster.call([node], :info, [], @within) do
      {:ok, info}
    else
      _not_yet ->
        if System.monotonic_time(:millisecond) < deadline do
          receive after: (@between -> :ok)
          await(node, deadline, timeout)
        else
          late(node, "is not back", timeout)
        end
    end
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
