defmodule HotPatch.Cluster.Progress do
  @moduledoc false
  # Hears on every node how far the operations of the cluster have come, and tells those who
  # want to know: also one who asks in the middle.
  #
  # A coordinator only sends its events to the process here, for others stand still while it
  # works; that passes them on to the other nodes, several at a time. A node that does not hear
  # of one misses nothing but that.

  use GenServer

  alias HotPatch.Event
  alias HotPatch.Readiness

  @typedoc "What a coordinator keeps to tell of itself: whom it tells, and what is in all its events."
  @type teller :: %{coordinator: pid(), event: Event.t(), nodes: [node()]}

  # Milliseconds between two messages to other nodes; and how long after its end a coordinator
  # is taken to be gone: what it has told at last may be under way.
  @every 100
  @gone_after 1_000

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "For the process that carries an operation out: whoever listens on these nodes will hear of it."
  @spec teller(map(), [node()]) :: teller()
  def teller(%{id: id, kind: kind, patch: patch, by: by}, nodes) do
    event = %Event{
      operation: id,
      kind: kind,
      patch: patch,
      by: by,
      phase: :reserve,
      state: :running,
      at: DateTime.utc_now()
    }

    %{coordinator: self(), event: event, nodes: Enum.uniq([node() | nodes])}
  end

  @doc "Tells how far a node, or with nil the whole, has come; also from a process that helps."
  @spec tell(teller(), node() | nil, Event.phase(), :running | :done | :failed, keyword()) :: :ok
  def tell(teller, node, phase, state, more \\ []) do
    facts = [node: node, phase: phase, state: state, at: DateTime.utc_now()] ++ more
    event = struct!(teller.event, facts)
    :erlang.send({__MODULE__, node()}, {:event, teller.coordinator, event, teller.nodes})
    :ok
  end

  @doc "Has the calling process told `{HotPatch, event}` of all that comes."
  @spec subscribe() :: :ok
  def subscribe, do: ask({:subscribe, self()})

  @doc "No more of it; what has come already stays in the mailbox."
  @spec unsubscribe() :: :ok
  def unsubscribe, do: ask({:unsubscribe, self()})

  @doc "Of each operation under way the latest event of every node."
  @spec list() :: [Event.t()]
  def list, do: ask(:list)

  # Whoever asks where HotPatch does not run is told that, and not of a process that is missing.
  defp ask(question) do
    with {:error, error} <- Readiness.check(), do: raise(error)
    GenServer.call(__MODULE__, question)
  end

  @impl GenServer
  def init([]), do: {:ok, %{subscribers: %{}, running: %{}, outgoing: %{}}}

  @impl GenServer
  def handle_call({:subscribe, pid}, _from, state) do
    monitor = Map.get_lazy(state.subscribers, pid, fn -> Process.monitor(pid) end)
    {:reply, :ok, put_in(state.subscribers[pid], monitor)}
  end

  def handle_call({:unsubscribe, pid}, _from, state) do
    {monitor, subscribers} = Map.pop(state.subscribers, pid)
    if monitor, do: Process.demonitor(monitor, [:flush])
    {:reply, :ok, %{state | subscribers: subscribers}}
  end

  def handle_call(:list, _from, state) do
    events = for {_pid, %{events: events}} <- state.running, {_node, event} <- events, do: event
    {:reply, Enum.sort_by(events, & &1.at, DateTime), state}
  end

  @impl GenServer
  def handle_info({:event, coordinator, event, nodes}, state) do
    _ = if state.outgoing == %{}, do: Process.send_after(self(), :pass_on, @every)

    outgoing =
      for node <- nodes, node != node(), reduce: state.outgoing do
        outgoing ->
          Map.update(outgoing, node, [{coordinator, event}], &[{coordinator, event} | &1])
      end

    {:noreply, hear({coordinator, event}, %{state | outgoing: outgoing})}
  end

  def handle_info({:events, events}, state),
    do: {:noreply, Enum.reduce(events, state, &hear/2)}

  # Not even for a connection that is not there.
  def handle_info(:pass_on, state) do
    for {node, events} <- state.outgoing do
      message = {:events, Enum.reverse(events)}
      _ = :erlang.send({__MODULE__, node}, message, [:noconnect, :nosuspend])
    end

    {:noreply, %{state | outgoing: %{}}}
  end

  def handle_info({:DOWN, _monitor, :process, pid, reason}, state) do
    _ =
      if is_map_key(state.running, pid),
        do: Process.send_after(self(), {:gone, pid, reason}, @gone_after)

    {:noreply, %{state | subscribers: Map.delete(state.subscribers, pid)}}
  end

  def handle_info({:gone, pid, reason}, state) do
    {run, running} = Map.pop(state.running, pid)
    if run, do: pass_on(gone(run, reason), state)
    {:noreply, %{state | running: running}}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp hear({coordinator, event}, state) do
    pass_on(event, state)
    %{state | running: heard(state.running, coordinator, event)}
  end

  defp pass_on(event, state) do
    for {pid, _monitor} <- state.subscribers, do: send(pid, {HotPatch, event})
    :ok
  end

  defp heard(running, coordinator, %Event{node: nil, phase: :ended}) do
    {run, running} = Map.pop(running, coordinator)
    if run, do: Process.demonitor(run.monitor, [:flush])
    running
  end

  defp heard(running, coordinator, event) do
    run =
      Map.get_lazy(running, coordinator, fn ->
        %{monitor: Process.monitor(coordinator), events: %{}}
      end)

    Map.put(running, coordinator, put_in(run.events[event.node], event))
  end

  defp gone(run, reason) do
    {_node, event} = Enum.at(run.events, 0)
    text = "the coordinator is gone: #{inspect(reason, limit: 10)}"

    %{
      event
      | node: nil,
        phase: :ended,
        state: :failed,
        done: nil,
        total: nil,
        text: text,
        at: DateTime.utc_now()
    }
  end
end
