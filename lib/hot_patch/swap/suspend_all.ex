defmodule HotPatch.Swap.SuspendAll do
  @moduledoc false
  # A swap in which all processes concerned stand still, from the first suspend to the last
  # resume.
  #
  # Everything that can fail comes before the new code is current: all are suspended, and
  # each converts its state by the new code's callback, called in its shadow, and puts the
  # result aside. Up to here going back is a resume. Then all modules become current in one
  # step, the states put aside become the real ones, and all are resumed.

  alias HotPatch.Support.Quiet
  alias HotPatch.Swap.Batch
  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Crew
  alias HotPatch.Swap.Decision
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Done
  alias HotPatch.Swap.DynamicCalls
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.Failure
  alias HotPatch.Swap.HeldParents
  alias HotPatch.Swap.Load
  alias HotPatch.Swap.Newborn
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.PhaseTimes
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Suspension
  alias HotPatch.Swap.SysMessage

  # After so many rounds newcomers come faster than they can be found.
  @most_rounds 20
  # Milliseconds that may pass until it is seen who was late, when all go on again.
  @look_within 2_000
  # How often it is looked, a ms apart, what processes will be that have only just been spawned.
  # What is said of a pause until it is known who was late; what could not be taken back stands behind it.
  @late "not all processes could be suspended in time"

  @most_looks 500

  @typedoc """
  `ref` is that of the conversions. `late` says which processes are in the user's code,
  converting their state, for all that is known; `again` those that have to change by themselves, as far as
  the conversions have shown it. `held` are those who could start others in the moment of the load; `look` looks at who was late.
  """
  @type swap :: %{
          ready: Ready.t(),
          found: Discovery.found(),
          ref: reference(),
          deadline: integer(),
          windows: [[ProcessTask.t()]],
          by_itself: [{pid(), module()}],
          again: [{pid(), module()}],
          late: (() -> [pid()]),
          held: [HeldParents.t()],
          look: Task.t() | nil,
          suspension: Suspension.t()
        }
  @typep result :: :ok | {:error, atom(), String.t()}

  @doc "Runs it to its end, good or bad."
  @spec run(pid(), Ready.t(), pid()) ::
          {:ok, Done.t()} | {:error, Failure.t()}
  def run(caller, ready, guard) do
    swap = begin(ready, guard)
    # Others may have filled the schedulers: they would come between each two steps of it.
    normal = Process.flag(:priority, :high)
    started = System.monotonic_time()

    {swap, suspended} =
      PhaseTimes.note(:suspend, fn -> suspend(swap, @most_rounds) end, &counts/1)

    {swap, result} = with {swap, :ok} <- {swap, suspended}, do: tried(swap, caller)
    {swap, result} = with {swap, :ok} <- {swap, result}, do: load(swap)
    # Whoever was started in the very moment of the load: by which code cannot be told.
    now = if match?({:loaded, _, _}, result), do: Process.list(), else: []
    Enum.each(swap.held, &HeldParents.release/1)
    unsure = at_normal_priority(fn -> unsure(swap, now) end)
    resumed = resume(result, swap)
    took = System.monotonic_time() - started
    Process.flag(:priority, normal)
    :ok = Suspension.stop(swap.suspension)
    resumed |> explained(swap) |> outcome(swap, unsure, took)
  end

  # What was started since the preparation is looked at before anybody is suspended.
  defp begin(ready, guard) do
    deadline = deadline(ready)
    found = Casualties.mark(later(ready, ready.found), ready.fatal)
    standing = Parking.new(guard, ready.signal, length(found.targets))
    ref = SysMessage.open()
    bystanders = ProcessTask.bystanders(found.parents)
    windows = ProcessTask.of(found.targets, ready, {ref, standing.signal})
    suspension = Suspension.new(standing, ref, deadline)

    %{
      ready: ready,
      found: found,
      ref: ref,
      deadline: deadline,
      windows: windows,
      by_itself: ProcessTask.by_itself(windows),
      again: [],
      late: fn -> [] end,
      held: [],
      look: nil,
      suspension: Suspension.announce(suspension, [bystanders, windows])
    }
  end

  defp deadline(ready), do: System.monotonic_time(:millisecond) + ready.job.pause_timeout

  # Of a job that loads nothing, whoever is started meanwhile has the right state already.
  defp later(%{job: %{prepared: nil}}, found), do: found
  defp later(ready, found), do: Discovery.merge(Discovery.find(ready.job.changes, found), found)

  # All that can fail while everybody stands still, up to the decision, and what it takes after it.
  @spec tried(swap(), pid()) :: {swap(), result()}
  defp tried(swap, caller) do
    swap = put_in(swap.suspension.released, [])

    with {swap, :ok} <- {swap, Decision.wanted(caller)},
         {swap, :ok} <- {swap, survived(swap)},
         {swap, :ok} <-
           convert(swap, crews(swap.suspension.asked), suspended(swap.suspension.asked)),
         {swap, :ok} <- {swap, EarlyLoad.on_load(swap.ready, swap.deadline)},
         {swap, :ok} <- {swap, Decision.await(caller, swap.ready)},
         do: catch_up(swap)
  end

  defp crews(asked), do: for({wave, _round} <- asked, do: wave.crew)

  defp suspended(asked), do: for({wave, _round} <- asked, window <- wave.suspended, do: window)

  # By no change is anybody ended without the operator's word.
  defp survived(%{ready: %{job: %{purge: :force}}}), do: :ok

  defp survived(swap) do
    case casualties(swap) do
      [] -> :ok
      some -> {:error, :fatal, "#{Casualties.refused(some)}; nothing was loaded"}
    end
  end

  defp casualties(%{ready: %{fatal: fatal}}) when fatal == %{}, do: []

  defp casualties(%{found: found, ready: %{fatal: fatal}}),
    do: Casualties.among(found.targets ++ found.unpaused, fatal)

  # A decision may take its time, and whoever was started meanwhile is still of the old code. To
  # stop those, others may have to go on for a moment: these have another state by then.
  defp catch_up(swap) do
    before = length(swap.windows)
    deadline = deadline(swap.ready)
    swap = %{swap | deadline: deadline, suspension: %{swap.suspension | deadline: deadline}}

    known = length(swap.suspension.asked)

    with {swap, :ok} <- newcomers_while_held(swap, [], @most_rounds),
         {swap, :ok} <- {swap, survived(swap)} do
      # The newest come first.
      {_new, old} = Enum.split(swap.windows, length(swap.windows) - before)
      asked = Enum.take(swap.suspension.asked, length(swap.suspension.asked) - known)
      released = MapSet.new(swap.suspension.released)
      swap = %{swap | again: Enum.reject(swap.again, fn {pid, _module} -> pid in released end)}
      again = if MapSet.size(released) == 0, do: [], else: only(old, &(&1.pid in released))
      # Whoever converts at once has done so when it stood still again.
      alone = for window <- again, %{how: :still} = task <- window, do: task
      crews = if alone == [], do: crews(asked), else: [Crew.new(alone) | crews(asked)]
      convert(swap, crews, suspended(asked) ++ only(again, &(&1.how == :suspended)))
    end
  end

  # From here on they start nobody, and who is there is found; and with them who has started them.
  defp newcomers_while_held(%{ready: %{job: %{prepared: nil}}} = swap, _held, _rounds),
    do: {swap, :ok}

  defp newcomers_while_held(swap, held, rounds) do
    starters = swap.found.starters
    swap = %{swap | held: [HeldParents.hold(starters -- held) | swap.held]}

    with {swap, :ok} <- newcomers(swap, @most_rounds) do
      if rounds == 0 or swap.found.starters == starters,
        do: {swap, :ok},
        else: newcomers_while_held(swap, starters, rounds - 1)
    end
  end

  defp only(windows, wanted?) do
    for window <- windows,
        some = Enum.filter(window, wanted?),
        some != [],
        do: some
  end

  # New modules come first: what is tried may call them.
  defp convert(%{suspension: %{told: []}} = swap, [], []), do: {swap, :ok}

  defp convert(swap, crews, suspended) do
    with {swap, :ok} <- ahead(swap) do
      PhaseTimes.note(:convert, fn -> convert_now(swap, crews, suspended) end)
    end
  end

  defp ahead(%{windows: []} = swap), do: {swap, :ok}

  defp ahead(swap) do
    case EarlyLoad.added(swap.ready, swap.deadline) do
      {:ok, ready} -> {%{swap | ready: ready}, :ok}
      error -> {swap, error}
    end
  end

  # Who has converted at once has told by now what it had to tell.
  defp convert_now(swap, crews, suspended) do
    {told, suspension} = Suspension.take_told(swap.suspension)
    swap = %{swap | suspension: suspension, again: told.again ++ swap.again}
    late = late_crew(swap.windows, told.later)
    crews = late ++ Enum.filter(crews, & &1.later?)
    standing = swap.suspension.standing
    deadline = swap.deadline - Suspension.back(suspension)
    result = Batch.convert(crews, suspended, standing, {swap.ref, deadline})
    Enum.each(late, &Crew.stop/1)

    case result do
      {:ok, again} ->
        {%{swap | again: again ++ swap.again}, Batch.survived(swap.windows, standing.signal)}

      {:error, reason, text, late} ->
        {%{swap | late: late}, {:error, reason, text}}
    end
  end

  # What they call is known only when it runs: for that all stand still.
  defp late_crew(_windows, []), do: []

  defp late_crew(windows, pids) do
    pids = MapSet.new(pids)

    tasks =
      for window <- only(windows, &(&1.pid in pids)), task <- window, do: ProcessTask.later(task)

    [Crew.new(tasks)]
  end

  defp load(swap), do: {swap, PhaseTimes.note(:load, fn -> load_now(swap) end)}

  # Those that go down by themselves do so while the code that knows how is still current.
  defp load_now(%{ready: ready} = swap) do
    targets = swap.found.targets
    {down, up} = Batch.down(swap.again ++ swap.by_itself, ready.job.changes, targets)

    among = {targets, swap.suspension.standing}

    with [] <- Batch.by_themselves(down, ready, among, swap.deadline),
         {:ok, killed} <- Load.run(ready, casualties(swap)) do
      deadline = System.monotonic_time(:millisecond) + Batch.change_within()
      up = Enum.reject(up, fn {pid, _module} -> pid in killed end)
      loaded(Batch.by_themselves(up, ready, among, deadline), killed, ready)
    else
      [_ | _] = failures -> {:error, :taken_back, Description.refused(failures)}
      error -> error
    end
  end

  # All still stand still, and have what they had: one that cannot change has everybody go back.
  defp loaded([], killed, _ready), do: {:loaded, [], killed}

  defp loaded(failures, killed, ready) do
    case Load.back(ready) do
      :ok ->
        {:error, :taken_back, Description.refused(failures)}

      {:error, why} ->
        {:loaded, for({pid, module, reason} <- failures, do: {pid, module, reason, why}), killed}
    end
  end

  defp unsure(_swap, []), do: []
  defp unsure(%{ready: %{job: %{prepared: nil}}}, _now), do: []

  defp unsure(%{ready: ready, found: found} = swap, now) do
    ready.job.changes
    |> Discovery.find(found, now)
    |> Map.fetch!(:targets)
    |> Enum.reject(& &1.holds?)
    |> Newborn.settle(swap)
  end

  # The supervisors of the processes concerned come first: they finish the child that they
  # are starting and start no other. Then the processes themselves, until none is left that
  # was started meanwhile.
  @spec suspend(swap(), non_neg_integer()) :: {swap(), result()}
  defp suspend(swap, rounds) do
    case Suspension.add(swap.suspension, swap.found.children) do
      {:ok, suspension} -> newcomers(%{swap | suspension: suspension}, rounds)
      {:late, suspension} -> late(%{swap | suspension: suspension})
      {:told, suspension} -> told(%{swap | suspension: suspension})
    end
  end

  defp newcomers(%{ready: %{job: %{prepared: nil}}} = swap, _rounds), do: {swap, :ok}

  defp newcomers(swap, rounds) do
    found = at_normal_priority(fn -> born(swap) end)

    case Casualties.mark(found, swap.ready.fatal) do
      %{silent: [_ | _] = silent} ->
        {swap, {:error, :busy, Description.silent(silent)}}

      %{targets: [], parents: []} = new ->
        {%{swap | found: Discovery.merge(new, swap.found)}, :ok}

      new when rounds > 0 ->
        bystanders = ProcessTask.bystanders(new.parents)

        windows =
          ProcessTask.of(new.targets, swap.ready, {swap.ref, swap.suspension.standing.signal})

        swap = %{
          swap
          | found: Discovery.merge(new, swap.found),
            windows: windows ++ swap.windows,
            by_itself: ProcessTask.by_itself(windows) ++ swap.by_itself,
            suspension: Suspension.announce(swap.suspension, [bystanders, windows])
        }

        suspend(swap, rounds - 1)

      # They are found again once those who start them are held.
      _new when swap.held == [] ->
        {swap, :ok}

      _new ->
        {swap, {:error, :busy, "new processes were started faster than they could be suspended"}}
    end
  end

  # Who is looked for has to come to run, and a look at all processes takes its time.
  defp at_normal_priority(fun) do
    high = Process.flag(:priority, :normal)
    result = fun.()
    Process.flag(:priority, high)
    result
  end

  # Of one that is not known yet it shall not be known only after the load.
  defp born(swap, looks \\ @most_looks) do
    case Discovery.find(swap.ready.job.changes, swap.found) do
      %{targets: [], parents: [], silent: [], unborn: [_ | _]} when looks > 0 ->
        receive do
        after
          1 -> born(swap, looks - 1)
        end

      found ->
        found
    end
  end

  # Who they are and what they do is looked at while all others go on again: where the schedulers are full a look
  # takes as long as a turn of everybody, and the pause is over.
  defp late(swap) do
    with :ok <- Decision.called_off() do
      pids = swap.suspension.waiting
      look = Quiet.task(fn -> Enum.find(pids, &converting?/1) || Description.processes(pids) end)
      {%{swap | look: look}, {:error, :busy, @late}}
    else
      called_off -> {swap, called_off}
    end
  end

  # One whose code_change does not end is not busy with something else.
  defp converting?(pid) do
    case Process.info(pid, :current_stacktrace) do
      {:current_stacktrace, stack} ->
        Enum.any?(stack, fn {module, _, _, _} -> DynamicCalls.shadow?(module) end)

      nil ->
        false
    end
  end

  # It is over; what was looked at meanwhile comes before what could not be taken back.
  defp explained(result, %{look: nil}), do: result

  defp explained({:error, :busy, text}, swap) do
    {reason, why} = seen(Task.yield(swap.look, @look_within), swap)
    _ = Task.shutdown(swap.look, :brutal_kill)
    PhaseTimes.explain(:suspend, why)

    {:error, reason, String.replace_prefix(text, @late, why)}
  end

  defp seen({:ok, pid}, swap) when is_pid(pid) do
    case only(swap.windows, &(&1.pid == pid)) do
      [[task]] ->
        {:taken_back, Description.too_long(pid, ProcessTask.only(task).module, "code_change")}

      _not_its_own ->
        {:busy, busy(swap.suspension, Description.processes([pid]))}
    end
  end

  defp seen({:ok, text}, swap), do: {:busy, busy(swap.suspension, text)}
  defp seen(_late, swap), do: {:busy, busy(swap.suspension, "who they are was not seen in time")}

  defp told(swap) do
    [{pid, {{:failed, reason}, module}} | _] = swap.suspension.told
    {swap, {:error, :taken_back, Description.failure({pid, module, reason})}}
  end

  defp busy(%{waiting: [], ours: ours}, _who) do
    "#{map_size(ours)} processes stood still only when the time for it was up, nothing was loaded: try again, or " <>
      "with a longer pause_timeout"
  end

  defp busy(%{waiting: busy, ours: ours}, who) do
    "#{length(busy)} of #{map_size(ours)} processes could not be suspended in time, nothing was " <>
      "loaded: #{who}"
  end

  defp resume({:loaded, failures, killed}, swap) do
    PhaseTimes.note(:resume, fn ->
      slow = for {pid, _module, :too_long, _why} <- failures, do: pid
      :ok = Batch.take_and_resume(asked(swap), swap.suspension.standing, swap.ready, slow)
      if failures == [], do: {:ok, killed}, else: {:error, :half, Description.failures(failures)}
    end)
  end

  # What failed is another phase.
  defp resume({:error, _reason, _text} = error, swap) do
    error = EarlyLoad.back(swap.ready, error)
    # Asked when it is over: who has come to stand still until then has to be told.
    late = fn -> Suspension.late(swap.suspension) ++ swap.late.() end
    standing = swap.suspension.standing

    :ok =
      PhaseTimes.note(:resume, fn ->
        Batch.drop_and_resume(asked(swap), standing, swap.ref, late)
      end)

    error
  end

  # Nobody who was not asked to stand still is told to go on. Supervisors come last, because they
  # have children to start.
  defp asked(swap) do
    {supervisors, others} =
      swap.suspension.asked
      |> Enum.reverse()
      |> Enum.split_with(&Suspension.bystanders?/1)

    others ++ supervisors
  end

  # Of processes with a state to convert; their supervisors stand still for their sake.
  defp counts({%{suspension: suspension} = swap, _result}) do
    busy = MapSet.new(suspension.waiting)

    late =
      if suspension.waiting == [], do: 0, else: Enum.count(swap.found.targets, &(&1.pid in busy))

    %{suspended: length(swap.found.targets) - late, releases: suspension.releases}
  end

  defp outcome(result, swap, unsure, took) do
    us = System.convert_time_unit(took, :native, :microsecond)
    count = length(swap.found.targets)
    pause_us = if count == 0, do: 0, else: us

    case result do
      {:ok, killed} ->
        {:ok,
         %Done{
           suspended: count,
           pause_us: pause_us,
           releases: swap.suspension.releases,
           unsure: unsure,
           killed: killed
         }}

      {:error, reason, text} ->
        {:error, Failure.new(reason, text, pause_us: pause_us, loaded?: reason == :half)}
    end
  end
end
