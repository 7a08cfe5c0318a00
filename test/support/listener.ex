defmodule HotPatch.Test.Listener do
  @moduledoc false
  # Listens on a node to what HotPatch tells of operations, for a test on another one.

  alias HotPatch.Event

  @doc "Starts listening on a node; the calling process gets `{listener, event}` until it ends."
  @spec start(node()) :: pid()
  def start(node) do
    test = self()
    pid = Node.spawn(node, __MODULE__, :listen, [test])

    receive do
      {^pid, :listens} -> pid
    after
      120_000 -> ExUnit.Assertions.flunk("nobody listens on #{node}")
    end
  end

  @doc false
  @spec listen(pid()) :: no_return()
  def listen(test) do
    Process.monitor(test)
    :ok = HotPatch.subscribe()
    send(test, {self(), :listens})
    pass_on(test)
  end

  defp pass_on(test) do
    receive do
      {HotPatch, event} ->
        send(test, {self(), event})
        pass_on(test)

      {:DOWN, _monitor, :process, ^test, _reason} ->
        :ok
    end
  end

  @doc "All events of the first operation with a patch, up to its end; others may be told of late."
  @spec until_end(pid(), HotPatch.Patch.t()) :: [Event.t()]
  def until_end(listener, %{id: id}) do
    first = await(listener, &(&1.patch == id))
    [first | rest(listener, first.operation)]
  end

  defp rest(listener, id) do
    case await(listener, &(&1.operation == id)) do
      %Event{phase: :ended} = event -> [event]
      event -> [event | rest(listener, id)]
    end
  end

  defp await(listener, wanted?) do
    receive do
      {^listener, event} -> if wanted?.(event), do: event, else: await(listener, wanted?)
    after
      120_000 -> ExUnit.Assertions.flunk("no such event was told")
    end
  end

  @doc "A rule for nodes: all."
  @spec any?(HotPatch.NodeInfo.t()) :: boolean()
  def any?(_info), do: true

  @doc "A rule that is wrong."
  @spec fails(HotPatch.NodeInfo.t()) :: no_return()
  def fails(info), do: raise(ArgumentError, "no rule for #{info.node}")

  @doc "In which groups nodes were changed, by the events: those who commit before anybody of the next."
  @spec groups([Event.t()]) :: [[node()]]
  def groups(events) do
    events
    |> Enum.filter(&(&1.phase in [:commit, :decide] and &1.node != nil))
    |> Enum.chunk_by(& &1.phase)
    |> Enum.filter(&(hd(&1).phase == :commit))
    |> Enum.map(fn group -> group |> Enum.map(& &1.node) |> Enum.uniq() |> Enum.sort() end)
  end
end
