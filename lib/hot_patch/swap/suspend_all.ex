defmodule HotPatch.Swap.SuspendAll do
  @moduledoc false
  # A swap in which all processes concerned stand still, from the first suspend to the last
  # resume.
  #
  # Everything that can fail comes before the new code is current: all are suspended, and
  # each converts its state by the new code's callback, called in its shadow, and puts the
  # result aside. Up to here going back is a resume. Then all modules become current in one
  # step, the states put aside become the real ones, and all are resumed.

  alias HotPatch.Swap.Batch
  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Decision
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Done
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.Failure
  alias HotPatch.Swap.Load
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.PhaseTimes
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Suspension
  alias HotPatch.Swap.SysMessage

  # After so many rounds newcomers come faster than they can be found.
  @most_rounds 20

  @typedoc """
  `ref` is that of the conversions. `late` are processes that are in the user's code, converting
  their state, for all that is known; `again` those that have to change by themselves, as far as
  the conversions have shown it.
  """
  @type swap :: %{
          ready: Ready.t(),
          found: Discovery.found(),
          ref: reference(),
          deadline: integer(),
          bystanders: [[ProcessTask.t()]],
          windows: [[ProcessTask.t()]],
          by_itself: [{pid(), module()}],
          again: [{pid(), module()}],
          late: [pid()],
          suspension: Suspension.t()
        }
  @typep result :: :ok | {:error, atom(), String.t()}

  @doc "Runs it to its end, good or bad."
  @spec run(pid(), Ready.t(), pid()) ::
          {:ok, Done.t()} | {:error, Failure.t()}
  def run(caller, ready, guard) do
    swap = begin(ready, guard)
    started = System.monotonic_time()

    {swap, suspended} =
      PhaseTimes.note(
        :suspend,
        fn -> suspend(swap, swap.bystanders ++ swap.windows, @most_rounds) end,
        &counts/1
      )

    {swap, result} = with {swap, :ok} <- {swap, suspended}, do: tried(swap, caller)
    {swap, result} = with {swap, :ok} <- {swap, result}, do: load(swap)
    # Whoever was started in the very moment of the load: by which code cannot be told.
    now = if match?({:loaded, _, _}, result), do: Process.list(), else: []
    resumed = resume(result, swap)
    took = System.monotonic_time() - started
    outcome(resumed, swap, unsure(swap, now), took)
  end

  # What was started since the preparation is looked at before anybody is suspended.
  defp begin(ready, guard) do
    deadline = deadline(ready)
    found = Casualties.mark(later(ready, ready.found), ready.fatal)
    standing = Parking.new(guard, ready.signal)
    ref = SysMessage.open()
    bystanders = ProcessTask.bystanders(found.parents)
    windows = ProcessTask.of(found.targets, ready, {ref, standing.signal})
    suspension = Suspension.new(standing, deadline)

    %{
      ready: ready,
      found: found,
      ref: ref,
      deadline: deadline,
      bystanders: bystanders,
      windows: windows,
      by_itself: ProcessTask.by_itself(windows),
      again: [],
      late: [],
      suspension: Suspension.announce(suspension, bystanders ++ windows)
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
         {swap, :ok} <- convert(swap, swap.windows),
         {swap, :ok} <- {swap, EarlyLoad.on_load(swap.ready, swap.deadline)},
         {swap, :ok} <- {swap, Decision.await(caller, swap.ready)},
         do: catch_up(swap)
  end

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

    with {swap, :ok} <- newcomers(swap, @most_rounds),
         {swap, :ok} <- {swap, survived(swap)} do
      # The newest come first.
      {new, known} = Enum.split(swap.windows, length(swap.windows) - before)
      released = MapSet.new(swap.suspension.released)
      swap = %{swap | again: Enum.reject(swap.again, fn {pid, _module} -> pid in released end)}

      case new ++ only(known, released) do
        [] -> {swap, :ok}
        windows -> convert(swap, windows)
      end
    end
  end

  defp only(windows, pids) do
    if MapSet.size(pids) == 0,
      do: [],
      else:
        for(
          window <- windows,
          some = Enum.filter(window, &(&1.pid in pids)),
          some != [],
          do: some
        )
  end

  # New modules come first: what is tried may call them.
  defp convert(swap, windows) do
    with {swap, :ok} <- ahead(swap) do
      PhaseTimes.note(:convert, fn -> convert_now(swap, windows) end)
    end
  end

  defp ahead(%{windows: []} = swap), do: {swap, :ok}

  defp ahead(swap) do
    case EarlyLoad.added(swap.ready, swap.deadline) do
      {:ok, ready} -> {%{swap | ready: ready}, :ok}
      error -> {swap, error}
    end
  end

  defp convert_now(swap, windows) do
    case Batch.convert(windows, swap.suspension.standing, swap.ref, swap.deadline) do
      {:ok, again} -> {%{swap | again: again ++ swap.again}, :ok}
      {:error, reason, text, late} -> {%{swap | late: late}, {:error, reason, text}}
    end
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

  defp unsure(%{ready: ready, found: found}, now) do
    for target <- Discovery.find(ready.job.changes, found, now).targets,
        not target.holds?,
        do: target.pid
  end

  # The supervisors of the processes concerned come first: they finish the child that they
  # are starting and start no other. Then the processes themselves, until none is left that
  # was started meanwhile.
  @spec suspend(swap(), [[ProcessTask.t()]], non_neg_integer()) :: {swap(), result()}
  defp suspend(swap, windows, rounds) do
    case Suspension.add(swap.suspension, windows, swap.found.children) do
      {:ok, suspension} -> newcomers(%{swap | suspension: suspension}, rounds)
      {:late, suspension} -> late(%{swap | suspension: suspension})
    end
  end

  defp newcomers(%{ready: %{job: %{prepared: nil}}} = swap, _rounds), do: {swap, :ok}

  defp newcomers(swap, rounds) do
    case Casualties.mark(Discovery.find(swap.ready.job.changes, swap.found), swap.ready.fatal) do
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
            bystanders: bystanders ++ swap.bystanders,
            windows: windows ++ swap.windows,
            by_itself: ProcessTask.by_itself(windows) ++ swap.by_itself,
            suspension: Suspension.announce(swap.suspension, bystanders ++ windows)
        }

        suspend(swap, bystanders ++ windows, rounds - 1)

      _new ->
        {swap, {:error, :busy, "new processes were started faster than they could be suspended"}}
    end
  end

  defp late(swap) do
    with :ok <- Decision.called_off() do
      {swap, {:error, :busy, busy(swap.suspension)}}
    else
      called_off -> {swap, called_off}
    end
  end

  defp busy(%{waiting: busy, ours: ours}) do
    "#{length(busy)} of #{map_size(ours)} processes could not be suspended in time, nothing was " <>
      "loaded: #{Description.processes(busy)}"
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
    late = swap.suspension.waiting ++ swap.late
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
      |> Enum.split_with(fn [task | _] -> task == %ProcessTask{pid: task.pid} end)

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
