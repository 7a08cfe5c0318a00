defmodule HotPatch.Cluster.Progress do
  @moduledoc false
  # Hears on every node how far the operations of the cluster have come, and tells those who
  # want to know: also one who asks in the middle.
  #
  # A coordinator sends its events and waits for nobody; a node that does not hear of one
  # misses nothing but that.

  use GenServer

  alias HotPatch.Event

  @typedoc "What a coordinator keeps to tell of itself: whom it tells, and what is in all its events."
  @type teller :: %{event: Event.t(), nodes: [node()], coordinator: pid()}

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

    %{event: event, nodes: Enum.uniq([node() | nodes]), coordinator: self()}
  end

  @doc """
  Tells how far a node, or with nil the whole, has come. Also a process that the coordinator
  has started may tell: it is the coordinator that is listened for.
  """
  @spec tell(teller(), node() | nil, Event.phase(), :running | :done | :failed, keyword()) :: :ok
  def tell(teller, node, phase, state, more \\ []) do
    facts = [node: node, phase: phase, state: state, at: DateTime.utc_now()] ++ more
    event = struct!(teller.event, facts)
    from = teller.coordinator
    # Not even for a connection that is not there.
    for to <- teller.nodes,
        do: :erlang.send({__MODULE__, to}, {:event, from, event}, [:noconnect, :nosuspend])

    :ok
  end

  @doc "Has the calling process told `{HotPatch, event}` of all that comes."
  @spec subscribe() :: :ok
  def subscribe, do: GenServer.call(__MODULE__, {:subscribe, self()})

  @doc "No more of it; what has come already stays in the mailbox."
  @spec unsubscribe() :: :ok
  def unsubscribe, do: GenServer.call(__MODULE__, {:unsubscribe, self()})

  @doc "Of each operation under way the latest event of every node."
  @spec list() :: [Event.t()]
  def list, do: GenServer.call(__MODULE__, :list)

  @impl GenServer
  def init([]), do: {:ok, %{subscribers: %{}, running: %{}}}

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
  def handle_info({:event, coordinator, event}, state) do
    pass_on(event, state)
    {:noreply, %{state | running: heard(state.running, coordinator, event)}}
  end

  def handle_info({:DOWN, _monitor, :process, pid, reason}, state) do
    {run, running} = Map.pop(state.running, pid)
    if run, do: pass_on(gone(run, reason), state)
    {:noreply, %{state | running: running, subscribers: Map.delete(state.subscribers, pid)}}
  end

  def handle_info(_other, state), do: {:noreply, state}

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
