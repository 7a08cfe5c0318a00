defmodule HotPatch.Swap.Batch do
  @moduledoc false
  # What is done to every process concerned: convert its state and put it aside; take it and
  # go on; or drop it and go on. Sent in windows, answers collected as they come.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Crew
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Foreign
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.Suspension
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Target

  # Milliseconds within which those answer that change by themselves after the load.
  @change_within 5_000
  # Milliseconds without an answer after which the dead are looked for.
  @look_for_dead 20
  # How long a window that was told to go on may take to do so before the next is told.
  @go_on_within 1_000

  @typedoc """
  Why a conversion failed, and what says of which processes it is not known that they have ended it:
  they are in the user's code, and must not be woken up.
  """
  @type failed :: {:error, :taken_back, String.t(), late :: (() -> [pid()])}

  @doc """
  Has processes that stand still convert their state in the shadow of the new code: those of crews,
  then those that are suspended. `ref` is that of the conversions. Gives the processes and modules
  that have to be asked again by the module itself, after the load, because the new state holds a fun.
  """
  @spec convert([Crew.t()], [[ProcessTask.t()]], Parking.t(), {reference(), integer()}) ::
          {:ok, [{pid(), module()}]} | failed()
  def convert(crews, suspended, standing, {ref, deadline}) do
    rounds = Enum.map(crews, &Crew.order(&1, {:convert, standing}))
    converted = await_converted(rounds, ref, deadline, [])
    Enum.each(rounds, &Crew.close/1)

    with {:ok, again} <- converted,
         {:ok, more} <-
           convert_each(suspended, ref, deadline, &convert_inside(&1.pid, &1.conversions, ref)),
         do: {:ok, more ++ again}
  end

  defp await_converted(rounds, ref, deadline, told) do
    missing = missing(rounds)

    if missing == 0 and length(told) >= Enum.sum(Enum.map(rounds, &Crew.told/1)) do
      {:ok, for({pid, {:again, module}} <- told, do: {pid, module})}
    else
      receive do
        {[[:alias | ^ref] | pid], {{:failed, reason}, module}} ->
          text = Description.failure({pid, module, reason})
          {:error, :taken_back, text, fn -> late(rounds) end}

        {[[:alias | ^ref] | pid], answer} ->
          await_converted(rounds, ref, deadline, [{pid, answer} | told])

        {waiter, what} when is_reference(waiter) and what in [:all, :sent] ->
          await_converted(rounds, ref, deadline, told)
      after
        max(0, min(@look_for_dead, deadline - now())) ->
          if missing(rounds) == missing, do: Enum.each(rounds, &Crew.excuse_dead/1)

          case now() >= deadline && late(rounds) do
            [pid | _] -> {:error, :taken_back, too_long(pid, rounds), fn -> late(rounds) end}
            _ -> await_converted(rounds, ref, deadline, told)
          end
      end
    end
  end

  defp missing(rounds), do: rounds |> Enum.map(&Crew.missing/1) |> Enum.sum()
  defp late(rounds), do: rounds |> Enum.flat_map(&Crew.late/1) |> Enum.filter(&Process.alive?/1)

  defp too_long(pid, rounds) do
    [task | _] =
      for %{crew: crew} <- rounds, task <- Tuple.to_list(crew.tasks), task.pid == pid, do: task

    Description.too_long(pid, ProcessTask.only(task).module, "code_change")
  end

  @doc """
  The same for processes that do not stand still: each runs it in its turn. `also` is done
  with each beside it.
  """
  @spec convert_in_turn(
          Enumerable.t([ProcessTask.t()]),
          reference(),
          integer(),
          (pid() -> term())
        ) ::
          {:ok, [{pid(), module()}]} | failed()
  def convert_in_turn(windows, ref, deadline, also) do
    convert_each(windows, ref, deadline, fn %{pid: pid, conversions: mine} ->
      if mine != %{}, do: convert_inside(pid, mine, ref)
      also.(pid)
    end)
  end

  @doc """
  Where all have converted: whether one was ended by it. Whoever dies of something else meanwhile is no
  concern of the change.
  """
  @spec survived(Enumerable.t([ProcessTask.t()]), Signal.t()) ::
          :ok | {:error, :taken_back, String.t()}
  def survived(windows, signal) do
    if Signal.within(signal) == 0 do
      :ok
    else
      dead =
        for window <- windows,
            %{pid: pid, conversions: mine} <- window,
            mine != %{},
            not Process.alive?(pid),
            do: {pid, mine}

      case dead do
        [] -> :ok
        [{pid, mine} | _] -> {:error, :taken_back, ended(pid, mine, dead)}
      end
    end
  end

  defp ended(pid, mine, dead),
    do: Description.failure({pid, hd(Map.keys(mine)), :ended}, what(dead, pid))

  @doc """
  After the load: the states put aside become the real ones and everybody goes on. `slow` are processes
  that may be in the user's code still, and are not waited for.
  """
  @spec take_and_resume([Suspension.asked()], Parking.t(), Ready.t(), [pid()]) :: :ok
  def take_and_resume(waves, standing, ready, slow) do
    :take = Parking.settle(standing, :take)
    # Not all of what is ready goes along to each of them.
    funs = ready.funs
    slow = MapSet.new(slow)

    go_on(waves, standing, {slow, &MapSet.member?(slow, &1)}, fn pid ->
      SysMessage.run_in(pid, &Conversion.take/1)
      # Who has changed by itself may have handed on funs of the code before.
      if funs, do: SysMessage.run_in(pid, &FunRenewal.now(&1, funs))
    end)
  end

  @doc "How long those may take that change by themselves after the load."
  @spec change_within() :: pos_integer()
  def change_within, do: @change_within

  @doc """
  Nothing was loaded: everybody goes on as before. Those in `late` have not got to what makes
  them stand still, or are in the user's code: they see by themselves that it is over, and are
  not waited for. `ref` is that of the conversions.
  """
  @spec drop_and_resume([Suspension.asked()], Parking.t(), reference(), (() -> [pid()])) :: :ok
  def drop_and_resume(waves, standing, ref, late) do
    _ = Parking.settle(standing, :drop)
    drop = &Conversion.drop/1

    # Who answers from here on looks at the signal afterwards. Who has answered in the meantime may
    # have looked before, and has to be woken up like the others.
    late = MapSet.new(late.() -- (SysMessage.answered(standing.ref) ++ SysMessage.answered(ref)))
    go_on(waves, standing, {late, &MapSet.member?(late, &1)}, &SysMessage.run_in(&1, drop))
  end

  @doc """
  Has processes change their state by themselves while they stand still, before a deadline. What they
  have now comes back if it is dropped. Gives the calls of change_code that failed.
  """
  @spec by_themselves([{pid(), module()}], Ready.t(), {[Target.t()], Parking.t()}, integer()) ::
          [{pid(), module(), term()}]
  def by_themselves([], _ready, _targets, _deadline), do: []

  def by_themselves(again, ready, {targets, standing}, deadline) do
    messages = ProcessTask.messages(ready.job)
    # Who is dead before it is asked has not died of this.
    alive = Enum.filter(again, fn {pid, _module} -> Process.alive?(pid) end)
    again = Enum.group_by(alive, &elem(&1, 0), &elem(&1, 1))
    others = others(targets, again)
    ref = SysMessage.open()

    Enum.each(again, fn {pid, modules} ->
      case others[pid] do
        %{kind: :foreign, open?: true} = target ->
          [module] = modules

          conversion =
            ProcessTask.foreign(ready.job, target.target, module, {ref, standing.signal})

          Parking.convert_answered(standing, pid, conversion)

        other ->
          keep(pid, other)
          kind = other && other.kind
          for m <- modules, do: SysMessage.send(pid, ref, ProcessTask.message(messages[m], kind))
      end
    end)

    failures(ref, again, deadline)
  end

  # With one state, and sys' own way to change it, are all but these.
  defp others(targets, again) do
    for %{kind: kind, pid: pid} = target <- targets,
        kind in [:event_manager, :foreign, :agent],
        is_map_key(again, pid),
        into: %{} do
      open? = kind == :foreign and Foreign.open?(target.loop)
      {pid, %{kind: kind, open?: open?, target: target}}
    end
  end

  defp keep(pid, %{kind: :event_manager}) do
    SysMessage.run_in(pid, &Conversion.keep_handler/1)
    SysMessage.run_in(pid, &Conversion.take_now/1)
  end

  defp keep(pid, _one_state), do: SysMessage.run_in(pid, &Conversion.keep/1)

  @doc """
  Of processes that have to change by themselves, those that go down to an older version, and the
  others: only the code that is current before the load knows the way down. Supervisors ask the
  code that comes.
  """
  @spec down([{pid(), module()}], [Change.t()], [Target.t()]) ::
          {down :: [{pid(), module()}], up :: [{pid(), module()}]}
  def down(again, changes, targets) do
    down = for %{direction: :down, module: module} <- changes, do: module
    supervisors = MapSet.new(for(%{kind: :supervisor, pid: pid} <- targets, do: pid))
    Enum.split_with(again, fn {pid, module} -> module in down and pid not in supervisors end)
  end

  # Those that are suspended go on a window at a time, so that callers do not wait for all who were
  # told before them. The last one of a window that can be waited for answers for it.
  defp go_on(waves, standing, {late, slow?}, before_resume) do
    for {%{suspended: windows}, round} <- waves do
      Crew.wake(round, standing, late)

      for window <- windows do
        ref = SysMessage.open()
        last = window |> Enum.reverse() |> Enum.find_value(&(not slow?.(&1.pid) && &1.pid))

        for %{pid: pid, loop: loop} <- window do
          before_resume.(pid)
          if pid == last, do: SysMessage.send(pid, ref, :resume), else: resume(pid)
          _ = if loop != nil and slow?.(pid), do: Foreign.Release.start(pid)
        end

        wait(ref, List.wrap(last), now() + @go_on_within)
      end

      await_gone_on(round, now() + @go_on_within)
    end

    :ok
  end

  # Each has been told so: what is left to wait for is how long that took.
  defp await_gone_on(%{waiter: waiter} = round, deadline) do
    staying = Crew.staying(round)

    if staying > 0 and now() < deadline do
      receive do
        {^waiter, :gone} -> :ok
      after
        @look_for_dead ->
          if Crew.staying(round) == staying, do: Crew.excuse_dead_staying(round)
          await_gone_on(round, deadline)
      end
    end
  end

  defp resume(pid), do: SysMessage.resume_unanswered(pid)

  @doc "Does something to all, a window at a time: the last of each answers for it."
  @spec in_windows(Enumerable.t([ProcessTask.t()]), (ProcessTask.t() -> term())) :: :ok
  def in_windows(windows, fun) do
    for [_ | _] = window <- windows do
      Enum.each(window, fun)
      ref = SysMessage.open()
      last = List.last(window).pid
      SysMessage.probe(last, ref)
      wait(ref, [last], now() + @go_on_within)
    end

    :ok
  end

  defp wait(ref, pids, deadline) do
    _ = SysMessage.collect_until({ref, pids}, deadline, nil, fn _, _, nil -> {:done, nil} end)
    SysMessage.close(ref)
  end

  defp convert_each(windows, ref, deadline, fun) do
    Enum.reduce_while(windows, {:ok, []}, fn window, {:ok, again} ->
      Enum.each(window, fun)
      owed = for %{pid: pid, conversions: mine} <- window, mine != %{}, do: {pid, mine}

      case converted(owed, ref, deadline, again) do
        {:ok, again} -> {:cont, {:ok, again}}
        error -> {:halt, error}
      end
    end)
  end

  # Who has one state tells by itself that it is converted. An event manager has one for
  # each handler: it says so by the answer to a request that nobody knows, which changes nothing,
  # whether it is suspended or not.
  defp convert_inside(pid, mine, ref) do
    SysMessage.run_in(pid, &Conversion.convert(&1, mine))
    event_manager? = match?([%{kind: :event} | _], Map.values(mine))
    if event_manager?, do: SysMessage.probe(pid, ref), else: :ok
  end

  defp converted(owed, ref, deadline, again) do
    pids = Enum.map(owed, &elem(&1, 0))

    case SysMessage.collect_until({ref, pids}, deadline, {again, []}, &note/3) do
      {_, {{:failed, pid, module, reason}, done}} ->
        text = Description.failure({pid, module, reason}, what(owed, pid))
        {:error, :taken_back, text, fn -> pids -- done end}

      {[], {again, _done}} ->
        {:ok, again}

      {[pid | _] = late, {_again, _done}} ->
        {_pid, mine} = List.keyfind(owed, pid, 0)

        {:error, :taken_back, Description.too_long(pid, hd(Map.keys(mine)), what(owed, pid)),
         fn -> late end}
    end
  end

  # Of a supervisor it is init that is called.
  defp what(owed, pid) do
    {_pid, mine} = List.keyfind(owed, pid, 0)
    if match?([%{kind: :supervisor}], Map.values(mine)), do: "init", else: "code_change"
  end

  defp note(pid, :ok, {again, done}), do: {:done, {again, [pid | done]}}
  # Of a probe.
  defp note(pid, {:error, _unknown}, {again, done}), do: {:done, {again, [pid | done]}}
  defp note(pid, {:again, module}, {again, done}), do: {:more, {[{pid, module} | again], done}}

  # It is told before the end of the conversion.
  defp note(pid, {{:failed, reason}, module}, {_again, done}),
    do: {:halt, {{:failed, pid, module, reason}, done}}

  # Of the modules that were asked by themselves; every one answers, unless its process is ended by that.
  defp failures(ref, again, deadline) do
    owed = for {pid, modules} <- again, _module <- modules, do: pid

    {silent, {failed, answered}} =
      SysMessage.collect_until({ref, owed}, deadline, {[], []}, fn
        pid, :ok, {failed, answered} ->
          {:done, {failed, [pid | answered]}}

        pid, {:error, reason}, {failed, answered} ->
          {:done, {[failed_first(again, pid, reason) | failed], [pid | answered]}}

        # Of one that is converted where it stands; it tells its end, too.
        pid, {{:failed, reason}, module}, {failed, answered} ->
          {:more, {[{pid, module, reason} | failed], answered}}
      end)

    SysMessage.close(ref)
    late = Enum.uniq(silent)

    failed ++
      for(pid <- late, do: failed_first(again, pid, :too_long)) ++
      for(pid <- Enum.uniq(owed -- answered) -- late, do: failed_first(again, pid, :ended))
  end

  defp failed_first(again, pid, reason), do: {pid, again |> Map.fetch!(pid) |> hd(), reason}

  defp now, do: System.monotonic_time(:millisecond)
end
