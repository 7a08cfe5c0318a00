defmodule HotPatch.Swap.Steps do
  @moduledoc false
  # What is done to every process concerned: convert its state and put it aside; take it and
  # go on; or drop it and go on. Sent in windows, answers collected as they come.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Describe
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Standing
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Work

  # How long the answers to a resume are awaited: they only make the pause measurable.
  @resume_answers_within 5_000

  @doc """
  Has every process that stands still under `still` convert its state in the shadow of the new
  code; `ref` is that of the conversions. Gives the processes and modules that have to be asked
  again by the module itself, after the load, because the new state holds a fun.
  """
  @spec convert([[Work.t()]], reference(), reference(), integer()) ::
          {:ok, [{pid(), module()}]} | {:error, :taken_back, String.t()}
  def convert(windows, still, ref, deadline) do
    convert_each(windows, ref, deadline, fn
      {_pid, _how, mine, _later} when mine == %{} -> :nothing
      {pid, :still, mine, _later} -> Standing.convert(pid, still, only(mine))
      {pid, :suspended, mine, _later} -> convert_inside(pid, mine, ref)
    end)
  end

  @doc """
  The same for processes that do not stand still: each runs it in its turn. `also` is done
  with each beside it.
  """
  @spec convert_in_turn([[Work.t()]], reference(), integer(), (pid() -> term())) ::
          {:ok, [{pid(), module()}]} | {:error, :taken_back, String.t()}
  def convert_in_turn(windows, ref, deadline, also) do
    convert_each(windows, ref, deadline, fn {pid, _how, mine, _later} ->
      if mine != %{}, do: convert_inside(pid, mine, ref)
      also.(pid)
    end)
  end

  @doc """
  After the load: the states put aside become the real ones and everybody goes on. Gives the
  change_code calls that failed; `again` are those that are made only now.
  """
  @spec take_and_resume([[Work.t()]], reference(), Ready.t(), [{pid(), module()}]) ::
          [{pid(), module(), term()}]
  def take_and_resume(windows, still, ready, again) do
    messages = Work.messages(ready.job)
    again = Enum.group_by(again, &elem(&1, 0), &elem(&1, 1))
    ref = make_ref()

    in_windows(windows, fn
      {pid, :still, _mine, _later} ->
        Standing.let_go(pid, still, :take)

      {pid, :suspended, _mine, _later} ->
        SysMessage.run_in(pid, &Conversion.take/1)
        :ok = change_code(pid, Map.get(again, pid, []), messages, ref)
        SysMessage.resume_unanswered(pid)
    end)

    failures(ref, again)
  end

  @doc "Nothing was loaded: everybody goes on as before. Those in `busy` are not waited for."
  @spec drop_and_resume([[Work.t()]], reference(), [pid()]) :: :ok
  def drop_and_resume(windows, still, busy) do
    late = MapSet.new(busy)

    drop = fn
      {pid, :still, _mine, _later} ->
        Standing.let_go(pid, still, :drop)

      {pid, :suspended, _mine, _later} ->
        SysMessage.run_in(pid, &Conversion.drop/1)
        SysMessage.resume_unanswered(pid)
    end

    # Those that are late have what makes them stand still before them yet.
    windows
    |> Enum.map(fn window ->
      {late, ready} = Enum.split_with(window, &(elem(&1, 0) in late))
      Enum.each(late, drop)
      ready
    end)
    |> in_windows(drop)
  end

  @doc """
  Has processes change their state by themselves while they are suspended. Gives the calls of
  change_code that failed.
  """
  @spec by_themselves([{pid(), module()}], Ready.t()) :: [{pid(), module(), term()}]
  def by_themselves(again, ready) do
    messages = Work.messages(ready.job)
    again = Enum.group_by(again, &elem(&1, 0), &elem(&1, 1))
    ref = make_ref()
    Enum.each(again, fn {pid, modules} -> change_code(pid, modules, messages, ref) end)
    failures(ref, again)
  end

  @doc """
  Whether a process that has to change by itself goes down to an older version: only the
  code that is current before the load knows how. Supervisors ask the code that comes.
  """
  @spec down?({pid(), module()}, Ready.t()) :: boolean()
  def down?({pid, module}, ready) do
    match?(%{direction: :down}, Enum.find(ready.job.changes, &(&1.module == module))) and
      Enum.any?(ready.found.targets, &(&1.pid == pid and &1.kind != :supervisor))
  end

  @doc "Does something to all, a window at a time."
  @spec in_windows([[Work.t()]], (Work.t() -> term())) :: :ok
  def in_windows(windows, fun) do
    for [_ | _] = window <- windows do
      Enum.each(window, fun)
      # The last of a window answers for all: it tells how long they took.
      last = window |> List.last() |> elem(0)
      ref = make_ref()
      SysMessage.probe(last, ref)
      deadline = System.monotonic_time(:millisecond) + @resume_answers_within
      _ = SysMessage.collect_until(ref, [last], deadline, nil, fn _, _, nil -> {:done, nil} end)
    end

    :ok
  end

  defp change_code(pid, modules, messages, ref) do
    Enum.each(modules, &SysMessage.send(pid, ref, messages[&1]))
  end

  defp convert_each(windows, ref, deadline, fun) do
    Enum.reduce_while(windows, {:ok, []}, fn window, {:ok, again} ->
      Enum.each(window, fun)
      owed = for {pid, _how, mine, _later} <- window, mine != %{}, do: pid

      case converted(owed, ref, deadline, again) do
        {:ok, again} -> {:cont, {:ok, again}}
        error -> {:halt, error}
      end
    end)
  end

  # A process has one state, and so one conversion; but for event managers.
  defp only(mine) do
    [{_module, conversion}] = Map.to_list(mine)
    conversion
  end

  # Who has one state tells by itself that it is converted. An event manager has one for
  # each handler: it says so by the answer to a second suspend, which changes nothing.
  defp convert_inside(pid, mine, ref) do
    SysMessage.run_in(pid, &Conversion.convert(&1, mine))
    event_manager? = match?([%{kind: :event} | _], Map.values(mine))
    if event_manager?, do: SysMessage.send(pid, ref, :suspend), else: :ok
  end

  defp converted(pids, ref, deadline, again) do
    case SysMessage.collect_until(ref, pids, deadline, {:ok, again}, &note/3) do
      {_, {:failed, pid, module, reason}} ->
        {:error, :taken_back, Describe.failure({pid, module, reason})}

      {[], {:ok, again}} ->
        {:ok, again}

      {[pid | _], {:ok, _again}} ->
        {:error, :taken_back, "code_change took too long in #{Describe.process(pid)}"}
    end
  end

  defp note(_pid, :ok, acc), do: {:done, acc}
  defp note(pid, {:again, module}, {:ok, again}), do: {:more, {:ok, [{pid, module} | again]}}
  defp note(pid, {{:failed, reason}, module}, _acc), do: {:halt, {:failed, pid, module, reason}}

  # Of the modules that were asked by themselves; every one answers.
  defp failures(ref, again) do
    owed = for {pid, modules} <- again, _module <- modules, do: pid
    deadline = System.monotonic_time(:millisecond) + @resume_answers_within

    {silent, failed} =
      SysMessage.collect_until(ref, owed, deadline, [], fn
        _pid, :ok, failed ->
          {:done, failed}

        pid, {:error, reason}, failed ->
          {:done, [{pid, again |> Map.get(pid) |> hd(), reason} | failed]}
      end)

    failed ++ for pid <- silent, do: {pid, again |> Map.get(pid) |> hd(), :no_answer}
  end
end
