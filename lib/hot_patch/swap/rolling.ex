defmodule HotPatch.Swap.Rolling do
  @moduledoc false
  # The compatible transition: every process changes its state in its own turn, so that none
  # waits for another. Between the load and its turn a process runs the new code on the old
  # state; that the new code takes both is declared by whoever applies the patch.
  #
  # It is tried first, likewise in turn, in the shadow of the new code and without taking the
  # result. What cannot be known beforehand is whether the declaration is true: the processes
  # are watched, and when one dies in the new code before its turn, the rest is stopped (see
  # HotPatch.Swap.Rolling.Undo). Until then every process keeps the state it had.

  alias HotPatch.Swap.Batch
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Foreign
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Target

  # A caller waits for what is in the schedulers' queues before its own process: few at a time.
  @window 25
  # How long one window of processes may take to get to it.
  @turn_within 60_000

  @typedoc "Monitors of the processes concerned, and who is changed. Outside the heap: there may be very many."
  @opaque watch :: :ets.table()

  @doc """
  Tries the conversion in every process, in its turn; nobody's state changes. From here on it
  is noticed when one of them dies.
  """
  @spec rehearse(Enumerable.t(Target.group()), Ready.t(), Parking.t()) ::
          {:ok, watch()} | {:error, :taken_back, String.t()}
  def rehearse(groups, ready, standing) do
    watch = :ets.new(__MODULE__, [:private])
    deadline = System.monotonic_time(:millisecond) + @turn_within
    # A process that is woken once does all of it.
    also = fn pid -> :ets.insert(watch, {pid, Process.monitor(pid), false}) end

    ref = SysMessage.open()
    # Should this process die, what is still under way is not to be tried any more.
    Guard.tell(standing, %{})

    windows =
      Stream.flat_map(groups, fn {target, pids} ->
        [[task]] = ProcessTask.of([target], ready, {ref, standing.signal})
        task = ProcessTask.rehearsal(task)
        windows(pids, &%{task | pid: &1})
      end)

    with {:ok, _again} <- Batch.convert_in_turn(windows, ref, deadline, also),
         :ok <- Batch.survived(windows, standing.signal) do
      {:ok, watch}
    else
      {:error, reason, text, _late} -> {:error, reason, text}
      ended -> ended
    end
  end

  # Made when their turn comes.
  defp windows(pids, of), do: pids |> Stream.chunk_every(@window) |> Stream.map(&Enum.map(&1, of))

  @doc "Whether a process is among those that were tried."
  @spec tried?(watch(), pid()) :: boolean()
  def tried?(watch, pid), do: :ets.member(watch, pid)

  @doc """
  After the load: has every process change its state in its turn. If one dies in the new
  code or cannot change, those that are changed are given.
  """
  @spec change(Enumerable.t(Target.group()), Ready.t(), Parking.t(), watch()) ::
          :ok | {:untrue, String.t(), changed :: MapSet.t(pid())}
  def change(groups, ready, standing, watch) do
    messages = ProcessTask.messages(ready.job)

    result =
      groups
      |> Stream.flat_map(fn {target, pids} -> windows(pids, &%{target | pid: &1}) end)
      |> Enum.reduce_while(:ok, fn window, :ok ->
        # Should this process die between a suspend and its resume, the guard resumes.
        Guard.tell(standing, %{in_turn: Enum.map(window, & &1.pid)})
        {result, pids} = change_window(window, messages, {ready, standing})
        Enum.each(pids, &:ets.update_element(watch, &1, {3, true}))
        if result == :ok, do: {:cont, :ok}, else: {:halt, result}
      end)

    with {:untrue, text} <- result,
         do: {:untrue, text, MapSet.new(:ets.select(watch, [{{:"$1", :_, true}, [], [:"$1"]}]))},
         else: (:ok -> forget(groups, watch))
  end

  @doc "Nobody needs the states from before any more, nor is watched."
  @spec forget(Enumerable.t(Target.group()), watch()) :: :ok
  def forget(groups, watch) do
    groups
    |> bystanders()
    |> Batch.in_windows(fn %{pid: pid} ->
      SysMessage.run_in(pid, &Conversion.forget/1)
      for {_pid, monitor, _changed?} <- :ets.take(watch, pid), do: Process.demonitor(monitor)
    end)
  end

  defp bystanders(groups) do
    Stream.flat_map(groups, fn {_target, pids} -> windows(pids, &%ProcessTask{pid: &1}) end)
  end

  @doc "Has every process make the funs that it holds anew, in its turn, and nothing else."
  @spec renew_funs(Enumerable.t(Target.group()), FunRenewal.shared() | nil) :: :ok
  def renew_funs(_groups, nil), do: :ok

  def renew_funs(groups, funs),
    do: groups |> bystanders() |> Batch.in_windows(&renew_in(&1.pid, funs))

  defp renew_in(_pid, nil), do: :ok
  defp renew_in(pid, funs), do: SysMessage.run_in(pid, &FunRenewal.now(&1, funs))

  defp change_window(targets, messages, swap) do
    ref = SysMessage.open()
    owed = Enum.flat_map(targets, &change_one(&1, messages, ref, swap))
    deadline = System.monotonic_time(:millisecond) + @turn_within
    {silent, failed} = SysMessage.collect_until({ref, owed}, deadline, [], &note/3)
    SysMessage.close(ref)

    not_changed = MapSet.new(silent ++ Enum.map(failed, &elem(&1, 0)))
    changed = for %{pid: pid} <- targets, not MapSet.member?(not_changed, pid), do: pid
    {outcome(silent, failed, died(Map.keys(messages)), targets), changed}
  end

  # Suspended for its own change only: all of it is in its mailbox at once.
  # Of a loop that is not OTP's all of it is done at one message, or at one after the other.
  defp change_one(%{kind: :foreign, pid: pid} = target, messages, ref, {ready, standing}) do
    for {module, true} <- target.modules do
      if Foreign.open?(target.loop),
        do: change_there(target, module, {ref, standing.signal}, ready),
        else: change_suspended(pid, messages[module], ref, ready.funs)

      pid
    end
  end

  defp change_one(%{pid: pid, modules: modules} = target, messages, ref, {%{funs: funs}, _}) do
    SysMessage.suspend_unanswered(pid)
    one_state? = target.kind in [:server, :agent]
    if one_state?, do: SysMessage.run_in(pid, &Conversion.remember_old/1)

    owed =
      for {module, true} <- modules do
        SysMessage.send(pid, ref, ProcessTask.message(messages[module], target.kind))
        pid
      end

    renew_in(pid, funs)
    if one_state?, do: SysMessage.run_in(pid, &Conversion.remember_new/1)
    SysMessage.resume_unanswered(pid)
    owed
  end

  defp change_there(%{pid: pid} = target, module, under, ready) do
    conversion = %{ProcessTask.foreign(ready.job, target, module, under) | funs: ready.funs}

    SysMessage.run_in(pid, fn term ->
      term
      |> Conversion.remember_old()
      |> Conversion.change_foreign(conversion)
      |> Conversion.remember_new()
    end)
  end

  defp change_suspended(pid, message, ref, funs) do
    asleep = SysMessage.open()
    SysMessage.send(pid, asleep, :suspend)
    deadline = System.monotonic_time(:millisecond) + @turn_within
    note = fn _, _, nil -> {:done, nil} end
    {silent, nil} = SysMessage.collect_until({asleep, [pid]}, deadline, nil, note)
    SysMessage.close(asleep)
    SysMessage.send(pid, ref, message)
    renew_in(pid, funs)
    SysMessage.resume_unanswered(pid)
    _ = if silent != [], do: Foreign.Release.start(pid)
    :ok
  end

  defp note(_pid, :ok, failed), do: {:done, failed}
  defp note(pid, {:error, reason}, failed), do: {:done, [{pid, reason} | failed]}
  # It tells its end, too.
  defp note(pid, {{:failed, reason}, _module}, failed), do: {:more, [{pid, reason} | failed]}

  # Only a death in one of the modules that change says something about them.
  defp died(modules) do
    receive do
      {:DOWN, _monitor, :process, pid, {reason, [{module, _, _, _} | _] = stack}} ->
        ours = for {name, _, _, _} <- [{module, 0, 0, 0} | stack], name in modules, do: name
        if ours == [], do: died(modules), else: {pid, hd(ours), {:EXIT, {reason, stack}}}

      {:DOWN, _monitor, :process, _pid, _reason} ->
        died(modules)
    after
      0 -> nil
    end
  end

  defp outcome([], [], nil, _targets), do: :ok

  defp outcome(_silent, _failed, death, _targets) when death != nil,
    do: {:untrue, Description.crash(death)}

  defp outcome(_silent, [{pid, reason} | _], nil, targets) do
    %{modules: [{module, _} | _]} = Enum.find(targets, &(&1.pid == pid))
    {:untrue, Description.failure({pid, module, reason})}
  end

  defp outcome([pid | _], [], nil, _targets),
    do: {:untrue, "#{Description.process(pid)} did not get to its change in time"}
end
