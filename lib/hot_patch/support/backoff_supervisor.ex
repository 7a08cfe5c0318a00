defmodule HotPatch.Support.BackoffSupervisor do
  @moduledoc false
  # Supervises one child and never gives up on it, so that a child that fails again and again
  # takes nothing down but itself: not the children beside it, not the application, and so not the
  # host, which a permanent application would end with it.
  #
  # A child that ends is started again at once; one that has ended several times within the last
  # minute, after a pause that doubles each time. A child that cannot be started is treated as one
  # that has ended: the application starts without it. One that answers `:ignore` is left alone.

  use GenServer

  require HotPatch.Support.Log, as: Log

  # Milliseconds, but for the first.
  @at_once 3
  @shortest 10
  @longest 5_000
  @window 60_000

  @typedoc "`:longest` is the longest pause before a start, in milliseconds."
  @type option :: {:longest, pos_integer()}

  @doc "A child as others have it, under a supervisor of its own."
  @spec child_spec({module() | {module(), term()} | Supervisor.child_spec(), [option()]}) ::
          Supervisor.child_spec()
  def child_spec({child, options}) do
    child = Supervisor.child_spec(child, [])

    %{
      id: child.id,
      start: {__MODULE__, :start_link, [child, options]},
      type: :supervisor,
      shutdown: :infinity
    }
  end

  @doc false
  @spec start_link(Supervisor.child_spec(), [option()]) :: GenServer.on_start()
  def start_link(child, options), do: GenServer.start_link(__MODULE__, {child, options})

  @doc "Starts a child of `HotPatch.Supervisor` that is not there; by its id."
  @spec start_child(term()) :: :ok | {:error, term()}
  def start_child(id), do: tell(id, :start)

  @doc "Ends a child, which stays away until `start_child/1`."
  @spec stop_child(term()) :: :ok | {:error, term()}
  def stop_child(id), do: tell(id, :stop)

  defp tell(id, what) do
    case List.keyfind(Supervisor.which_children(HotPatch.Supervisor), id, 0) do
      {^id, pid, _type, _modules} when is_pid(pid) -> GenServer.call(pid, what, :infinity)
      _not_there -> {:error, :not_found}
    end
  end

  @impl GenServer
  def init({child, options}) do
    Process.flag(:trap_exit, true)
    longest = Keyword.get(options, :longest, @longest)
    {:ok, begin(%{child: child, pid: nil, longest: longest, ends: []})}
  end

  # Whoever walks a supervision tree asks this, as OTP's release handler does.
  @impl GenServer
  def handle_call(:which_children, _from, state) do
    type = Map.get(state.child, :type, :worker)
    {:reply, [{state.child.id, state.pid || :restarting, type, modules(state.child)}], state}
  end

  def handle_call(:count_children, _from, state) do
    supervisors = if state.child[:type] == :supervisor, do: 1, else: 0
    active = if state.pid, do: 1, else: 0
    counts = [specs: 1, active: active, supervisors: supervisors, workers: 1 - supervisors]
    {:reply, counts, state}
  end

  def handle_call(:start, _from, %{pid: nil} = state) do
    state = begin(state)
    {:reply, if(state.pid, do: :ok, else: {:error, :not_started}), state}
  end

  def handle_call(:start, _from, state), do: {:reply, :ok, state}

  def handle_call(:stop, _from, state) do
    :ok = terminate(:shutdown, state)
    {:reply, :ok, %{state | pid: nil}}
  end

  def handle_call(_other, _from, state), do: {:reply, {:error, :not_supported}, state}

  @impl GenServer
  def handle_cast(_other, state), do: {:noreply, state}

  @impl GenServer
  def handle_info({:EXIT, pid, reason}, %{pid: pid} = state) do
    Log.error("HotPatch: #{inspect(state.child.id)} ended and is started again: #{short(reason)}")

    {:noreply, again(%{state | pid: nil})}
  end

  def handle_info(:begin, %{pid: nil} = state), do: {:noreply, begin(state)}
  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, %{pid: nil}), do: :ok

  def terminate(_reason, %{pid: pid, child: child}) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :shutdown)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      within(child) ->
        Process.exit(pid, :kill)
        :ok
    end
  end

  defp within(child) do
    default = if child[:type] == :supervisor, do: :infinity, else: 5_000
    with :brutal_kill <- Map.get(child, :shutdown, default), do: 0
  end

  defp begin(state) do
    case start(state.child.start) do
      {:ok, pid} ->
        %{state | pid: pid}

      :ignore ->
        state

      {:error, reason} ->
        Log.error("HotPatch: #{inspect(state.child.id)} cannot be started: #{short(reason)}")
        again(state)
    end
  end

  defp start({module, function, args}) do
    case apply(module, function, args) do
      {:ok, pid} when is_pid(pid) -> {:ok, pid}
      {:ok, pid, _info} when is_pid(pid) -> {:ok, pid}
      :ignore -> :ignore
      {:error, reason} -> {:error, reason}
      other -> {:error, {:bad_return, other}}
    end
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  defp again(state) do
    now = System.monotonic_time(:millisecond)
    ends = [now | Enum.filter(state.ends, &(now - &1 < @window))]
    _ = Process.send_after(self(), :begin, pause(length(ends), state.longest))
    # More of them change nothing.
    %{state | ends: Enum.take(ends, 100)}
  end

  @doc "Milliseconds before the start that follows the end with this number within a minute."
  @spec pause(pos_integer(), pos_integer()) :: non_neg_integer()
  def pause(number, _longest) when number <= @at_once, do: 0

  def pause(number, longest),
    do: min(@shortest * Integer.pow(2, min(number - @at_once, 20)), longest)

  defp modules(%{modules: modules}), do: modules
  defp modules(%{start: {module, _function, _args}}), do: [module]

  defp short(reason), do: inspect(reason, limit: 20, printable_limit: 500)
end
