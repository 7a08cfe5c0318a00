defmodule HotPatch.Console.Progress do
  @moduledoc false
  # What is under way in the cluster, as the pages and the streams show it.

  @phases [:send, :reserve, :prepare, :commit, :decide, :watch]

  @type event :: %{
          operation: String.t(),
          kind: atom(),
          patch: String.t(),
          by: String.t(),
          node: node() | nil,
          phase: atom(),
          state: :running | :done | :failed,
          done: non_neg_integer() | nil,
          total: non_neg_integer() | nil,
          text: String.t() | nil,
          at: DateTime.t()
        }

  @doc "The phases of an operation, in their order."
  @spec phases() :: [atom()]
  def phases, do: @phases

  @doc "The latest event of each operation under way, by node."
  @spec now() :: [event()]
  def now do
    if told?(), do: apply(HotPatch, :progress, []), else: held()
  end

  @doc "Has the calling process told `{HotPatch, event}`; `:ask` where it has to ask instead."
  @spec subscribe() :: :told | :ask
  def subscribe do
    if told?() do
      apply(HotPatch, :subscribe, [])
      :told
    else
      :ask
    end
  end

  defp told?, do: function_exported?(HotPatch, :progress, 0)

  # Which nodes are taken, and for what.
  defp held do
    for %{operation: %{id: id} = operation, node: node} <- HotPatch.nodes() do
      %{
        operation: id,
        kind: operation.kind,
        patch: operation.patch,
        by: operation.by,
        node: node,
        phase: :prepare,
        state: :running,
        done: nil,
        total: nil,
        text: nil,
        at: DateTime.utc_now()
      }
    end
  end
end
