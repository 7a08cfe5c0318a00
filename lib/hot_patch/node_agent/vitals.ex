defmodule HotPatch.NodeAgent.Vitals do
  @moduledoc false
  # Looks at this node before and after a change, for a coordinator that decides whether it was
  # for the worse. Ends with the coordinator. It must not itself be what it looks for: it
  # counts log events where they are made, and looks at mailboxes as seldom as that is dear.

  use GenServer

  alias HotPatch.NodeAgent.Vitals.HealthCheck
  alias HotPatch.NodeAgent.Vitals.LogCounter

  @typedoc "Whose watch it is, over which modules, and the host's function that judges."
  @type job :: %{coordinator: pid(), modules: [String.t()], health: mfa() | nil}

  @typedoc "A figure: how much more than before the change."
  @type figure :: %{sign: HotPatch.Watch.sign(), value: number(), text: String.t() | nil}

  # Milliseconds between two looks at the run queues.
  @every 250

  # Milliseconds: what is seen in less than this before a change counts as seen in this, so that one
  # chance event makes no rate that hides all others; and how long after it mailboxes may be full.
  @shortest 1_000
  @settle 1_000

  # A look at all mailboxes takes at most one part in so many of the time.
  @seldom 50

  @doc "Begins to look; what comes until `counts/0` is what is usual here."
  @spec start(job()) :: :ok
  def start(job) do
    :ok = stop()
    {:ok, _pid} = GenServer.start(__MODULE__, job, name: __MODULE__)
    :ok
  end

  @doc """
  The change is about to be made: from here on what is logged counts. Whoever crashes in the moment in
  which the new code is there does so before anybody can say that it is.
  """
  @spec counts() :: :ok
  def counts, do: GenServer.call(__MODULE__, :counts)

  @doc """
  The change is made: what waited meanwhile is no sign, nor are so many processes that the operator
  has had ended with it.
  """
  @spec changed(non_neg_integer()) :: :ok
  def changed(ended), do: GenServer.call(__MODULE__, {:changed, ended})

  @doc "The figures since it counts; nil if nobody looks."
  @spec figures() :: [figure()] | nil
  def figures do
    with pid when pid != nil <- Process.whereis(__MODULE__) do
      {figures, health} = GenServer.call(pid, :figures)
      figures ++ HealthCheck.ask(health)
    end
  catch
    :exit, {:noproc, _call} -> nil
  end

  @doc "Ends it."
  @spec stop() :: :ok
  def stop do
    GenServer.stop(__MODULE__)
  catch
    # It has ended by itself, or does so in this moment.
    :exit, {reason, _call} when reason in [:noproc, :normal] -> :ok
    :exit, :noproc -> :ok
  end

  @impl GenServer
  def init(job) do
    Process.flag(:trap_exit, true)
    Process.monitor(job.coordinator)

    state = %{
      health: job.health,
      events: LogCounter.attach(job.modules),
      since: now(),
      usual: nil,
      ended: 0
    }

    {:ok, state |> Map.merge(%{queues: [], mailboxes: 0, look_again: now()}) |> look()}
  end

  @impl GenServer
  def handle_call(:counts, _from, state) do
    usual = %{
      events: LogCounter.counts(state.events),
      ms: max(now() - state.since, @shortest),
      run_queue: mean(state.queues),
      mailboxes: state.mailboxes
    }

    {:reply, :ok, %{state | usual: usual, since: now(), queues: []}}
  end

  # A look at mailboxes of processes that stood still says nothing of the new code.
  def handle_call({:changed, ended}, _from, %{usual: usual} = state) do
    anew = %{queues: [], mailboxes: usual.mailboxes, look_again: now() + @settle}
    {:reply, :ok, state |> Map.merge(anew) |> Map.put(:ended, ended)}
  end

  def handle_call(:figures, _from, state) do
    {:reply, {if(state.usual, do: figures_of(state), else: []), state.health}, state}
  end

  def handle_call(_other, _from, state), do: {:reply, {:error, :not_supported}, state}

  @impl GenServer
  def handle_cast(_other, state), do: {:noreply, state}

  @impl GenServer
  def handle_info(:look, state), do: {:noreply, look(state)}
  def handle_info({:DOWN, _monitor, _, _, _reason}, state), do: {:stop, :normal, state}
  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, state), do: LogCounter.detach(state.events)

  defp figures_of(%{usual: usual} = state) do
    elapsed = now() - state.since

    events =
      for {sign, count} <- LogCounter.counts(state.events) do
        before = usual.events[sign]
        expected = before * elapsed / usual.ms + ended(sign, state)
        %{sign: sign, value: max(round(count - before - expected), 0), text: LogCounter.unheard()}
      end

    events ++
      [
        %{sign: :run_queue, value: grown(mean(state.queues), usual.run_queue), text: nil},
        %{sign: :mailboxes, value: max(state.mailboxes - usual.mailboxes, 0), text: nil}
      ]
  end

  # Each is a report of its supervisor, which is an event of level error.
  defp ended(:crashes, _state), do: 0
  defp ended(_sign, state), do: state.ended

  defp grown(now, before), do: Float.round(max(now - before, 0.0), 2)

  defp look(state) do
    Process.send_after(self(), :look, @every)
    waiting = :erlang.statistics(:total_run_queue_lengths_all) / System.schedulers_online()
    look_at_mailboxes(%{state | queues: [waiting | state.queues]})
  end

  defp look_at_mailboxes(state) do
    started = now()

    if started < state.look_again do
      state
    else
      sum = for(pid <- Process.list(), reduce: 0, do: (sum -> sum + waiting(pid)))
      took = now() - started
      %{state | mailboxes: sum, look_again: started + max(1_000, took * @seldom)}
    end
  end

  defp waiting(pid) do
    case Process.info(pid, :message_queue_len) do
      {:message_queue_len, n} -> n
      nil -> 0
    end
  end

  defp mean([]), do: 0.0
  defp mean(values), do: Enum.sum(values) / length(values)

  defp now, do: System.monotonic_time(:millisecond)
end
