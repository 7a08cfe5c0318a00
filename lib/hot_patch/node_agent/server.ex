defmodule HotPatch.NodeAgent.Server do
  @moduledoc false
  # Keeps who holds this node and what was prepared for whom, and lets go of it when the
  # coordinator dies. The commit alone runs in a process that is started here: it must end also
  # when the coordinator is gone.
  #
  #     idle -reserve-> reserved -prepared-> prepared -commit-> committing -held-> held
  #     held -decide-> deciding -ended-> idle
  #
  # A decision may also come while it is still committing, from a coordinator that has waited long
  # enough (`early`); and how the last operation ended is known for one that asks too late (`last`).
  #
  # Abort, and the death of the coordinator, lead back to idle from the first two. Who holds
  # when the coordinator dies, or is silent for too long, is in doubt: the decision may have been
  # made and told to others. Whoever knows other nodes (the subscriber) is told, asks them, and
  # decides. Nobody waits for that beyond the engine's own limit: taken back too early, the
  # operation is one that this node has missed.
  #
  # Besides, a coordinator may lock the node for several operations of its own. And where an
  # operation was decided and failed all the same, memory may be ahead of disk (`ahead`): until
  # this node has caught up, another operation would not find what it is to take back.

  use GenServer

  alias HotPatch.NodeAgent.Commit
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Retirement
  alias HotPatch.NodeAgent.Server.Request
  alias HotPatch.Release
  alias HotPatch.Store
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Swap

  require HotPatch.Support.Log, as: Log

  @typedoc "Who has this node, and what for: an operation, or what a coordinator locks it for."
  @type holder :: %{
          required(:kind) => :apply | :rollback | :detach | :restart | :install,
          required(:patch) => String.t(),
          required(:by) => String.t(),
          required(:coordinator) => pid(),
          optional(atom()) => term()
        }

  # Milliseconds before the engine gives up waiting for a decision: time to ask others.
  @in_doubt_before 700

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  # An agent that was killed may have left files behind; so may a node. Files of a commit
  # that goes on without its agent are that commit's.
  @impl GenServer
  def init([]) do
    case Process.whereis(Commit) do
      nil ->
        _ = Store.Recovery.run()
        :ok = Swap.Shadow.unload_leftovers()
        {:ok, idle()}

      pid ->
        worker = {pid, Process.monitor(pid)}
        {:ok, %{idle() | phase: :orphaned, operation: Commit.operation(pid), worker: worker}}
    end
  end

  # What is asked comes from other nodes, which may run another version: it is looked at first.
  @impl GenServer
  def handle_call(request, from, state) do
    if Request.understood?(request),
      do: answer(request, from, state),
      else: {:reply, {:error, "#{node()} does not understand what it was asked"}, state}
  end

  @impl GenServer
  def handle_cast(_other, state), do: {:noreply, state}

  defp answer({:reserve, %{coordinator: other}}, _from, %{lock: {holder, _monitor}} = state)
       when other != holder.coordinator,
       do: {:reply, {:busy, holder}, state}

  # rule: ahead-first
  defp answer({:reserve, %{origin: origin}}, _from, %{phase: :idle, ahead: text} = state)
       when is_atom(origin) and text != nil,
       do: {:reply, {:unfinished, text}, state}

  # rule: grant-idle
  defp answer({:reserve, operation}, _from, %{phase: :idle} = state) do
    case release_handler() || settled() do
      %{} = holder ->
        {:reply, {:busy, holder}, state}

      :ok ->
        monitor = Process.monitor(operation.coordinator)
        {:reply, :ok, %{state | phase: :reserved, operation: operation, monitor: monitor}}

      {:error, text} ->
        {:reply, {:unfinished, text}, state}
    end
  end

  defp answer({:reserve, _operation}, _from, state),
    do: {:reply, {:busy, held_by(state)}, state}

  defp answer({:lock, holder}, _from, %{phase: :idle, lock: nil} = state) do
    {:reply, :ok, %{state | lock: {holder, Process.monitor(holder.coordinator)}}}
  end

  defp answer({:lock, _holder}, _from, state), do: {:reply, {:busy, held_by(state)}, state}

  # Meanwhile nobody could catch up.
  defp answer({:unlock, pid}, _from, %{lock: {%{coordinator: pid}, _monitor}} = state) do
    tell_subscriber(%{origin: :operator})
    {:reply, :ok, unlocked(state)}
  end

  defp answer({:unlock, _pid}, _from, state), do: {:reply, :ok, state}

  defp answer({:prepared, operation, preparation}, _from, state) do
    case state do
      %{phase: :reserved, operation: %{ref: ref}} when ref == operation.ref ->
        {:reply, :ok, %{state | phase: :prepared, operation: operation, preparation: preparation}}

      _ ->
        {:reply, :gone, state}
    end
  end

  defp answer({:commit, ref}, from, %{phase: :prepared, operation: %{ref: ref}} = state) do
    worker = spawn_monitor(Commit, :run, [self(), state.preparation])
    {:noreply, %{state | phase: :committing, worker: worker, callers: [from]}}
  end

  defp answer({:commit, _ref}, _from, state), do: {:reply, nothing(), state}

  defp answer({:decide, ref, decision}, from, %{operation: %{ref: ref}} = state)
       when state.phase == :held do
    FaultPoint.point(:decided)
    {:noreply, tell(%{state | callers: [from]}, decision)}
  end

  # The coordinator does not wait for this node: it need not come to hold, and is not asked again.
  defp answer({:decide, ref, {:take_back, _why} = decision}, from, state)
       when state.phase == :committing and state.operation.ref == ref do
    {worker, _monitor} = state.worker
    :ok = Swap.decide(worker, decision)
    {:noreply, %{state | decision: decision, callers: [from | state.callers]}}
  end

  # Somebody who was asked in doubt has said so first.
  defp answer({:decide, ref, decision}, from, %{operation: %{ref: ref}} = state)
       when state.phase == :deciding and state.decision == decision,
       do: {:noreply, %{state | callers: [from | state.callers]}}

  # The coordinator waits no longer for this node to hold. What it has decided is done when this
  # node holds; should it fail before, the coordinator hears of that.
  defp answer({:decide, ref, decision}, from, %{operation: %{ref: ref}} = state)
       when state.phase == :committing,
       do: {:noreply, %{state | early: decision, deciders: [from | state.deciders]}}

  # It did not wait: the deadline came first. What was decided all the same is now missed here,
  # and nothing else that ends would have it looked for.
  defp answer({:decide, ref, decision}, _from, state) do
    if decision == :finish, do: tell_subscriber(%{origin: :operator})

    case state.last do
      {^ref, answer} -> {:reply, answer, state}
      _ -> {:reply, nothing(), state}
    end
  end

  defp answer({:abort, ref}, _from, %{operation: %{ref: ref}} = state) do
    {:reply, :ok, let_go(state)}
  end

  defp answer({:abort, _ref}, _from, state), do: {:reply, :ok, state}
  defp answer(:holder, _from, state), do: {:reply, held_by(state), state}

  defp answer({:finishing?, id}, _from, state) do
    {:reply, match?(%{operation: %{id: ^id}, decision: :finish}, state), state}
  end

  # Nobody else writes the state now.
  defp answer({:note, ops}, _from, %{phase: :idle} = state) do
    applied = Enum.reduce(ops, Store.Applied.state(), &Store.Applied.noted(&2, &1))

    case Store.Applied.put(applied) do
      :ok -> {:reply, :ok, state}
      {:error, posix} -> {:reply, {:error, "cannot write the state: #{posix}"}, state}
    end
  end

  defp answer({:note, _ops}, _from, state),
    do: {:reply, {:error, "an operation has begun meanwhile"}, state}

  # A commit that goes on may still make it so.
  defp answer(:level, _from, %{phase: :idle} = state),
    do: {:reply, :ok, %{state | ahead: nil}}

  defp answer(:level, _from, state), do: {:reply, :ok, state}

  defp answer(:settle, _from, %{phase: :idle} = state), do: {:reply, settled(), state}
  defp answer(:settle, _from, state), do: {:reply, :ok, state}

  defp answer({:subscribe, pid}, _from, state) do
    Process.put(:subscriber, pid)
    {:reply, :ok, state}
  end

  @impl GenServer
  # It was told before it came to this.
  def handle_info({Commit, :held, decider}, %{phase: :committing, decision: decision} = state)
      when is_pid(decider) and decision != nil,
      do: {:noreply, %{state | phase: :deciding, decider: decider}}

  def handle_info({Commit, :held, decider}, %{phase: :committing} = state) when is_pid(decider) do
    reply(state.callers, :held)
    state = %{state | phase: :held, callers: [], decider: decider}
    {:noreply, held(state)}
  end

  def handle_info({:in_doubt, ref}, %{phase: :held, operation: %{ref: ref}} = state),
    do: {:noreply, in_doubt(state, :silent)}

  def handle_info({Commit, {:ended, result}}, %{worker: {_pid, _monitor}} = state) do
    {:noreply, ended(state, {:ended, result})}
  end

  # Its files may be half in place: as at a start, what was decided is finished.
  def handle_info({:DOWN, monitor, _, _, reason}, %{worker: {_pid, monitor}} = state) do
    # Not what was decided already: that is finished below.
    if state.preparation && not decided?(state.preparation),
      do: Prepare.discard(state.preparation)

    _ = Store.Recovery.run()
    {:noreply, ended(state, {:error, "the commit on #{node()} died: #{inspect(reason)}"})}
  end

  def handle_info({:DOWN, monitor, _, _, _reason}, %{monitor: monitor} = state)
      when monitor != nil do
    Log.warning("HotPatch: the coordinator of #{state.operation.patch} is gone",
      patch: state.operation.patch
    )

    {:noreply, orphaned(state)}
  end

  def handle_info({:DOWN, monitor, _, _, _reason}, %{lock: {_holder, monitor}} = state) do
    tell_subscriber(%{origin: :operator})
    {:noreply, unlocked(state)}
  end

  def handle_info(_late_answer, state), do: {:noreply, state}

  # Its state would be built upon one that is about to change. And where the release is another now,
  # patches have ended.
  defp settled do
    case Store.Recovery.run() do
      [] ->
        with {:error, failure} <- Retirement.run(),
             do: Log.debug("HotPatch: files of ended patches stay for now: #{inspect(failure)}")

        :ok

      [{_intent, {path, reason}} | _] ->
        {:error, "#{path}: #{inspect(reason)}"}
    end
  end

  # The code of the system is about to change by other means.
  defp release_handler do
    if Release.changing?() do
      %{
        kind: :install,
        patch: "a release",
        by: "release_handler",
        coordinator: Process.whereis(:release_handler) || self()
      }
    end
  end

  defp decided?(preparation) do
    Enum.any?(
      Store.Transaction.pending(),
      &(&1.tag == preparation.staged.tag and &1.state == :decided)
    )
  end

  defp held(%{early: decision} = state) when decision != nil,
    do: tell(%{state | callers: state.deciders, deciders: []}, decision)

  defp held(state) do
    # rule: hold-ends
    wait = max(state.operation.hold_timeout - @in_doubt_before, 0)
    Process.send_after(self(), {:in_doubt, state.operation.ref}, wait)
    if state.orphaned?, do: in_doubt(state, :dead), else: state
  end

  defp orphaned(%{phase: :held} = state), do: in_doubt(state, :dead)
  defp orphaned(%{phase: :committing} = state), do: %{state | orphaned?: true}
  # rule: let-go
  defp orphaned(state), do: let_go(state)

  # The one that is asked to find out ends it by `decide/2`.
  defp in_doubt(state, coordinator) do
    case Process.get(:subscriber) do
      # rule: take-back-unsure
      nil when coordinator == :dead ->
        tell(state, {:take_back, "the coordinator died before it decided"})

      nil ->
        state

      pid ->
        send(pid, {HotPatch.NodeAgent, {:in_doubt, state.operation, coordinator}})
        state
    end
  end

  defp tell(%{decider: decider} = state, decision) do
    :ok = Swap.decide(decider, decision)
    %{state | phase: :deciding, decision: decision}
  end

  defp ended(state, answer) do
    reply(state.callers ++ state.deciders, answer)
    {_pid, monitor} = state.worker
    Process.demonitor(monitor, [:flush])
    tell_subscriber(state.operation)
    FaultPoint.point(:ended)
    last = if state.operation, do: {state.operation.ref, answer}
    done(%{state | ahead: ahead(state, answer), last: last})
  end

  defp ahead(_state, {:ended, %{error: nil}}), do: nil
  defp ahead(%{decision: :finish}, {:ended, %{error: text}}), do: text
  defp ahead(%{decision: :finish}, {:error, text}), do: text
  defp ahead(state, _nothing_was_done), do: state.ahead

  defp reply(callers, answer), do: Enum.each(callers, &GenServer.reply(&1, answer))

  # Who catches up knows by itself when that has ended, and would try again at once for ever.
  defp tell_subscriber(%{origin: origin}) when is_atom(origin) do
    if pid = Process.get(:subscriber), do: send(pid, {HotPatch.NodeAgent, :ended})
  end

  defp tell_subscriber(_operation), do: :ok

  defp nothing, do: {:error, "nothing is prepared or held for this operation on #{node()}"}

  # A commit that has begun is not let go of: it ends by itself.
  defp let_go(%{phase: phase} = state) when phase in [:committing, :held, :deciding, :orphaned],
    do: state

  defp let_go(state) do
    if state.preparation, do: Prepare.discard(state.preparation)
    done(state)
  end

  defp done(state) do
    if state.monitor, do: Process.demonitor(state.monitor, [:flush])
    %{idle() | lock: state.lock, ahead: state.ahead, last: state.last}
  end

  defp held_by(%{operation: nil, lock: {holder, _monitor}}), do: holder
  defp held_by(state), do: state.operation

  defp unlocked(%{lock: {_holder, monitor}} = state) do
    Process.demonitor(monitor, [:flush])
    %{state | lock: nil}
  end

  defp idle do
    %{
      phase: :idle,
      operation: nil,
      monitor: nil,
      preparation: nil,
      worker: nil,
      callers: [],
      deciders: [],
      early: nil,
      last: nil,
      decider: nil,
      decision: nil,
      orphaned?: false,
      lock: nil,
      ahead: nil
    }
  end
end
