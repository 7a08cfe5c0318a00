defmodule HotPatch.Cluster.UnderWay do
  @moduledoc false
  # What is under way in the cluster now: of what tells how far it is, the latest event of each node; of
  # what does not (a restart, a node that catches up), that it holds its nodes.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Progress
  alias HotPatch.Event

  @doc "The latest event of each operation and node; empty if nothing is under way."
  @spec events() :: [Event.t()]
  def events do
    case Progress.list() do
      [] -> for {node, %{id: _} = holder} <- Cluster.holders(), do: event(node, holder)
      events -> events
    end
  end

  defp event(node, holder) do
    %Event{
      operation: Map.get(holder, :course) || holder.id,
      kind: holder.kind,
      patch: holder.patch,
      by: holder.by,
      node: node,
      phase: :reserve,
      state: :done,
      at: DateTime.utc_now()
    }
  end
end
