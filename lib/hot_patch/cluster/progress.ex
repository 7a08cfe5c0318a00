defmodule HotPatch.Cluster.Progress do
  @moduledoc false
  # Hears on every node how far the operations of the cluster have come, and tells those who
  # want to know: also one who asks in the middle.
  #
  # Whoever listens goes on hearing when the process here has ended and is there again: who listens
  # is in a table that outlives it. What comes from other nodes is looked at before it is taken.
  #
  # A coordinator only sends its events to the process here, for others stand still while it
  # works; that passes them on to the other nodes, several at a time. A node that does not hear
  # of one misses nothing but that.

  use GenServer

  alias HotPatch.Cluster.Readiness
  alias HotPatch.Event

  @typedoc "What a coordinator keeps to tell of itself: whom it tells, and what is in all its events."
  @type teller :: %{coordinator: pid(), event: Event.t(), nodes: [node()]}

  # Milliseconds between two messages to other nodes; and how long after its end a coordinator
  # is taken to be gone: what it has told at last may be under way.
  @every 100
  @gone_after 1_000

  @table __MODULE__.Subscribers

  @doc "Makes the table of those who listen; the calling process keeps it."
  @spec prepare() :: :ok
  def prepare do
    _ = :ets.new(@table, [:named_table, :public])
    :ok
  end

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
  @spec tell(teller(), node() | nil, {Event.phase(), :running | :done | :failed}, keyword()) ::
          :ok
  def tell(teller, node, {phase, state}, more \\ []) do
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
  def init([]) do
    subscribers = for {pid} <- :ets.tab2list(@table), into: %{}, do: {pid, Process.monitor(pid)}
    {:ok, %{subscribers: subscribers, running: %{}, outgoing: %{}}}
  end

  @impl GenServer
  def handle_call({:subscribe, pid}, _from, state) when is_pid(pid) do
    :ets.insert(@table, {pid})
    monitor = Map.get_lazy(state.subscribers, pid, fn -> Process.monitor(pid) end)
    {:reply, :ok, put_in(state.subscribers[pid], monitor)}
  end

  def handle_call({:unsubscribe, pid}, _from, state) do
    {monitor, state} = forget(state, pid)
    if monitor, do: Process.demonitor(monitor, [:flush])
    {:reply, :ok, state}
  end

  def handle_call(:list, _from, state) do
    events = for {_pid, %{events: events}} <- state.running, {_node, event} <- events, do: event
    {:reply, Enum.sort_by(events, & &1.at, DateTime), state}
  end

  def handle_call(_other, _from, state), do: {:reply, {:error, :not_supported}, state}

  @impl GenServer
  def handle_cast(_other, state), do: {:noreply, state}

  defp forget(state, pid) do
    :ets.delete(@table, pid)
    {monitor, subscribers} = Map.pop(state.subscribers, pid)
    {monitor, %{state | subscribers: subscribers}}
  end

  @impl GenServer
  def handle_info({:event, coordinator, event, nodes}, state) do
    if heard?({coordinator, event}) and nodes?(nodes),
      do: {:noreply, told(coordinator, event, nodes, state)},
      else: {:noreply, state}
  end

  def handle_info({:events, events}, state) when is_list(events) do
    events = if List.improper?(events), do: [], else: Enum.filter(events, &heard?/1)
    {:noreply, Enum.reduce(events, state, &hear/2)}
  end

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

    {_monitor, state} = forget(state, pid)
    {:noreply, state}
  end

  def handle_info({:gone, pid, reason}, state) do
    {run, running} = Map.pop(state.running, pid)
    if run, do: pass_on(gone(run, reason), state)
    {:noreply, %{state | running: running}}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp heard?({coordinator, event}), do: is_pid(coordinator) and Event.valid?(event)
  defp heard?(_other), do: false

  defp nodes?(nodes),
    do: is_list(nodes) and not List.improper?(nodes) and Enum.all?(nodes, &is_atom/1)

  defp told(coordinator, event, nodes, state) do
    _ = if state.outgoing == %{}, do: Process.send_after(self(), :pass_on, @every)

    outgoing =
      for node <- nodes, node != node(), reduce: state.outgoing do
        outgoing ->
          Map.update(outgoing, node, [{coordinator, event}], &[{coordinator, event} | &1])
      end

    hear({coordinator, event}, %{state | outgoing: outgoing})
  end

  defp hear({coordinator, event}, state) do
    pass_on(event, state)
    %{state | running: heard(state.running, coordinator, event)}
  end

  defp pass_on(event, state) do
    for {pid, _monitor} <- state.subscribers, do: send(pid, Event.message(event))
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
