defmodule HotPatch.Cluster.Reconciler do
  @moduledoc false
  # Keeps this node in agreement with the others: compares when HotPatch starts (before the
  # applications that depend on it do), when a node comes, when an operation has ended, and
  # now and then.

  # In the tree it has the name under which it is found.
  use GenServer, id: HotPatch.Cluster.Comparison

  alias HotPatch.Cluster
  alias HotPatch.Cluster.CatchUp
  alias HotPatch.Cluster.Comparison
  alias HotPatch.Cluster.DecisionQuery
  alias HotPatch.Host.Config
  alias HotPatch.NodeAgent

  require HotPatch.Support.Log, as: Log

  # Milliseconds. How long a start waits for the others; how long after an event it is
  # compared, for several come at once; how often without any; how soon again where it could not be,
  # or has failed the first time; and where it goes on to fail, at most, for trying may have processes
  # pause. How soon the agent is looked for again.
  @start_within 30_000
  @agent_again 50
  @soon 200
  @again 1_000
  @now_and_then 10_000
  @seldom 600_000

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: Comparison.name())

  @doc """
  Waits until this node has been compared with the others, and with what it has decided itself,
  for the first time. A start is held up for that, but not for ever.
  """
  @spec await_first() :: :ok
  def await_first do
    GenServer.call(Comparison.name(), :await_first, @start_within)
  catch
    :exit, _too_long_or_gone -> :ok
  end

  @impl GenServer
  def init([]) do
    if Node.alive?(), do: :ok = :net_kernel.monitor_nodes(true)
    state = %{worker: nil, timer: nil, failing: nil, agent: nil, first?: true, waiting: []}
    {:ok, find_agent(state), {:continue, :connect}}
  end

  @impl GenServer
  def handle_continue(:connect, state) do
    for peer <- Config.current().peers, peer != node(), do: Node.connect(peer)
    # Also where there is nobody: this node itself may have decided what it has not come to.
    {:noreply, state |> work() |> soon(@now_and_then)}
  end

  @impl GenServer
  def handle_call(:await_first, from, %{first?: true} = state),
    do: {:noreply, %{state | waiting: [from | state.waiting]}}

  def handle_call(:await_first, _from, state), do: {:reply, :ok, state}
  def handle_call(_other, _from, state), do: {:reply, {:error, :not_supported}, state}

  @impl GenServer
  def handle_cast(_other, state), do: {:noreply, state}

  defp first(state) do
    for from <- state.waiting, do: GenServer.reply(from, :ok)
    %{state | first?: false, waiting: []}
  end

  # Its end is not ours: it is there again in a moment, and knows nothing of us.
  defp find_agent(state) do
    with pid when is_pid(pid) <- Process.whereis(NodeAgent.Server),
         monitor = Process.monitor(pid),
         :ok <- subscribe() do
      %{state | agent: monitor}
    else
      _not_there ->
        _ = Process.send_after(self(), :find_agent, @agent_again)
        %{state | agent: nil}
    end
  end

  defp subscribe do
    NodeAgent.subscribe()
  catch
    :exit, reason -> {:error, reason}
  end

  @impl GenServer
  def handle_info({:DOWN, monitor, _, _, _reason}, %{agent: monitor} = state),
    do: {:noreply, %{state | agent: nil} |> find_agent() |> soon(@soon)}

  # What it was at may have ended while nobody told us.
  def handle_info(:find_agent, %{agent: nil} = state),
    do: {:noreply, state |> find_agent() |> soon(@soon)}

  def handle_info({:nodeup, _node}, state), do: {:noreply, soon(state, @soon)}

  def handle_info({NodeAgent, :ended}, state) do
    tell_others()
    {:noreply, soon(state, @soon)}
  end

  def handle_info({NodeAgent, {:in_doubt, operation, coordinator}}, state) do
    _ = spawn(DecisionQuery, :run, [operation, coordinator])
    {:noreply, state}
  end

  def handle_info({Comparison, :changed}, state), do: {:noreply, soon(state, @soon)}

  def handle_info(:compare, %{worker: nil} = state), do: {:noreply, work(%{state | timer: nil})}

  def handle_info(:compare, state), do: {:noreply, soon(%{state | timer: nil}, @soon)}

  def handle_info({:DOWN, monitor, _, _, reason}, %{worker: {_pid, monitor}} = state),
    do: {:noreply, ended(state, reason)}

  def handle_info(_other, state), do: {:noreply, state}

  defp soon(%{timer: timer} = state, after_ms) do
    if timer == nil or Process.read_timer(timer) > after_ms do
      _ = timer && Process.cancel_timer(timer)
      %{state | timer: Process.send_after(self(), :compare, after_ms)}
    else
      state
    end
  end

  defp work(state) do
    %{state | worker: spawn_monitor(__MODULE__, :compare, [])}
  end

  @doc false
  # Its end is its result.
  @spec compare() :: no_return()
  def compare, do: exit({:result, CatchUp.run(Cluster.peers())})

  defp ended(state, reason) do
    state = first(%{state | worker: nil})

    case reason do
      {:result, :ok} ->
        well(state)

      {:result, :changed} ->
        tell_others()
        well(state)

      {:result, {:error, text}} ->
        behind(state, text)

      {:result, {:later, why}} ->
        later(state, why)

      died ->
        behind(state, "comparing with the other nodes failed: #{inspect(died, limit: 10)}")
    end
  end

  defp well(state) do
    NodeAgent.behind(nil)
    # rule: now-and-then
    soon(%{state | failing: nil}, @now_and_then)
  end

  # It has not been compared: what is known of it stays. Who has reserved this node may let go of it again, and
  # nothing ends then that would be told.
  defp later(state, :held), do: soon(state, @again)

  # What it waits for has it compared.
  defp later(state, {:waits, text}) do
    NodeAgent.behind(text)
    soon(state, @now_and_then)
  end

  # The first time it may only have met another operation.
  defp behind(state, text) do
    Log.error("HotPatch: this node is behind the others: #{text}")
    NodeAgent.behind(text)
    now = System.monotonic_time(:millisecond)
    since = state.failing || now
    soon(%{state | failing: since}, pause(now - since))
  end

  @doc false
  # As long again as it has failed by now, however often that was: several events at once are several failures, and no
  # reason to let the one that would go well wait for minutes.
  @spec pause(non_neg_integer()) :: pos_integer()
  def pause(failing_for), do: failing_for |> max(@again) |> min(@seldom)

  # rule: tell-others
  defp tell_others, do: Comparison.tell(Cluster.peers())
end
