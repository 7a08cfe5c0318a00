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

  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.Engine
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.Load
  alias HotPatch.Swap.OldCode
  alias HotPatch.Swap.OldCode.Purge
  alias HotPatch.Swap.OldCode.Report
  alias HotPatch.Swap.OldCode.Users
  alias HotPatch.Swap.PhaseTimes
  alias HotPatch.Swap.PreviousCode
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Signal

  defmodule Change do
    @moduledoc false
    # One module of a swap. `md5` is that of the code that comes, nil where it is deleted;
    # `exports` are those of the code whose callbacks convert the states: the code that comes,
    # or, on the way down to an older version, the code that goes. `old_vsn` is what they are
    # called with: the version from which a process comes, or `{:down, vsn}`, that to which it
    # goes. A module that is added has no old version. `extra` is what they get besides. With
    # `convert?: false` no state changes, whatever the module exports. `arriving` are the exports of
    # the code that comes, and `callback_mode` what that says of itself, on the way down; nil where
    # they are not known. `funs` says which fun of the code that runs is which of the code that comes;
    # nil where there is none, or nobody is to stand still for them.
    @enforce_keys [:module, :kind, :exports, :md5]
    defstruct [
      :module,
      :kind,
      :exports,
      :md5,
      :old_vsn,
      :arriving,
      :callback_mode,
      :funs,
      extra: [],
      convert?: true,
      direction: :up
    ]

    @type t :: %__MODULE__{
            module: module(),
            kind: :replace | :add | :delete,
            direction: :up | :down,
            exports: [{String.t(), arity()}],
            md5: binary() | nil,
            old_vsn: term(),
            arriving: [{String.t(), arity()}] | nil,
            callback_mode: term(),
            funs: HotPatch.Swap.FunRenewal.of_module() | nil,
            extra: term(),
            convert?: boolean()
          }

    @converters [{"code_change", 3}, {"code_change", 4}, {"system_code_change", 4}]

    @doc "Whether states of the module's processes would be converted."
    @spec converts?(t()) :: boolean()
    def converts?(change), do: change.convert? and converter?(change.exports)

    @doc "Whether a module with these exports converts states."
    @spec converter?([{String.t(), arity()}]) :: boolean()
    def converter?(exports), do: Enum.any?(@converters, &(&1 in exports))

    @doc "The modules among these changes that have code already, which becomes old."
    @spec replaced([t()]) :: [module()]
    def replaced(changes),
      do: for(%{kind: kind, module: module} <- changes, kind != :add, do: module)
  end

  defmodule Job do
    @moduledoc false
    # `prepared` is the result of code:prepare_loading/1 of the new code (nil: nothing is loaded,
    # only states are converted), but for `added`: modules that are new here and become current
    # ahead of the rest (see HotPatch.Swap.EarlyLoad). `shadows` are copies under other names, `on_load`
    # the modules that can only be loaded by a step of their own. `pause_timeout`: milliseconds within which all must be suspended
    # and converted. `hold_timeout`: how long they may then wait for a decision; nil if none
    # is asked for. `transition` and `purge`: see HotPatch.apply/2. `after_load` is called while
    # everybody still stands still.
    @enforce_keys [:changes, :prepared, :pause_timeout]
    defstruct [
      :changes,
      :prepared,
      :pause_timeout,
      :hold_timeout,
      :added,
      shadows: [],
      on_load: [],
      transition: :suspend,
      purge: :soft,
      after_load: nil
    ]

    @type t :: %__MODULE__{
            changes: [Change.t()],
            prepared: term(),
            added: HotPatch.Swap.EarlyLoad.added() | nil,
            shadows: [HotPatch.Swap.Shadow.t()],
            on_load: [HotPatch.Swap.OnLoad.t()],
            pause_timeout: pos_integer(),
            hold_timeout: pos_integer() | nil,
            transition: HotPatch.Swap.transition(),
            purge: :soft | :force,
            after_load: (() -> term()) | nil
          }
  end

  defmodule Ready do
    @moduledoc false
    # A job with everything done that needs no pause. `back` is the code that runs now, ready to
    # be made current again, or why there is none; nil where it cannot be needed. `ahead?`: what
    # becomes current ahead of the rest is current. `fatal`: why processes would die of the change.
    # `signal` is that of the processes concerned. `load` is settled when the load begins: what was
    # decided, and what only came ahead of it, can be told apart from outside. `funs` are those that are
    # made anew in the states of processes that stand still.
    @enforce_keys [:job, :found, :shadows]
    defstruct [:job, :found, :shadows, :back, :signal, :load, :funs, ahead?: false, fatal: %{}]

    @type t :: %__MODULE__{
            job: Job.t(),
            found: HotPatch.Swap.Discovery.found(),
            shadows: [HotPatch.Swap.Shadow.t()],
            back: HotPatch.Swap.PreviousCode.t() | nil,
            signal: HotPatch.Swap.Signal.t() | nil,
            load: HotPatch.Swap.Signal.t() | nil,
            funs: HotPatch.Swap.FunRenewal.shared() | nil,
            ahead?: boolean(),
            fatal: HotPatch.Swap.Casualties.reasons()
          }
  end

  @typedoc """
  How processes come to the new code: suspended, all at once; none of them, because their
  state's format does not change; or each in its turn after the load, because the new code
  accepts the old state too.
  """
  @type transition :: :suspend | :none | :compatible

  @typedoc """
  `pause_us`: first suspend to last resume; `suspended`: how many processes; `releases`: how
  often one had to go on for a moment because another waited for it; `unsure`: processes
  that were started in the very moment of the load, by the old code or the new; `killed`:
  those that a purge by force has ended; `phases`: what took how long, in the order of time.
  """
  @type done :: %{
          killed: [pid()],
          pause_us: non_neg_integer(),
          suspended: non_neg_integer(),
          releases: non_neg_integer(),
          unsure: [pid()],
          phases: [PhaseTimes.t()]
        }

  @typedoc """
  Why a swap failed. Nothing was changed, unless `loaded?`. The text names the process at
  fault.
  """
  @type failure :: %{
          reason: atom(),
          text: String.t(),
          pause_us: non_neg_integer(),
          loaded?: boolean(),
          phases: [PhaseTimes.t()]
        }

  # The engine's mailbox takes an answer of every process, and a garbage collection of it would
  # be part of the pause: its heap has room for what it will know of the processes, up to a
  # limit. In words.
  @heap 1_000_000
  @heap_per_process 80
  @most_heap 16_000_000

  # What runs inside the processes concerned.
  @inside [
    HotPatch.Swap.Discovery.CallbackModule,
    HotPatch.Swap.Discovery.FunHolders,
    HotPatch.Swap.Conversion,
    HotPatch.Swap.FunRenewal,
    HotPatch.Swap.Signal,
    HotPatch.Swap.Parking,
    HotPatch.Swap.SysMessage,
    HotPatch.Swap.Discovery.Wrapper
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
  defdelegate find(changes), to: Discovery

  @doc "Processes that run these modules and can be neither suspended nor moved."
  @spec bare([Change.t()], [Discovery.target()]) :: [{pid(), module()}]
  def bare(changes, targets), do: Discovery.bare(changes, targets)

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
  @spec prepare(Job.t()) :: {:ok, Ready.t()} | {:error, failure()}
  def prepare(%Job{} = job) do
    # Loaded on first use, they would be asked for by every process that stands still.
    :ok = :code.ensure_modules_loaded(@inside)

    with :ok <- OldCode.Room.check(job),
         %{silent: []} = found <- Discovery.find(job.changes),
         shadows = Enum.filter(job.shadows, &needed?(&1, job.transition)),
         :ok <- Shadow.load(shadows),
         fatal = Casualties.reasons(job.changes, job.transition, shadows),
         :ok <- survived(job, shadows, found, fatal) do
      found = needed(found, job.transition)
      back = if job.transition == :compatible, do: PreviousCode.prepare(job.changes)
      funs = FunRenewal.table(job.changes)

      {:ok,
       %Ready{job: job, found: found, shadows: shadows, back: back, fatal: fatal, funs: funs}}
    else
      {:held, text} -> {:error, failure(:old_code, text)}
      %{silent: silent} -> {:error, failure(:busy, Description.silent(silent))}
      {:fatal, casualties} -> {:error, failure(:fatal, Casualties.refused(casualties))}
      {:error, text} -> {:error, failure(:shadow, text)}
    end
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
  @spec fun_lines([Change.t()], [Discovery.target()], :soft | :force) :: [String.t()]
  def fun_lines(changes, targets, purge), do: OldCode.FunLines.of(changes, targets, purge)

  @doc "Processes that changes are known to end."
  @spec casualties([Change.t()], transition()) :: [Casualties.t()]
  def casualties(changes, transition) do
    reasons = Casualties.reasons(changes, transition)

    if reasons == %{} do
      []
    else
      concerned = for {{module, _kind}, _why} <- reasons, uniq: true, do: module
      found = Discovery.find(Enum.filter(changes, &(&1.module in concerned)))
      Casualties.among(found.targets ++ found.unpaused, reasons)
    end
  end

  @doc "The same in words: that they would die, and that a change is refused because of them."
  @spec casualty_lines([Casualties.t()]) :: [String.t()]
  defdelegate casualty_lines(casualties), to: Casualties, as: :lines

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
  defp needed(found, :suspend), do: found

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
  @spec run(Ready.t(), (pid() -> term())) :: {:ok, done()} | {:error, failure()}
  def run(%Ready{} = ready, held \\ fn _engine -> :ok end) do
    ready = %{ready | signal: Signal.new(), load: Signal.new()}
    {engine, monitor} = :erlang.spawn_opt(Engine, :init, [self(), ready], engine_options())
    {guard, guard_monitor} = Guard.start(engine, ending(ready))
    send(engine, {:go, self(), guard})
    result = await(engine, monitor, held, guard_monitor, ready)
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

  defp failure(reason, text, loaded? \\ false) do
    %{reason: reason, text: text, pause_us: 0, loaded?: loaded?, phases: []}
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
    found = Discovery.find([change])
    Enum.map(found.targets ++ found.unpaused, & &1.pid)
  end

  @doc "The supervisors whose child specs come from a module."
  @spec supervisors(module()) :: [pid()]
  def supervisors(module) do
    change = %Change{module: module, kind: :replace, exports: [], md5: nil}
    for %{kind: :supervisor, pid: pid} <- Discovery.find([change]).targets, do: pid
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
  defp await(engine, monitor, held, guard_monitor, ready) do
    receive do
      {^engine, :held} ->
        held.(engine)
        await(engine, monitor, held, guard_monitor, ready)

      # Whoever asked for the swap does not wait until everybody stands still.
      {:decided, {:take_back, _why} = decision} ->
        :ok = decide(engine, decision)
        await(engine, monitor, held, guard_monitor, ready)

      {^engine, {:done, result}} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^engine, reason} ->
        await_guard(guard_monitor)
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

    failure(
      :engine_died,
      "the swap engine died (#{short(reason)}), nothing was loaded, all were resumed#{left}"
    )
  end

  defp engine_died(reason, _job, true) do
    failure(
      :engine_died,
      "the swap engine died (#{short(reason)}) after the load, all were resumed",
      true
    )
  end

  defp short(term), do: inspect(term, limit: 10, printable_limit: 200)
end
