defmodule HotPatch.Swap.AtOnce do
  @moduledoc false
  # A swap in which all processes concerned stand still, from the first suspend to the last
  # resume.
  #
  # Everything that can fail comes before the new code is current: all are suspended, and
  # each converts its state by the new code's callback, called in its shadow, and puts the
  # result aside. Up to here going back is a resume. Then all modules become current in one
  # step, the states put aside become the real ones, and all are resumed.

  alias HotPatch.Swap.Decision
  alias HotPatch.Swap.Describe
  alias HotPatch.Swap.Loading
  alias HotPatch.Swap.OnLoad
  alias HotPatch.Swap.Phases
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Steps
  alias HotPatch.Swap.Suspension
  alias HotPatch.Swap.Work

  # After so many rounds newcomers come faster than they can be found.
  @most_rounds 20

  @typep swap :: %{
           ready: Ready.t(),
           found: Processes.found(),
           ref: reference(),
           bystanders: [[Work.t()]],
           windows: [[Work.t()]],
           later: [{pid(), module()}],
           suspension: Suspension.t()
         }

  @doc "Runs it to its end, good or bad."
  @spec run(pid(), Ready.t(), pid()) ::
          {:ok, HotPatch.Swap.done()} | {:error, HotPatch.Swap.failure()}
  def run(caller, ready, guard) do
    # What was started since the preparation is looked at before anybody is suspended.
    found = later(ready, ready.found)
    ref = make_ref()
    bystanders = Work.bystanders(found.parents)
    windows = Work.of(found.targets, ready, ref)
    suspension = Suspension.announce(Suspension.new(guard, 0), bystanders ++ windows)

    started = System.monotonic_time()
    deadline = deadline(ready)

    swap = %{
      ready: ready,
      found: found,
      ref: ref,
      bystanders: bystanders,
      windows: windows,
      later: Work.later(windows),
      suspension: %{suspension | deadline: deadline}
    }

    {swap, suspended} =
      Phases.note(
        :suspend,
        fn -> suspend(swap, bystanders ++ windows, @most_rounds) end,
        &counts/1
      )

    result =
      with :ok <- suspended,
           :ok <- Decision.wanted(caller),
           {:ok, again} <- convert(swap, deadline),
           :ok <- OnLoad.load(ready.job.on_load, deadline),
           :ok <- taken_back(Decision.await(caller, ready), ready) do
        {:decided, again}
      end

    {swap, result} = catch_up(swap, result)
    result = with {:decided, again} <- result, do: load(again, ready)
    # Whoever was started in the very moment of the load: by which code cannot be told.
    now = if match?({:loaded, _, _}, result), do: Process.list(), else: []
    resumed = resume(result, swap)
    ended = System.monotonic_time()
    outcome(resumed, swap, unsure(swap, now), ended - started)
  end

  defp deadline(ready), do: System.monotonic_time(:millisecond) + ready.job.pause_timeout

  # Of a job that loads nothing, whoever is started meanwhile has the right state already.
  defp later(%{job: %{prepared: nil}}, found), do: found
  defp later(ready, found), do: Processes.merge(Processes.find(ready.job.changes, found), found)

  # A decision may take its time, and whoever was started meanwhile is still of the old code.
  defp catch_up(swap, {:decided, again}) do
    before = length(swap.windows)
    deadline = deadline(swap.ready)
    swap = %{swap | suspension: %{swap.suspension | deadline: deadline}}

    with {swap, :ok} <- newcomers(swap, @most_rounds) do
      # The newest come first.
      new = Enum.take(swap.windows, length(swap.windows) - before)

      case Steps.convert(new, swap.suspension.ref, swap.ref, deadline) do
        {:ok, more} -> {swap, {:decided, more ++ again ++ swap.later}}
        error -> {swap, taken_back(error, swap.ready)}
      end
    else
      {swap, error} -> {swap, taken_back(error, swap.ready)}
    end
  end

  defp catch_up(swap, error), do: {swap, error}

  # What a step of its own has made current goes back too.
  defp taken_back(:ok, _ready), do: :ok

  defp taken_back({:error, reason, text}, ready) do
    {:error, reason, text <> OnLoad.left(OnLoad.back(ready.job.on_load))}
  end

  defp convert(%{windows: windows} = swap, deadline) do
    Phases.note(:convert, fn ->
      Steps.convert(windows, swap.suspension.ref, swap.ref, deadline)
    end)
  end

  defp load(again, ready) do
    case Phases.note(:load, fn -> load_now(again, ready) end) do
      {:loaded, _up, _killed} = loaded -> loaded
      error -> taken_back(error, ready)
    end
  end

  # Those that go down by themselves do so while the code that knows how is still current.
  defp load_now(again, ready) do
    {down, up} = Enum.split_with(again, &Steps.down?(&1, ready))

    with [] <- Steps.by_themselves(down, ready), {:ok, killed} <- Loading.run(ready) do
      {:loaded, up, killed}
    else
      [_ | _] = failures -> {:error, :taken_back, Describe.refused(failures)}
      error -> error
    end
  end

  defp unsure(_swap, []), do: []
  defp unsure(%{ready: %{job: %{prepared: nil}}}, _now), do: []

  defp unsure(%{ready: ready, found: found}, now) do
    for target <- Processes.find(ready.job.changes, found, now).targets, do: target.pid
  end

  # The supervisors of the processes concerned come first: they finish the child that they
  # are starting and start no other. Then the processes themselves, until none is left that
  # was started meanwhile.
  @spec suspend(swap(), [[Work.t()]], non_neg_integer()) ::
          {swap(), :ok | {:error, atom(), String.t()}}
  defp suspend(swap, windows, rounds) do
    case Suspension.add(swap.suspension, windows, swap.found.children) do
      {:ok, suspension} -> newcomers(%{swap | suspension: suspension}, rounds)
      {:late, suspension} -> late(%{swap | suspension: suspension})
    end
  end

  defp newcomers(%{ready: %{job: %{prepared: nil}}} = swap, _rounds), do: {swap, :ok}

  defp newcomers(swap, rounds) do
    case Processes.find(swap.ready.job.changes, swap.found) do
      %{targets: [], parents: []} ->
        {swap, :ok}

      new when rounds > 0 ->
        bystanders = Work.bystanders(new.parents)
        windows = Work.of(new.targets, swap.ready, swap.ref)

        swap = %{
          swap
          | found: Processes.merge(new, swap.found),
            bystanders: bystanders ++ swap.bystanders,
            windows: windows ++ swap.windows,
            later: Work.later(windows) ++ swap.later,
            suspension: Suspension.announce(swap.suspension, bystanders ++ windows)
        }

        suspend(swap, bystanders ++ windows, rounds - 1)

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

  defp resume({:loaded, again, killed}, swap) do
    Phases.note(:resume, fn ->
      case Steps.take_and_resume(all(swap), swap.suspension.ref, swap.ready, again) do
        [] -> {:ok, killed}
        failures -> {:error, :half, Describe.failures(failures)}
      end
    end)
  end

  # What failed is another phase.
  defp resume({:error, _reason, _text} = error, swap) do
    busy = swap.suspension.waiting
    still = swap.suspension.ref
    :ok = Phases.note(:resume, fn -> Steps.drop_and_resume(all(swap), still, busy) end)
    error
  end

  # Supervisors come last: they have children to start.
  defp all(swap), do: swap.windows ++ swap.bystanders

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
         %{
           suspended: count,
           pause_us: pause_us,
           releases: swap.suspension.releases,
           unsure: unsure,
           killed: killed,
           phases: []
         }}

      {:error, reason, text} ->
        {:error,
         %{
           reason: reason,
           text: text,
           pause_us: pause_us,
           loaded?: reason == :half,
           phases: []
         }}
    end
  end
end
