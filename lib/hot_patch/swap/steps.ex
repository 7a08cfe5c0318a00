defmodule HotPatch.Swap.Steps do
  @moduledoc false
  # What is done to every suspended process: convert its state and put it aside; take it and
  # go on; or drop it and go on. Sent in windows, answers collected as they come.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Describe
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.SysMessage

  @window 1_000

  # How long the answers to a resume are awaited: they only make the pause measurable.
  @resume_answers_within 5_000

  @doc """
  Has every target convert its state in the shadow of the new code. Gives the processes and
  modules that have to be asked again by the module itself, after the load: those whose
  module has no shadow, and those whose new state holds a fun. `also` is done with each beside it.
  """
  @spec convert([Processes.target()], Ready.t(), integer(), pos_integer(), (pid() -> term())) ::
          {:ok, [{pid(), module()}]} | {:error, :taken_back, String.t()}
  def convert(targets, ready, deadline, window \\ @window, also \\ & &1) do
    ref = make_ref()
    conversions = conversions(ready, ref)

    {work, again} = work(targets, conversions)

    work
    |> Enum.chunk_every(window)
    |> Enum.reduce_while({:ok, again}, fn window, {:ok, again} ->
      case convert_window(window, ref, deadline, again, also) do
        {:ok, again} -> {:cont, {:ok, again}}
        error -> {:halt, error}
      end
    end)
  end

  @doc """
  After the load: the states put aside become the real ones and everybody is resumed,
  supervisors last. Gives the change_code calls that failed.
  """
  @spec take_and_resume(Processes.found(), Ready.t(), [{pid(), module()}]) ::
          [{pid(), module(), term()}]
  def take_and_resume(found, ready, again) do
    vsns = vsns(ready)
    again = Enum.group_by(again, &elem(&1, 0), &elem(&1, 1))
    ref = make_ref()

    resume(found, [], fn pid ->
      SysMessage.run_in(pid, &Conversion.take/1)
      change_code(pid, Map.get(again, pid, []), vsns, ref)
    end)

    failures(ref, again)
  end

  @doc """
  Has processes change their state by themselves while they stand still. Gives the calls of
  change_code that failed.
  """
  @spec by_themselves([{pid(), module()}], Ready.t()) :: [{pid(), module(), term()}]
  def by_themselves(again, ready) do
    vsns = vsns(ready)
    again = Enum.group_by(again, &elem(&1, 0), &elem(&1, 1))
    ref = make_ref()
    for {pid, modules} <- again, do: change_code(pid, modules, vsns, ref)
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

  @doc "Does something to all processes, a window at a time."
  @spec in_windows([Processes.target()], pos_integer(), (pid() -> term())) :: :ok
  def in_windows(targets, window, fun) do
    targets
    |> Enum.chunk_every(window)
    |> Enum.each(fn targets ->
      for %{pid: pid} <- targets, do: fun.(pid)
      %{pid: last} = List.last(targets)
      ref = make_ref()
      # Answers when it has got so far.
      SysMessage.send(last, ref, :resume)
      deadline = System.monotonic_time(:millisecond) + @resume_answers_within
      _ = SysMessage.collect_until(ref, [last], deadline, nil, fn _, _, nil -> {:done, nil} end)
    end)
  end

  @doc "Nothing was loaded: everybody goes on as before. Those in `busy` are not waited for."
  @spec drop_and_resume(Processes.found(), [pid()]) :: :ok
  def drop_and_resume(found, busy) do
    resume(found, busy, fn pid -> SysMessage.run_in(pid, &Conversion.drop/1) end)
  end

  defp vsns(ready), do: Map.new(ready.job.changes, &{&1.module, &1.old_vsn})

  defp change_code(pid, modules, vsns, ref) do
    for module <- modules do
      SysMessage.send(pid, ref, {:change_code, module, vsns[module], []})
    end
  end

  # Most targets are alike: what is to be done for one is worked out once for all of them.
  defp work(targets, conversions) do
    {work, again, _alike} =
      Enum.reduce(targets, {[], [], %{}}, fn %{pid: pid} = target, {work, again, alike} ->
        key = {target.kind, target.modules, Map.get(target, :keeps?, false)}
        alike = Map.put_new_lazy(alike, key, fn -> split(target, conversions) end)
        {mine, later} = alike[key]
        work = if mine == %{}, do: work, else: [{pid, mine} | work]
        {work, Enum.reduce(later, again, &[{pid, &1} | &2]), alike}
      end)

    {work, again}
  end

  # One conversion for each changed module that has a callback for it and a shadow.
  defp conversions(ready, ref) do
    shadows = Map.new(ready.shadows, &{&1.module, &1})

    for change <- ready.job.changes, into: %{} do
      {change.module, {change, conversion(change, shadow(change, shadows), ref)}}
    end
  end

  # The way down is known to the code that is current until the load.
  defp shadow(%{direction: :down, module: module}, _shadows),
    do: %{name: module, lambdas?: false}

  defp shadow(change, shadows), do: shadows[change.module]

  defp conversion(_change, nil, _ref), do: nil

  defp conversion(change, shadow, ref) do
    %{
      module: change.module,
      shadow: shadow.name,
      lambdas?: shadow.lambdas?,
      old_vsn: change.old_vsn,
      kind: nil,
      rehearsal?: false,
      keeps?: false,
      tell: self(),
      ref: ref
    }
  end

  defp split(%{modules: modules} = target, conversions) do
    for {module, true} <- modules, reduce: {%{}, []} do
      {mine, later} ->
        {change, conversion} = conversions[module]
        kind = Shadow.kind(target.kind, change)

        if conversion == nil or hidden?(target, change) do
          {mine, [module | later]}
        else
          rehearsal? = itself?(kind, conversion)
          keeps? = Map.get(target, :keeps?, false)
          conversion = %{conversion | kind: kind, rehearsal?: rehearsal?, keeps?: keeps?}
          {Map.put(mine, module, conversion), if(rehearsal?, do: [module | later], else: later)}
        end
    end
  end

  # A wrapper's state is the library's, which alone knows how to hand it on.
  defp hidden?(%{kind: :wrapper}, _change), do: true

  # Which child specs an older supervisor has is not known before it is loaded.
  defp hidden?(%{kind: :supervisor}, %{direction: :down}), do: true

  # A special process that handles replace_state itself shows its state, not what
  # system_code_change gets.
  defp hidden?(target, %{module: module}) do
    target.kind == :special and function_exported?(module, :system_replace_state, 2)
  end

  # Some keep more than their state up to date when they change code by themselves: for them
  # the conversion is a rehearsal.
  defp itself?(:supervisor, _conversion), do: true

  defp itself?(:statem, %{module: module, shadow: shadow}) do
    function_exported?(module, :callback_mode, 0) and
      module.callback_mode() != shadow.callback_mode()
  end

  defp itself?(_kind, _conversion), do: false

  defp convert_window(window, ref, deadline, again, also) do
    for {pid, conversions} <- window do
      convert_one(pid, conversions, ref)
      also.(pid)
    end

    pids = for {pid, _conversions} <- window, do: pid

    case SysMessage.collect_until(ref, pids, deadline, {:ok, again}, &note/3) do
      {_, {:failed, pid, module, reason}} ->
        {:error, :taken_back, Describe.failure({pid, module, reason})}

      {[], {:ok, again}} ->
        {:ok, again}

      {[pid | _], {:ok, _again}} ->
        {:error, :taken_back, "code_change took too long in #{Describe.process(pid)}"}
    end
  end

  # Who has one state tells by itself that it is converted. An event manager has one for
  # each handler: it says so by the answer to a second suspend, which changes nothing.
  defp convert_one(pid, conversions, ref) do
    SysMessage.run_in(pid, &Conversion.convert(&1, conversions))
    event_manager? = match?([%{kind: :event} | _], Map.values(conversions))
    if event_manager?, do: SysMessage.send(pid, ref, :suspend), else: :ok
  end

  defp note(_pid, :ok, acc), do: {:done, acc}
  defp note(pid, {:again, module}, {:ok, again}), do: {:more, {:ok, [{pid, module} | again]}}
  defp note(pid, {{:failed, reason}, module}, _acc), do: {:halt, {:failed, pid, module, reason}}

  # Those in `busy` have their suspend still before them; they are not waited for.
  defp resume(found, busy, before) do
    pids = Enum.map(found.targets, & &1.pid)
    Enum.each(busy, &resume_one(&1, before))
    late = MapSet.new(busy)
    ready = if busy == [], do: pids, else: Enum.reject(pids, &MapSet.member?(late, &1))

    Enum.each(Enum.chunk_every(ready, @window), &resume_window(&1, before))
    # Their answers are of no use any more, and a supervisor has children to start.
    for pid <- found.parents, not MapSet.member?(late, pid), do: SysMessage.resume_unanswered(pid)
    :ok
  end

  # The last of a window answers for all: it tells how long the pause was.
  defp resume_window(window, before) do
    [last | others] = Enum.reverse(window)
    others |> Enum.reverse() |> Enum.each(&resume_one(&1, before))
    ref = make_ref()
    _ = before.(last)
    SysMessage.send(last, ref, :resume)
    deadline = System.monotonic_time(:millisecond) + @resume_answers_within
    _ = SysMessage.collect_until(ref, [last], deadline, nil, fn _, _, nil -> {:done, nil} end)
    :ok
  end

  defp resume_one(pid, before) do
    _ = before.(pid)
    SysMessage.resume_unanswered(pid)
  end

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
