defmodule HotPatch.Cluster.DecisionQuery do
  @moduledoc false
  # This node stands still and does not hear from its coordinator: the others are asked whether
  # the operation was decided. If nobody who answers knows of it, it is taken back: should it
  # have been decided all the same, then it is one that this node has missed.

  alias HotPatch.Cluster
  alias HotPatch.NodeAgent
  alias HotPatch.Operation

  # Milliseconds. Meanwhile processes wait.
  @within 500

  @doc "Asks, and decides. A coordinator that is only silent may still decide itself."
  @spec run(Operation.t(), :dead | :silent) :: :ok
  def run(operation, coordinator) do
    case {decided?(operation), coordinator} do
      {true, _} ->
        _ = NodeAgent.decide(operation.ref, :finish)
        :ok

      # rule: take-back-unsure
      {false, :dead} ->
        _ =
          NodeAgent.decide(operation.ref, {:take_back, "the coordinator died before it decided"})

        :ok

      {false, :silent} ->
        :ok
    end
  end

  # rule: inquiry
  defp decided?(operation) do
    others = Enum.uniq([node(operation.coordinator) | operation.members]) -- [node()]

    answers = Cluster.call(others, :decided?, [operation.id], @within)
    # Its own disk last: if the coordinator is here, it may have decided meanwhile.
    Enum.any?(answers, &match?({_node, {:ok, true}}, &1)) or NodeAgent.decided?(operation.id)
  end
end
