defmodule HotPatch.Cluster.Comparison do
  @moduledoc false
  # Where the reconciler of each node is found, and what it is told: that nodes are to be compared. Whoever
  # leads an operation says so here, and need not know the reconciler, which leads operations itself.

  alias HotPatch.NodeAgent

  @doc "The name of the reconciler on every node."
  @spec name() :: atom()
  def name, do: __MODULE__

  @doc """
  Has this node and the others compare. Besides the ends of operations and the connections of
  nodes, whoever writes a decision calls for it: it may be that nobody who was told still holds.
  All nodes agreeing in the end hangs on this, and on the comparing now and then.
  """
  @spec soon() :: :ok
  def soon do
    _ = send(name(), {NodeAgent, :ended})
    :ok
  rescue
    # It is about to start, and compares then.
    ArgumentError -> :ok
  end

  @doc "Has other nodes compare: they may have missed what has ended here, and shall not find out only by chance."
  @spec tell([node()]) :: :ok
  def tell(nodes) do
    for node <- nodes, do: send({name(), node}, {__MODULE__, :changed})
    :ok
  end
end
