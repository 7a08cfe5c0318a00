defmodule HotPatch.Swap.Rehearsal do
  @moduledoc false
  # Tries a swap on the states that processes have now, with nobody paused and nothing changed.
  #
  # Each process concerned gets one system message. In its own turn it hands a copy of its state to a process
  # that lives for one call of the new code's callback (HotPatch.Swap.Rehearsal.Attempt), keeps what it has, and
  # goes on: a callback that never returns, or takes all memory, ends with that process and not with one
  # of the system. So no value leaves the node, nor that process; what comes back are forms and figures.
  #
  # What it takes is as for a swap: shadows are loaded, and modules that are new here, because the init of a
  # supervisor may ask them. A guard takes both away again, whoever dies. It has the name of this module, so
  # that there is one rehearsal on a node at a time, and so that whoever comes next can wait for its end.

  alias HotPatch.Plan.Risk
  alias HotPatch.Rehearsal.ModuleResult
  alias HotPatch.Support.Table
  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Discovery.KeptFrames
  alias HotPatch.Swap.Discovery.Uncertain
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.Job
  alias HotPatch.Swap.OldCode.Room
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Concerned
  alias HotPatch.Swap.Rehearsal.Round
  alias HotPatch.Swap.Rehearsal.Tally
  alias HotPatch.Swap.Replay
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage

  @typedoc """
  `within`: milliseconds in which a process has to come to its turn, and to have converted. `deadline`: the end
  of it all, in monotonic milliseconds. `sample`: how many processes of each module at most; nil for all.
  `without`: modules whose callbacks are not called, because they have effects. `most_bytes`: the largest
  state that is copied. `owner`: when it dies nobody wants the result any more. `replay`: how messages are played, nil where none are.
  """
  @type how :: %{
          within: pos_integer(),
          deadline: integer(),
          sample: pos_integer() | nil,
          without: [module()],
          most_bytes: pos_integer(),
          owner: pid(),
          replay: Replay.how() | nil
        }

  @typedoc "What was found, as `HotPatch.Rehearsal.NodeResult` has it."
  @type found :: %{
          modules: [ModuleResult.t()],
          replays: [HotPatch.Rehearsal.Replay.t()],
          suspended: non_neg_integer(),
          pause_us: non_neg_integer(),
          wait_us: non_neg_integer(),
          memory_bytes: non_neg_integer(),
          late: [String.t()],
          uncertain: [String.t()],
          warnings: [String.t()]
        }

  # What runs inside the processes concerned.
  @inside [
    HotPatch.Rehearsal.Form,
    HotPatch.Rehearsal.Reason,
    HotPatch.Swap.Conversion,
    HotPatch.Swap.Discovery.CallbackModule,
    HotPatch.Swap.Discovery.Employer,
    HotPatch.Swap.Discovery.StackText,
    HotPatch.Swap.Discovery.Wrapper,
    HotPatch.Swap.Employment,
    HotPatch.Swap.Foreign,
    HotPatch.Swap.Foreign.Decoy,
    HotPatch.Swap.Foreign.Probe,
    HotPatch.Swap.Hosted,
    HotPatch.Swap.Rehearsal.Attempt,
    HotPatch.Swap.Rehearsal.Turn,
    HotPatch.Swap.Signal,
    HotPatch.Swap.SysMessage
  ]

  # So many who would be late are described.
  @named 5

  @doc """
  Rehearses a swap. The error is why the swap would be refused before anybody was asked, or what the
  rehearsal itself died of.
  """
  @spec run(Job.t(), how()) :: {:ok, found()} | {:error, String.t()}
  def run(%Job{} = job, how) do
    :ok = :code.ensure_modules_loaded(@inside)
    # Nothing that runs code when it is loaded is loaded here.
    job = %{job | on_load: []}
    signal = Signal.new()
    caller = self()
    ref = make_ref()
    copies = job.shadows ++ Replay.shadows(how.replay)

    {engine, monitor} =
      :erlang.spawn_opt(fn -> engine(caller, ref, {job, how, signal}) end, [
        :monitor,
        priority: :low,
        message_queue_data: :off_heap
      ])

    {guard, guard_monitor} = spawn_monitor(fn -> guard(caller, engine, {job, copies, signal}) end)
    result = begun(engine, guard, {ref, monitor, guard_monitor})

    receive do
      {:DOWN, ^guard_monitor, :process, ^guard, _reason} -> result
    end
  end

  defp begun(engine, guard, {ref, monitor, guard_monitor}) do
    receive do
      {^guard, :ready} ->
        send(engine, {:go, ref})
        await(engine, ref, monitor)

      {^guard, :busy} ->
        Process.exit(engine, :kill)
        Process.demonitor(monitor, [:flush])
        {:error, "another rehearsal has not ended on this node yet: try again"}

      {:DOWN, ^guard_monitor, :process, ^guard, reason} ->
        Process.exit(engine, :kill)
        Process.demonitor(monitor, [:flush])
        send(self(), {:DOWN, guard_monitor, :process, guard, reason})
        {:error, "the guard of the rehearsal died (#{inspect(reason, limit: 10)})"}
    end
  end

  defp await(engine, ref, monitor) do
    receive do
      {^ref, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^engine, reason} ->
        {:error, "the rehearsal died (#{inspect(reason, limit: 10)}), and nothing was changed"}
    end
  end

  @doc "Ends the rehearsal of this node, if there is one, and waits until nothing is left of it."
  @spec stop(timeout()) :: :ok | :late
  def stop(within) do
    case Process.whereis(__MODULE__) do
      nil ->
        :ok

      guard ->
        monitor = Process.monitor(guard)
        send(guard, :stop)

        receive do
          {:DOWN, ^monitor, :process, ^guard, _reason} -> :ok
        after
          within ->
            Process.demonitor(monitor, [:flush])
            :late
        end
    end
  end

  # Ends what the engine has begun, whatever becomes of that.
  defp guard(caller, engine, {job, copies, signal}) do
    if register() do
      monitor = Process.monitor(engine)
      send(caller, {self(), :ready})
      watch(engine, monitor)
      _ = Signal.settle(signal, :drop)
      # Also what an engine has left that was killed in the middle.
      _ = EarlyLoad.back(job)
      :ok = Shadow.unload(copies)
    else
      send(caller, {self(), :busy})
    end
  end

  defp register do
    Process.register(self(), __MODULE__)
  rescue
    ArgumentError -> false
  end

  defp watch(engine, monitor) do
    receive do
      {:DOWN, ^monitor, :process, ^engine, _reason} ->
        :ok

      :stop ->
        send(engine, :stop)
        watch(engine, monitor)
    end
  end

  defp engine(caller, ref, {job, how, signal}) do
    Process.flag(:trap_exit, true)
    monitor = Process.monitor(caller)

    receive do
      {:go, ^ref} ->
        result = try_all(job, how, signal)
        _ = Signal.settle(signal, :drop)
        send(caller, {ref, result})
        # Whoever is linked to it, and not heard of yet, ends with it.
        Process.flag(:trap_exit, false)
        Process.exit(self(), :shutdown)

      {:DOWN, ^monitor, :process, ^caller, _reason} ->
        :ok
    end
  end

  # Nobody stands still for it.
  defp try_all(%{transition: :none} = job, how, signal) do
    with :ok <- Shadow.load(Replay.shadows(how.replay)) do
      replays =
        if how.replay, do: replays(Concerned.find(job.changes, %{}, %{}), job, how, signal)

      {:ok, Map.put(nobody(), :replays, replays || [])}
    end
  end

  defp try_all(job, how, signal) do
    with :ok <- Room.look(job),
         :ok <- Shadow.load(Replay.shadows(how.replay)),
         {:ok, ready} <- loaded(job, how),
         reasons = Casualties.reasons(job.changes, job.transition, ready.shadows),
         concerned = Concerned.find(job.changes, reasons, fatal(job, reasons)),
         :ok <- survived(concerned) do
      {:ok, rehearsed(ready, concerned, how, signal)}
    else
      {:held, text} -> {:error, text}
      {:error, text} -> {:error, text}
      {:error, _reason, text} -> {:error, text}
    end
  end

  defp nobody do
    tally = Tally.new([])

    Map.merge(Tally.figures(tally, 0, 1), %{
      modules: [],
      replays: [],
      late: [],
      uncertain: [],
      warnings: []
    })
  end

  # Where nothing is to be called, nothing has to be there for it.
  defp loaded(job, how) do
    ready = %Ready{job: job, found: Discovery.nothing(), shadows: job.shadows}

    with :ok <- Shadow.load(job.shadows),
         do: EarlyLoad.added(%{ready | ahead?: job.added == nil}, how.deadline)
  end

  defp fatal(%{purge: :force}, _reasons), do: %{}

  defp fatal(job, reasons) do
    gone = for %{kind: :delete, module: module} <- job.changes, do: module
    # They may be about to be stopped by an instruction.
    Map.reject(reasons, fn {{module, _kind}, _why} -> module in gone end)
  end

  defp survived(%{casualties: casualties}) when casualties == %{}, do: :ok
  defp survived(%{casualties: casualties}), do: {:error, Casualties.refused_for(casualties)}

  defp rehearsed(ready, concerned, how, signal) do
    ref = SysMessage.open()
    works = works(concerned.groups, ready, {ref, signal})
    {tally, chosen} = Tally.begin(works, how)
    {tally, late} = Round.run(chosen, tally, {ref, signal}, how)

    suspended =
      if ready.job.transition == :suspend, do: Concerned.count(concerned.groups), else: 0

    figures = Tally.figures(tally, suspended, System.schedulers_online())
    replays = replays(concerned, ready.job, how, signal)

    Map.merge(figures, %{
      modules: Tally.results(tally),
      replays: replays,
      late: late(late) ++ silent(concerned.silent),
      uncertain: Uncertain.told(concerned.uncertain),
      warnings: Enum.map(KeptFrames.told(concerned.kept), &Risk.line/1) ++ long(figures, how)
    })
  end

  defp replays(_concerned, _job, %{replay: nil}, _signal), do: []

  defp replays(concerned, job, how, signal) do
    # Nobody's state changes there.
    kept? = job.transition == :none
    changes = Enum.map(job.changes, &if(kept?, do: %{&1 | convert?: false}, else: &1))
    Replay.run(concerned.groups ++ concerned.unpaused, changes, how.replay, signal, how)
  end

  # What processes that are alike are to do, by their modules; nil where it cannot be tried. Nothing is
  # converted in one that is ended.
  defp works(groups, ready, under) do
    groups = Enum.reject(groups, fn {target, _pids} -> target.ends? end)
    tasks = groups |> Enum.map(&elem(&1, 0)) |> ProcessTask.of(ready, under) |> Enum.concat()

    for {{target, pids}, task} <- Enum.zip(groups, tasks) do
      modules = for {module, true} <- target.modules, do: {module, conversion(task, module)}
      %{kind: target.kind, modules: modules, pids: pids}
    end
  end

  # Of one that only looks for whom its process works there is no copy to be called.
  defp conversion(task, module) do
    with %{keeps?: true} <- task.conversions[module], do: nil
  end

  defp late(late) do
    {named, more} = Enum.split(late, @named)

    lines = for {pid, text} <- named, do: text || Description.process(pid)

    if more == [],
      do: lines,
      else: lines ++ ["#{Table.count(length(more), "process", "processes")} more"]
  end

  defp silent([]), do: []
  defp silent(pids), do: [Description.silent(pids)]

  defp long(%{pause_us: pause_us}, %{within: within}) when pause_us > within * 1_000 do
    [
      "the pause would take about #{Table.milliseconds(pause_us)}, and pause_timeout allows #{within} ms: " <>
        "give it more, or let fewer stand still"
    ]
  end

  defp long(_figures, _how), do: []
end
