defmodule HotPatch.Console.Progress do
  @moduledoc false
  # What is under way in the cluster, as the pages and the streams show it.

  alias HotPatch.Event

  @phases [:reserve, :send, :prepare, :commit, :decide, :watch]
  @of_a_rehearsal [:reserve, :send, :rehearse]
  @of_a_restart [:send, :prepare, :restart, :watch]

  @typedoc "One operation under way, with the latest event of each node."
  @type operation :: %{
          id: String.t(),
          kind: atom(),
          patch: String.t(),
          by: String.t(),
          whole: Event.t() | nil,
          nodes: [{node(), Event.t()}]
        }

  @doc "The phases of the operation that an event is of, in their order."
  @spec phases(Event.t()) :: [atom()]
  def phases(%Event{kind: :rehearse}), do: @of_a_rehearsal
  def phases(%Event{phase: :restart}), do: @of_a_restart
  def phases(_change), do: @phases

  @doc "The latest event of each operation under way, by node."
  @spec events() :: [Event.t()]
  def events, do: HotPatch.progress()

  @doc "The events put together, by operation."
  @spec operations([Event.t()]) :: [operation()]
  def operations(events) do
    events
    |> Enum.group_by(& &1.operation)
    |> Enum.map(fn {id, [first | _] = events} ->
      {whole, nodes} = Enum.split_with(events, &(&1.node == nil))

      %{
        id: id,
        kind: first.kind,
        patch: first.patch,
        by: first.by,
        whole: List.last(whole),
        nodes: nodes |> Map.new(&{&1.node, &1}) |> Enum.sort()
      }
    end)
    |> Enum.sort_by(& &1.id)
  end
end
