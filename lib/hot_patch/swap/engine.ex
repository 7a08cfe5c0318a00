defmodule HotPatch.Swap.Engine do
  @moduledoc false
  # One swap, from the first suspend to the last resume, in a process of its own.
  #
  # Everything that can fail comes before the new code is current: all processes concerned
  # are suspended, and each converts its state by the new code's callback, called in its
  # shadow, and puts the result aside. Up to here going back is a resume. Then all modules
  # become current in one step, the states put aside become the real ones, and all are
  # resumed.
  #
  # A suspend whose answer did not come in time still takes effect later. All system
  # messages of a swap come from this one process, and messages between two processes keep
  # their order, so the resume that follows it undoes it.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Describe
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.InTurn
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Steps
  alias HotPatch.Swap.Stragglers
  alias HotPatch.Swap.Suspension
  alias HotPatch.Swap.SysMessage

  # After so many rounds newcomers come faster than they can be found.
  @most_rounds 20

  @typep swap :: %{
           caller: pid(),
           ready: Ready.t(),
           found: Processes.found(),
           suspension: Suspension.t(),
           deadline: integer()
         }

  @doc "Body of the engine process; waits for the guard to be in place."
  @spec init(pid(), Ready.t()) :: term()
  def init(caller, ready) do
    Guard.outlive_application()
    monitor = Process.monitor(caller)

    receive do
      {:go, ^caller, guard} -> send(caller, {self(), {:done, run(caller, ready, guard)}})
      {:DOWN, ^monitor, :process, ^caller, _reason} -> :ok
    end
  end

  @spec run(pid(), Ready.t(), pid()) ::
          {:ok, HotPatch.Swap.done()} | {:error, HotPatch.Swap.failure()}
  defp run(caller, ready, guard) do
    case ready.job.transition do
      :suspend -> run_suspended(caller, ready, guard)
      :none -> run_unpaused(caller, ready)
      :compatible -> run_in_turn(caller, ready)
    end
  end

  # Nobody's state changes: the load alone, which takes no longer than a blink.
  defp run_unpaused(caller, ready) do
    with :ok <- decision(caller, ready),
         {:ok, killed} <- load(ready) do
      {:ok, %{done() | killed: killed}}
    else
      {:error, reason, text} -> {:error, failure(reason, text, 0)}
    end
  end

  # The new code takes the old state too: load first, then each changes its state when it
  # gets to it. Tried before, in the same way, so that a failure finds the old code current.
  defp run_in_turn(caller, ready) do
    with %{silent: []} = found <- Processes.find(ready.job.changes),
         :ok <- InTurn.rehearse(found.targets, ready),
         :ok <- decision(caller, ready),
         # Whoever is started from here on may have either state; the new code takes both.
         found = Processes.merge(Processes.find(ready.job.changes, found), found),
         {:ok, killed} <- load(ready),
         :ok <- InTurn.change(found.targets, ready) do
      {:ok, %{done() | killed: killed}}
    else
      {:error, reason, text} ->
        {:error, failure(reason, text, 0)}

      %{silent: silent} ->
        pids = Enum.map_join(silent, ", ", &inspect/1)
        {:error, failure(:busy, "#{pids} had to be asked and were too busy to answer", 0)}
    end
  end

  defp done, do: %{suspended: 0, pause_us: 0, releases: 0, unsure: [], killed: []}

  defp run_suspended(caller, ready, guard) do
    # What was started since the preparation is looked at before anybody is suspended.
    found = Processes.merge(Processes.find(ready.job.changes, ready.found), ready.found)
    pids = found.parents ++ Enum.map(found.targets, & &1.pid)
    suspension = Suspension.announce(Suspension.new(guard, 0), pids)

    started = System.monotonic_time()
    deadline = System.monotonic_time(:millisecond) + ready.job.pause_timeout

    swap = %{
      caller: caller,
      ready: ready,
      found: found,
      suspension: %{suspension | deadline: deadline},
      deadline: deadline
    }

    {swap, suspended} = suspend(swap, pids, @most_rounds)

    result =
      with :ok <- suspended,
           :ok <- wanted(caller),
           {:ok, again} <- Steps.convert(swap.found.targets, ready, deadline),
           :ok <- decision(caller, ready) do
        {:decided, again}
      end

    {swap, result} = catch_up(swap, result)

    result =
      with {:decided, again} <- result, {:ok, killed} <- load(ready), do: {:loaded, again, killed}

    unsure = if match?({:loaded, _, _}, result), do: unsure(swap), else: []
    result |> resume(swap) |> outcome(swap, unsure, started)
  end

  # A decision may take its time, and whoever was started meanwhile is still of the old code.
  defp catch_up(swap, {:decided, again}) do
    before = length(swap.found.targets)
    deadline = System.monotonic_time(:millisecond) + swap.ready.job.pause_timeout
    swap = %{swap | suspension: %{swap.suspension | deadline: deadline}}

    with {swap, :ok} <- newcomers(swap, @most_rounds) do
      # The newest come first.
      new = Enum.take(swap.found.targets, length(swap.found.targets) - before)

      case Steps.convert(new, swap.ready, deadline) do
        {:ok, more} -> {swap, {:decided, more ++ again}}
        error -> {swap, error}
      end
    end
  end

  defp catch_up(swap, error), do: {swap, error}

  # Started in the very moment of the load: by which code cannot be told.
  defp unsure(swap) do
    for target <- Processes.find(swap.ready.job.changes, swap.found).targets, do: target.pid
  end

  # The supervisors of the processes concerned come first: they finish the child that they
  # are starting and start no other. Then the processes themselves, until none is left that
  # was started meanwhile.
  @spec suspend(swap(), [pid()], non_neg_integer()) ::
          {swap(), :ok | {:error, atom(), String.t()}}
  defp suspend(swap, pids, rounds) do
    case Suspension.add(swap.suspension, pids, swap.found.children) do
      {:ok, suspension} -> newcomers(%{swap | suspension: suspension}, rounds)
      {:late, suspension} -> late(%{swap | suspension: suspension})
    end
  end

  defp newcomers(swap, rounds) do
    case Processes.find(swap.ready.job.changes, swap.found) do
      %{targets: [], parents: []} ->
        {swap, :ok}

      new when rounds > 0 ->
        pids = new.parents ++ Enum.map(new.targets, & &1.pid)
        suspension = Suspension.announce(swap.suspension, pids)
        swap = %{swap | found: Processes.merge(new, swap.found), suspension: suspension}
        suspend(swap, pids, rounds - 1)

      _new ->
        {swap, {:error, :busy, "new processes were started faster than they could be suspended"}}
    end
  end

  defp late(%{suspension: %{waiting: busy, ours: ours}} = swap) do
    text =
      "#{length(busy)} of #{map_size(ours)} processes were busy and could not be suspended in time, " <>
        "nothing was loaded: #{Enum.map_join(Enum.take(busy, 3), "; ", &Describe.process/1)}"

    {swap, {:error, :busy, text}}
  end

  # Whoever asked for the swap may have died while it waited for a busy process.
  defp wanted(caller) do
    if Process.alive?(caller),
      do: :ok,
      else: {:error, :abandoned, "the caller died before anything was loaded"}
  end

  # Everything has been tried and everybody still waits: the last moment to leave all as it is.
  defp decision(_caller, %{job: %{hold_timeout: nil}}), do: :ok

  defp decision(caller, ready) do
    send(caller, {self(), :held})
    monitor = Process.monitor(caller)

    receive do
      {:decided, :finish} -> :ok
      {:decided, {:take_back, why}} -> {:error, :taken_back, why}
      {:DOWN, ^monitor, _, _, _} -> {:error, :taken_back, "the caller died before it decided"}
    after
      ready.job.hold_timeout -> {:error, :taken_back, "no decision came in time"}
    end
  end

  defp load(%{job: job, found: found}) do
    killed = purge(job)

    case :code.finish_loading(job.prepared) do
      :ok ->
        if job.after_load, do: job.after_load.()
        # Special processes without a change of state stand in their own loop: any system
        # message takes them through system_continue into the new code.
        for %{kind: :special, pid: pid} <- found.unpaused, do: SysMessage.resume_unanswered(pid)
        {:ok, killed}

      {:error, reasons} ->
        text =
          Enum.map_join(reasons, ", ", fn {module, why} ->
            "#{inspect(module)}: #{inspect(why)}"
          end)

        {:error, :load, "loading failed, nothing was changed: #{text}"}
    end
  end

  # Only by force is anybody killed, and only who would keep the new code out.
  defp purge(%{purge: :soft}), do: []

  defp purge(%{purge: :force, changes: changes}) do
    old = Enum.filter(Change.replaced(changes), &:erlang.check_old_code/1)
    holders = for straggler <- Stragglers.of(old), do: straggler.pid
    Enum.each(old, &:code.purge/1)
    Enum.uniq(holders)
  end

  defp resume({:loaded, again, killed}, swap) do
    case Steps.take_and_resume(swap.found, swap.ready, again) do
      [] -> {:ok, killed}
      failures -> {:error, :half, Describe.failures(failures)}
    end
  end

  defp resume({:error, _reason, _text} = error, swap) do
    :ok = Steps.drop_and_resume(swap.found, swap.suspension.waiting)
    error
  end

  defp outcome(result, swap, unsure, started) do
    us = System.convert_time_unit(System.monotonic_time() - started, :native, :microsecond)
    count = length(swap.found.targets)
    pause_us = if count == 0, do: 0, else: us

    case result do
      {:ok, killed} ->
        {:ok,
         %{
           suspended: count,
           pause_us: pause_us,
           releases: swap.suspension.releases,
           unsure: unsure,
           killed: killed
         }}

      {:error, reason, text} ->
        {:error, failure(reason, text, pause_us)}
    end
  end

  defp failure(reason, text, pause_us) do
    %{reason: reason, text: text, pause_us: pause_us, loaded?: reason == :half}
  end
end
