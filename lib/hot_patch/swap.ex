defmodule HotPatch.Swap do
  @moduledoc false
  # Makes new modules current in the memory of this node: finds the processes that run
  # them, suspends those, has them convert their state, loads, resumes. Knows no disk and
  # no other node.
  #
  # This module is the boundary: `prepare/1` for everything outside the pause, `run/2` for
  # the change itself. The work is done in a process of its own (HotPatch.Swap.Engine),
  # watched by another (HotPatch.Swap.Guard), so that no process stays suspended whoever
  # dies.

  alias HotPatch.Strategy
  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Done
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.Engine
  alias HotPatch.Swap.Failure
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.Job
  alias HotPatch.Swap.Load
  alias HotPatch.Swap.OldCode
  alias HotPatch.Swap.OldCode.Purge
  alias HotPatch.Swap.OldCode.Report
  alias HotPatch.Swap.OldCode.Users
  alias HotPatch.Swap.PreviousCode
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.Target

  # The engine's mailbox takes an answer of every process, and a garbage collection of it would
  # be part of the pause: its heap has room for what it will know of the processes, up to a
  # limit. In words.
  @heap 1_000_000
  @heap_per_process 80
  @most_heap 16_000_000

  # What runs inside the processes concerned.
  @inside [
    HotPatch.Swap.Discovery.CallbackModule,
    HotPatch.Swap.Discovery.Employer,
    HotPatch.Swap.Discovery.Idleness,
    HotPatch.Swap.Discovery.StackText,
    HotPatch.Swap.Employment,
    HotPatch.Swap.Foreign,
    HotPatch.Swap.Foreign.Decoy,
    HotPatch.Swap.Foreign.Probe,
    HotPatch.Swap.Discovery.FunHolders,
    HotPatch.Swap.Conversion,
    HotPatch.Swap.FunRenewal,
    HotPatch.Swap.DynamicCalls,
    HotPatch.Swap.Hosted,
    HotPatch.Swap.Newborn,
    HotPatch.Swap.StateForm,
    HotPatch.Swap.Signal,
    HotPatch.Swap.Tally,
    HotPatch.Swap.Parking,
    HotPatch.Swap.SysMessage,
    HotPatch.Swap.Discovery.Wrapper
  ]

  # What the engine and its senders run while they stand still.
  @meanwhile [
    HotPatch.Swap.Batch,
    HotPatch.Swap.Blockers,
    HotPatch.Swap.Crew,
    HotPatch.Swap.Decision,
    HotPatch.Swap.EarlyLoad,
    HotPatch.Swap.HeldParents,
    HotPatch.Swap.Load,
    HotPatch.Swap.PhaseTimes,
    HotPatch.Swap.SharedTerm,
    HotPatch.Swap.SuspendAll,
    HotPatch.Swap.Suspension
  ]

  defp engine_options do
    needed = @heap_per_process * :erlang.system_info(:process_count)
    words = needed |> max(@heap) |> min(@most_heap)
    [:monitor, message_queue_data: :off_heap, min_heap_size: words]
  end

  # How long the guard may need to end what a dead engine began, before it is reported.
  @guard_within 2_000

  @doc """
  The processes that a swap of these modules would suspend, and those too busy to say
  whether they are among them. Changes nothing.
  """
  @spec find([Change.t()]) :: Discovery.found()
  defdelegate find(changes), to: Discovery, as: :look

  @doc "Who has changed modules on its stack, but for those that were found: for `bare/2` and `uncertain/3`."
  @spec running([Change.t()], [Target.t()], [pid()]) :: [Discovery.Running.t()]
  defdelegate running(changes, targets, among \\ Process.list()), to: Discovery.Running, as: :of

  @doc "Processes that run these modules and can be neither suspended nor moved."
  @spec bare([Discovery.Running.t()], [Change.t()]) :: [{pid(), module()}]
  defdelegate bare(running, changes), to: Discovery.Running

  @doc "Whether a process is a Task."
  @spec task?(pid()) :: boolean()
  defdelegate task?(pid), to: Discovery

  @doc """
  Who still runs old code of these modules, as far as their stacks show: quick, for many
  modules. `prepare/1` has the last word.
  """
  @spec holders([module()]) :: %{module() => [pid()]}
  def holders(modules) do
    Enum.group_by(
      Users.of(modules),
      fn {_pid, module, _stack} -> module end,
      fn {pid, _module, _stack} -> pid end
    )
  end

  @doc "Why modules cannot change because of funs that their old code has made, with the digests of what comes."
  @spec held_funs([{module(), md5 :: binary() | nil}]) :: %{module() => String.t()}
  def held_funs(coming),
    do: OldCode.Room.held_funs(for({module, _md5} <- coming, do: module), coming)

  @doc """
  Does what needs no pause: it is made sure that old code can go, the processes are found, shadows
  are loaded. `discard/1` or `run/2` ends it. Nothing is purged before the load: an operation may be
  refused or taken back until then, and what is purged cannot be given back.
  """
  @spec prepare(Job.t()) :: {:ok, Ready.t()} | {:error, Failure.t()}
  def prepare(%Job{} = job) do
    # Loaded on first use, they would be asked for by every process that stands still, or all would wait for
    # them.
    :ok = :code.ensure_modules_loaded(@inside ++ @meanwhile)

    shadows = Enum.filter(job.shadows, &needed?(&1, job.transition))

    # Shadows come first: to make room for them has all processes look, and whoever is looked at is best left in peace
    # from then on.
    with :ok <- OldCode.Room.check(job),
         :ok <- Shadow.load(shadows),
         %{silent: []} = found <- Discovery.find(job.changes),
         fatal = Casualties.reasons(job.changes, job.transition, shadows),
         :ok <- survived(job, shadows, found, fatal) do
      found = needed(found, job.transition)
      back = if goes_back?(job, found), do: PreviousCode.read(job.changes)
      funs = FunRenewal.table(job.changes)

      {:ok,
       %Ready{job: job, found: found, shadows: shadows, back: back, fatal: fatal, funs: funs}}
    else
      {:held, text} ->
        {:error, Failure.new(:old_code, text)}

      %{silent: silent} ->
        Shadow.unload(shadows)
        {:error, Failure.new(:busy, Description.silent(silent))}

      {:fatal, casualties} ->
        {:error, Failure.new(:fatal, Casualties.refused(casualties))}

      {:error, text} ->
        {:error, Failure.new(:shadow, text)}
    end
  end

  # What can fail when the new code is current: a transition that is not as it was declared, a process
  # that changes its state by itself, as supervisors do, whose module has no code_change.
  defp goes_back?(%{transition: :compatible}, _found), do: true
  defp goes_back?(%{transition: :none}, _found), do: false

  defp goes_back?(job, found) do
    Enum.any?(job.changes, &Change.converts?/1) or
      Enum.any?(found.targets, &(&1.kind == :supervisor))
  end

  # Those who work for a module that goes may be about to be stopped: they are looked for before the
  # load.
  defp survived(%{purge: :force}, _shadows, _found, _fatal), do: :ok

  defp survived(job, shadows, found, fatal) do
    gone = for %{kind: :delete, module: module} <- job.changes, do: module
    fatal = Map.reject(fatal, fn {{module, _kind}, _why} -> module in gone end)

    case Casualties.among(found.targets ++ found.unpaused, fatal) do
      [] ->
        :ok

      casualties ->
        Shadow.unload(shadows)
        {:fatal, casualties}
    end
  end

  @doc """
  Who holds a fun that would be one of old code after these changes, but for processes that make it anew;
  and who holds one that would be dead, because old code has made it. Both in words, with what was not
  looked at. Only of changes whose funs are known.
  """
  @spec fun_lines([Change.t()], [Target.t()], :soft | :force) :: [String.t()]
  def fun_lines(changes, targets, purge), do: OldCode.FunLines.of(changes, targets, purge)

  @doc "Who will keep a frame of the code that goes, so that the change cannot be taken back."
  @spec kept_frames([Change.t()], [Target.t()]) :: [HotPatch.Plan.Risk.t()]
  defdelegate kept_frames(changes, targets), to: Discovery.KeptFrames, as: :risks

  @doc "Servers of libraries that keep states of the modules that change within their own."
  @spec state_keepers([Change.t()], [Target.t()]) :: [HotPatch.Plan.Risk.t()]
  defdelegate state_keepers(changes, targets), to: Discovery.StateKeepers, as: :risks

  @doc "In lines: of how many processes it is not known whether they have a state that would have to change."
  @spec uncertain([Change.t()], [Discovery.Running.t()], silent :: [pid()]) :: [String.t()]
  defdelegate uncertain(changes, running, silent), to: Discovery.Uncertain, as: :lines

  @doc "Processes that changes are known to end."
  @spec casualties([Change.t()], Strategy.transition()) :: [Casualties.t()]
  def casualties(changes, transition) do
    reasons = Casualties.reasons(changes, transition)

    if reasons == %{} do
      []
    else
      concerned = for {{module, _kind}, _why} <- reasons, uniq: true, do: module
      found = Discovery.look(Enum.filter(changes, &(&1.module in concerned)))
      Casualties.among(found.targets ++ found.unpaused, reasons)
    end
  end

  @doc "The same in words: how many would die for each reason, and the first of them."
  @spec alike([Casualties.t()]) :: [{text :: String.t(), named :: [String.t()]}]
  defdelegate alike(casualties), to: Casualties

  @doc "That a change is refused because of them."
  @spec fatal_text([Casualties.t(), ...]) :: String.t()
  defdelegate fatal_text(casualties), to: Casualties, as: :refused

  @doc "What the running code of a gen_statem says of its callback mode; nil of other modules."
  @spec callback_mode(module()) :: term()
  defdelegate callback_mode(module), to: Casualties

  # Where no state is converted, only what a gen_statem says of itself is asked.
  defp needed?(%{module: module}, :none), do: function_exported?(module, :callback_mode, 0)
  defp needed?(_shadow, _transition), do: true

  # What is found goes to the engine, and copying a hundred thousand targets keeps a
  # scheduler busy for a while: not where callers shall notice nothing. There the engine
  # looks for itself.
  defp needed(found, :suspend), do: %{found | running: []}

  defp needed(found, _transition) do
    specials = for %{kind: :special} = target <- found.unpaused, do: target
    %{Discovery.nothing() | unpaused: specials}
  end

  @doc "Forgets a preparation."
  @spec discard(Ready.t()) :: :ok
  def discard(%Ready{shadows: shadows}), do: Shadow.unload(shadows)

  @doc """
  Runs a swap to its end, good or bad. Where the job asks for a decision, `held` is called
  with the engine when everything has been tried and everybody still waits; `decide/2` ends
  that.
  """
  @spec run(Ready.t(), (pid() -> term())) :: {:ok, Done.t()} | {:error, Failure.t()}
  def run(%Ready{} = ready, held \\ fn _engine -> :ok end) do
    ready = %{ready | signal: Signal.new(), load: Signal.new()}
    {engine, monitor} = :erlang.spawn_opt(Engine, :init, [self(), ready], engine_options())
    {guard, guard_monitor} = Guard.start(engine, ending(ready))
    send(engine, {:go, self(), guard})
    result = await(%{engine: engine, monitor: monitor, guard: guard_monitor}, ready, held)
    Process.demonitor(guard_monitor, [:flush])
    discard(ready)
    result
  end

  defp ending(%Ready{job: job} = ready),
    do: %{loaded?: fn -> Load.done?(ready) end, take_back: fn -> EarlyLoad.back(job) end}

  @doc """
  Tells an engine that holds how it goes on. To be taken back, also the process that runs the swap may be
  told, at any time.
  """
  @spec decide(pid(), :finish | {:take_back, String.t()}) :: :ok
  def decide(engine, decision) do
    send(engine, {:decided, decision})
    :ok
  end

  @doc """
  Names those who still run the code that a swap has made old. That code is purged only
  before the next change of the same modules: until then funs that it has made, wherever
  they are kept, go on working.
  """
  @spec stragglers([module()], [pid()]) :: [HotPatch.Straggler.t()]
  def stragglers(modules, unsure),
    do: Report.of(modules) ++ Enum.map(unsure, &Report.unsure/1)

  @doc "Processes that have a module for their callback module, or run it."
  @spec users(module()) :: [pid()]
  def users(module) do
    change = %Change{module: module, kind: :replace, exports: [], md5: nil}
    found = Discovery.look([change])
    Enum.map(found.targets ++ found.unpaused, & &1.pid)
  end

  @doc "The supervisors whose child specs come from a module."
  @spec supervisors(module()) :: [pid()]
  def supervisors(module) do
    change = %Change{module: module, kind: :replace, exports: [], md5: nil}
    for %{kind: :supervisor, pid: pid} <- Discovery.look([change]).targets, do: pid
  end

  @doc "The code of a module as it runs now; nil if it does not run or is in no file."
  @spec former_code(module()) :: binary() | nil
  def former_code(module) do
    case :erlang.module_loaded(module) and PreviousCode.code_of(module) do
      {:ok, _file, bytes} -> bytes
      _ -> nil
    end
  end

  @doc "Takes a module out that was taken out and has been loaded again since; says whether it is."
  @spec take_out(module()) :: boolean()
  def take_out(module) do
    if :erlang.module_loaded(module), do: :ok = Purge.take_out(module)
    not :erlang.module_loaded(module)
  end

  @doc "Everybody on this node who runs old code, of whatever module."
  @spec stragglers() :: [HotPatch.Straggler.t()]
  defdelegate stragglers(), to: Report, as: :of_all

  # Neither is linked: the engine must outlive its caller long enough to resume everyone,
  # the guard must outlive the engine.
  defp await(%{engine: engine, monitor: monitor} = running, ready, held) do
    receive do
      {^engine, :held} ->
        held.(engine)
        await(running, ready, held)

      # Whoever asked for the swap does not wait until everybody stands still.
      {:decided, {:take_back, _why} = decision} ->
        :ok = decide(engine, decision)
        await(running, ready, held)

      {^engine, {:done, result}} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^engine, reason} ->
        await_guard(running.guard)
        loaded? = Load.done?(ready)
        # The guard has told everybody; unless it is dead, too.
        _ = Signal.settle(ready.signal, if(loaded?, do: :take, else: :drop))
        {:error, engine_died(reason, ready.job, loaded?)}
    end
  end

  defp await_guard(guard_monitor) do
    receive do
      {:DOWN, ^guard_monitor, :process, _guard, _reason} -> :ok
    after
      @guard_within -> :ok
    end
  end

  # What became current ahead of the rest the guard has taken back, likewise.
  defp engine_died(reason, job, false) do
    left = EarlyLoad.left(EarlyLoad.back(job))

    Failure.new(
      :engine_died,
      "the swap engine died (#{short(reason)}), nothing was loaded, all were resumed#{left}"
    )
  end

  defp engine_died(reason, _job, true) do
    Failure.new(
      :engine_died,
      "the swap engine died (#{short(reason)}) after the load, all were resumed",
      loaded?: true
    )
  end

  defp short(term), do: inspect(term, limit: 10, printable_limit: 200)
end
