defmodule HotPatch.Swap do
  @moduledoc false
  # Makes prepared modules current in the memory of this node: finds the processes that
  # run them, suspends those, loads, changes their state, resumes. Knows no disk and no
  # other node.
  #
  # This module is the boundary: `find/1` before, `run/1` for the change itself. The work
  # is done in a process of its own (HotPatch.Swap.Engine), watched by another
  # (HotPatch.Swap.Guard), so that no process stays suspended whoever dies.

  alias HotPatch.Swap.Engine
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Stragglers

  defmodule Change do
    @moduledoc false
    # One module of a swap. `exports` are those of the new code. A module that is added
    # has no old version.
    @enforce_keys [:module, :kind, :exports]
    defstruct [:module, :kind, :exports, :old_vsn]

    @type t :: %__MODULE__{
            module: module(),
            kind: :replace | :add,
            exports: [{String.t(), arity()}],
            old_vsn: term()
          }
  end

  defmodule Job do
    @moduledoc false
    # `prepared` and `previous` are results of code:prepare_loading/1, of the new code and
    # of the code that it replaces; `previous` is nil where the old files are not at hand.
    @enforce_keys [:changes, :prepared, :pause_timeout]
    defstruct [:changes, :prepared, :previous, :pause_timeout]

    @type t :: %__MODULE__{
            changes: [Change.t()],
            prepared: term(),
            previous: term() | nil,
            pause_timeout: pos_integer()
          }
  end

  @typedoc "`pause_us`: first suspend to last resume; `suspended`: how many processes."
  @type done :: %{pause_us: non_neg_integer(), suspended: non_neg_integer()}

  @typedoc "Nothing was loaded, or all was taken back; the text names the process at fault."
  @type failure :: %{reason: atom(), text: String.t(), pause_us: non_neg_integer()}

  @typedoc """
  Asked when everything is loaded and changed and everybody still suspended: finish, or
  take all back, and why.
  """
  @type decide :: (() -> :finish | {:take_back, String.t()})

  @doc """
  The processes that a swap of these modules would suspend, and event managers too busy
  to say whether they are among them. Changes nothing.
  """
  @spec find([Change.t()]) :: {[Processes.target()], silent :: [pid()]}
  def find(changes) do
    found = Processes.find(changes)
    {found.targets, found.silent}
  end

  @doc "Processes that run these modules and can be neither suspended nor moved."
  @spec bare([Change.t()], [Processes.target()]) :: [{pid(), module()}]
  def bare(changes, targets), do: Processes.bare(changes, targets)

  @doc """
  Runs a swap to its end, good or bad. Old code is purged softly beforehand. `decide` is
  called in the calling process, at most once.
  """
  @spec run(Job.t(), decide()) :: {:ok, done()} | {:error, failure()}
  def run(%Job{} = job, decide \\ fn -> :finish end) do
    replaced = for %Change{kind: :replace, module: module} <- job.changes, do: module

    with {:held, []} <- {:held, Enum.reject(replaced, &:code.soft_purge/1)},
         %{silent: []} = found <- Processes.find(job.changes) do
      start(job, found, decide)
    else
      {:held, modules} -> {:error, failure(:old_code, held_text(modules))}
      %{silent: silent} -> {:error, failure(:busy, silent_text(silent))}
    end
  end

  defp failure(reason, text), do: %{reason: reason, text: text, pause_us: 0}

  @doc "Purges the code that a swap has made old, softly, and names those who still run it."
  @spec purge([module()]) :: [Stragglers.straggler()]
  def purge(modules) do
    modules |> Enum.reject(&:code.soft_purge/1) |> Stragglers.of()
  end

  # Neither linked: the engine must outlive its caller long enough to resume everyone, the
  # guard must outlive the engine.
  defp start(job, found, decide) do
    {engine, monitor} = spawn_monitor(Engine, :init, [self(), job, found])
    guard = Guard.start(engine)
    send(engine, {:go, self(), guard})
    await(engine, monitor, decide)
  end

  defp await(engine, monitor, decide) do
    receive do
      {^engine, :held} ->
        send(engine, {:decided, decide.()})
        await(engine, monitor, decide)

      {^engine, {:done, result}} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^engine, reason} ->
        text = "the swap engine died (#{inspect(reason)}); all processes were resumed"
        {:error, failure(:engine_died, text)}
    end
  end

  defp held_text(modules) do
    "old code of #{Enum.map_join(modules, ", ", &inspect/1)} is still in use by processes: " <>
      "it can only be replaced when they have left it"
  end

  defp silent_text(pids) do
    "the event managers #{Enum.map_join(pids, ", ", &inspect/1)} were too busy to name their " <>
      "handlers, nothing was loaded: try again"
  end
end
