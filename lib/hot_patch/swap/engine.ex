defmodule HotPatch.Swap.Engine do
  @moduledoc false
  # One swap, from the first suspend to the last resume, in a process of its own.
  #
  # Every step before the load can be taken back by resuming everyone. After the load, a
  # change_code that fails takes all back: states were kept inside the processes
  # themselves, and the old code was prepared beforehand.
  #
  # A suspend whose answer did not come in time still takes effect later. All system
  # messages of a swap come from this one process, and messages between two processes keep
  # their order, so the resume that follows it undoes it.

  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.KeptState
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Stragglers
  alias HotPatch.Swap.SysMessage

  # Enough to keep the schedulers busy, few enough that answers do not pile up unread.
  @window 1_000

  # How long the answers to a resume are awaited: they only make the pause measurable.
  @resume_answers_within 5_000

  # How long after the deadline a decision may still come: other nodes may have begun later.
  @decision_grace 1_000

  @typep swap :: %{
           caller: pid(),
           guard: pid(),
           job: HotPatch.Swap.Job.t(),
           found: Processes.found(),
           deadline: integer()
         }

  @doc "Body of the engine process; waits for the guard to be in place."
  @spec init(pid(), HotPatch.Swap.Job.t(), Processes.found()) :: term()
  def init(caller, job, found) do
    receive do
      {:go, ^caller, guard} ->
        swap = %{caller: caller, guard: guard, job: job, found: found, deadline: nil}
        send(caller, {self(), {:done, run(swap)}})
    end
  end

  @spec run(swap()) :: {:ok, HotPatch.Swap.done()} | {:error, HotPatch.Swap.failure()}
  defp run(swap) do
    started = System.monotonic_time()
    swap = %{swap | deadline: System.monotonic_time(:millisecond) + swap.job.pause_timeout}

    {swap, suspended} = suspend_all(swap)

    result =
      with :ok <- suspended,
           :ok <- wanted(swap.caller),
           :ok <- keep_state(swap.found.targets),
           :ok <- load(swap.job.prepared),
           :ok <- change_state(swap) do
        decision(swap)
      end

    resume(swap.found, late(result))
    us = System.convert_time_unit(System.monotonic_time() - started, :native, :microsecond)
    count = length(swap.found.targets)

    case result do
      :ok -> {:ok, %{suspended: count, pause_us: if(count == 0, do: 0, else: us)}}
      {:error, reason, text, _late} -> {:error, %{reason: reason, text: text, pause_us: us}}
    end
  end

  defp late({:error, _reason, _text, late}), do: late
  defp late(:ok), do: []

  # Whoever asked for the swap may have died while it waited for a busy process.
  defp wanted(caller) do
    if Process.alive?(caller),
      do: :ok,
      else: {:error, :abandoned, "the caller died before anything was loaded", []}
  end

  # The supervisors of the processes concerned come first: they finish the child that they
  # are starting and start no other. Then the processes themselves, until none is left that
  # was started meanwhile.
  defp suspend_all(swap) do
    case suspend(swap, swap.found.parents) do
      :ok -> suspend_targets(swap, swap.found.targets)
      error -> {swap, error}
    end
  end

  defp suspend_targets(swap, targets) do
    with :ok <- suspend(swap, Enum.map(targets, & &1.pid)),
         {:new, found} <- newcomers(swap) do
      suspend_newcomers(swap, found)
    else
      :none -> {swap, :ok}
      error -> {swap, error}
    end
  end

  defp newcomers(swap) do
    case Processes.find(swap.job.changes, swap.found) do
      %{targets: []} -> :none
      found -> {:new, found}
    end
  end

  defp suspend_newcomers(swap, new) do
    known = swap.found
    parents = new.parents -- known.parents

    found = %{
      new
      | targets: new.targets ++ known.targets,
        parents: parents ++ known.parents
    }

    swap = %{swap | found: found}

    case suspend(swap, parents) do
      :ok -> suspend_targets(swap, new.targets)
      error -> {swap, error}
    end
  end

  defp suspend(swap, pids) do
    Guard.tell(swap.guard, pids)

    case ask(pids, fn _pid -> [:suspend] end, {swap.deadline, :halt}, [], &ignore/3) do
      {[], _} ->
        :ok

      {busy, _} ->
        {:error, :busy,
         "#{length(busy)} of #{length(pids)} processes were busy and could not be suspended in " <>
           "time, nothing was loaded: #{Enum.map_join(Enum.take(busy, 3), "; ", &describe/1)}",
         busy}
    end
  end

  # Everything is new and everybody still waits: the last moment to take all back.
  defp decision(swap) do
    send(swap.caller, {self(), :held})
    monitor = Process.monitor(swap.caller)
    left = swap.deadline + @decision_grace - System.monotonic_time(:millisecond)

    receive do
      {:decided, :finish} -> :ok
      {:decided, {:take_back, why}} -> take_back(swap, [], why)
      {:DOWN, ^monitor, _, _, _} -> take_back(swap, [], "the caller died before it decided")
    after
      max(left, 0) -> take_back(swap, [], "no decision came in time")
    end
  end

  defp keep_state(targets) do
    Enum.each(targets, &KeptState.keep/1)
  end

  defp load(prepared) do
    case :code.finish_loading(prepared) do
      :ok ->
        :ok

      {:error, reasons} ->
        text = Enum.map_join(reasons, ", ", fn {module, why} -> "#{inspect(module)}: #{why}" end)
        {:error, :load, "loading failed, nothing was changed: #{text}", []}
    end
  end

  defp change_state(%{found: %{targets: targets}} = swap) do
    old_vsns = Map.new(swap.job.changes, &{&1.module, &1.old_vsn})

    messages =
      for %{pid: pid, modules: modules} <- targets,
          asked =
            for({module, true} <- modules, do: {:change_code, module, old_vsns[module], []}),
          asked != [],
          into: %{},
          do: {pid, asked}

    {late, failed} =
      ask(Map.keys(messages), &messages[&1], {swap.deadline, :halt}, [], &note_failure/3)

    case {failed, late} do
      {[], []} ->
        :ok

      {[{pid, reason} | _], _} ->
        take_back(swap, late, failure_text(pid, callback(targets, pid), reason))

      {[], [pid | _]} ->
        take_back(swap, late, "change_code took too long in #{describe(pid)}")
    end
  end

  # An event manager has several; the first stands for all.
  defp callback(targets, pid) do
    %{modules: modules} = Enum.find(targets, &(&1.pid == pid))
    Enum.find_value(modules, fn {module, asked?} -> asked? && module end)
  end

  defp note_failure(_pid, :ok, failed), do: failed
  defp note_failure(pid, {:error, reason}, failed), do: [{pid, reason} | failed]
  defp note_failure(pid, other, failed), do: [{pid, other} | failed]

  defp failure_text(pid, module, reason) do
    "change_code of #{inspect(module)} failed in #{name(pid)}: #{reason(module, reason)}"
  end

  # What a behaviour makes of a callback that raised, with the place in that callback.
  defp reason(module, {:EXIT, {reason, [{_, _, _, _} | _] = stack}}) do
    entry = Enum.find(stack, hd(stack), &(elem(&1, 0) == module))
    "#{short(reason)} in #{Exception.format_stacktrace_entry(without_arguments(entry))}"
  end

  defp reason(_module, reason), do: short(reason)

  defp short(term), do: inspect(term, limit: 20, printable_limit: 200)

  # Arguments are states: too long for a sentence, and nobody else's business.
  defp without_arguments({module, function, arguments, location}) when is_list(arguments) do
    {module, function, length(arguments), location}
  end

  defp without_arguments(entry), do: entry

  # Old code current again, then every process its old state, before anyone is resumed.
  defp take_back(%{job: job, found: %{targets: targets}}, late, why) do
    replaced = for %{kind: :replace, module: module} <- job.changes, do: module
    added = for %{kind: :add, module: module} <- job.changes, do: module

    with {:previous, previous} when previous != nil <- {:previous, job.previous},
         {:held, []} <- {:held, Enum.reject(replaced, &:code.soft_purge/1)},
         :ok <- :code.finish_loading(previous) do
      Enum.each(added, &:code.delete/1)
      Enum.each(targets, &KeptState.restore/1)
      {:error, :taken_back, why, late}
    else
      {:previous, nil} -> stuck(why, late, "the old code's files are not at hand")
      {:held, held} -> stuck(why, late, "still in use: #{holders(held)}")
      {:error, reasons} -> stuck(why, late, "the old code did not load: #{inspect(reasons)}")
    end
  end

  # Those whose state was changed keep it: it is the state that the loaded code knows.
  defp stuck(why, late, cause) do
    text =
      "#{why}; the new code stays, because the old one could not be made current again " <>
        "(#{cause}): restart the node"

    {:error, :not_taken_back, text, late}
  end

  defp holders(modules) do
    modules
    |> Stragglers.of()
    |> Enum.take(5)
    |> Enum.map_join(", ", fn holder ->
      "old code of #{inspect(holder.module)} by #{inspect(holder.pid)}"
    end)
  end

  # All get their resume, supervisors last; those who did not answer in time are not waited
  # for again.
  defp resume(found, late) do
    deadline = System.monotonic_time(:millisecond) + @resume_answers_within
    targets = Enum.map(found.targets, & &1.pid)
    Enum.each(targets, &KeptState.forget/1)

    late = MapSet.new(late)
    {busy, ready} = Enum.split_with(targets ++ found.parents, &MapSet.member?(late, &1))
    Enum.each(busy, &SysMessage.send(&1, make_ref(), :resume))
    {_died, _} = ask(ready, fn _pid -> [:resume] end, {deadline, :all}, [], &ignore/3)
    :ok
  end

  defp ignore(_pid, _answer, acc), do: acc

  # Sends each process its messages, a window at a time, and collects the answers. With
  # `:halt` the first window that is not complete at the deadline is the last; with `:all`
  # every process gets its messages all the same: a resume must not be lost.
  defp ask(pids, messages, {deadline, mode}, acc, fun) do
    pids
    |> Enum.chunk_every(@window)
    |> Enum.reduce_while({[], acc}, fn window, {late, acc} ->
      {waiting, acc} = ask_window(window, messages, make_ref(), deadline, acc, fun)
      late = MapSet.to_list(waiting) ++ late
      {if(mode == :halt and late != [], do: :halt, else: :cont), {late, acc}}
    end)
  end

  defp ask_window(window, messages, ref, deadline, acc, fun) do
    rounds = Enum.map(window, &{&1, messages.(&1)})
    for {pid, list} <- rounds, message <- list, do: SysMessage.send(pid, ref, message)

    # A process with several messages answers each; it is done with the last.
    counts = for {pid, [_, _ | _] = list} <- rounds, into: %{}, do: {pid, length(list)}
    SysMessage.collect(ref, MapSet.new(window), counts, deadline, acc, fun)
  end

  defp describe(pid) do
    case Process.info(pid, :current_stacktrace) do
      nil ->
        "#{inspect(pid)} (dead by now)"

      {:current_stacktrace, stack} ->
        "#{name(pid)} in #{place(stack)}"
    end
  end

  defp name(pid) do
    case Process.info(pid, :registered_name) do
      {:registered_name, name} when is_atom(name) -> "#{inspect(pid)} (#{inspect(name)})"
      _ -> inspect(pid)
    end
  end

  defp place(stack) do
    stack |> Enum.take(3) |> Enum.map_join(" < ", &Exception.format_stacktrace_entry/1)
  end
end
