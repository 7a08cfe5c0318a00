defmodule HotPatch.Agent do
  @moduledoc false
  # The agent of a node: it checks, prepares, commits and aborts what a coordinator asks.
  #
  # Functions here are called on the agent's node (the coordinator uses :erpc) and do their
  # work in the calling process. The server only keeps who holds this node, what was
  # prepared for whom, and lets go of it when the coordinator dies. The commit alone runs
  # in a process that the server starts: it must end also when the coordinator is gone.
  #
  #     idle -reserve-> reserved -prepared-> prepared -commit-> committing -held-> held
  #     held -decide-> deciding -ended-> idle
  #
  # Abort, and the death of the coordinator, lead back to idle from the first two, and from
  # the others by way of taking back what was loaded. A commit that fails by itself ends
  # without being held.

  use GenServer

  alias HotPatch.Agent.Commit
  alias HotPatch.Agent.Examination
  alias HotPatch.Agent.Foresight
  alias HotPatch.Agent.Past
  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.Preparation
  alias HotPatch.Agent.Verdict
  alias HotPatch.Fault
  alias HotPatch.NodeInfo
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Store
  alias HotPatch.Swap
  alias HotPatch.Telemetry

  require Logger

  # Raised whenever what nodes say to each other changes its meaning.
  @protocol 2

  # Why this node is behind the others, if it is.
  @behind {__MODULE__, :behind}

  @typedoc """
  One apply or rollback: known by its ref, owned by the coordinator's process. `id` and `seq`
  are what the journals and the other nodes know it by; `seq` is settled when all nodes are
  reserved, and `scope` is `:all` unless nodes were named. `catching_up`: on this node alone,
  for what it has missed, or to make room for that.
  """
  @type operation :: %{
          ref: reference(),
          id: String.t(),
          seq: pos_integer() | nil,
          kind: :apply | :rollback,
          scope: :all | [node()],
          cumulative?: boolean(),
          about: map() | nil,
          coordinator: pid(),
          patch: String.t(),
          by: String.t(),
          reason: String.t() | nil,
          transition: Swap.transition(),
          purge: :soft | :force,
          pause_timeout: pos_integer(),
          hold_timeout: pos_integer(),
          catching_up: nil | :missed | :room
        }

  @type vote ::
          {:yes, [Report.File.t()]} | {:no, [Report.File.t()]} | {:failed, String.t()}

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Version of the language that agents and coordinators speak."
  @spec protocol() :: pos_integer()
  def protocol, do: @protocol

  @doc "What is to be known about this node."
  @spec info() :: NodeInfo.t()
  def info do
    applied = Store.Applied.list()

    %NodeInfo{
      node: node(),
      managed?: true,
      protocol: @protocol,
      release: Release.current(),
      otp: System.otp_release(),
      elixir: System.version(),
      applied: Enum.map(applied, & &1.id),
      restart_needed: for(%{restart: reason} when reason != nil <- applied, do: reason),
      behind: :persistent_term.get(@behind, nil),
      forced: for(%{forced?: true, id: id} <- applied, do: id),
      archives?: HotPatch.Native.status() == :ok,
      operation: holder()
    }
  end

  @doc "Who runs old code on this node."
  @spec stragglers() :: [HotPatch.Straggler.t()]
  defdelegate stragglers(), to: Swap

  @doc "Records of the archives kept on this node."
  @spec archives() :: [Store.Archives.record()]
  defdelegate archives(), to: Store.Archives, as: :list

  @doc "An archive kept on this node."
  @spec archive(String.t()) :: {:ok, Store.Archives.record(), binary()} | :unknown | :damaged
  defdelegate archive(id), to: Store.Archives, as: :fetch

  @doc "Forgets an archive kept on this node."
  @spec forget(String.t()) :: :ok | :unknown | {:error, File.posix()}
  defdelegate forget(id), to: Store.Archives, as: :delete

  @doc "What this node knows of the operations on its release, for those that missed some."
  @spec history() :: Past.history()
  defdelegate history(), to: Past

  @doc "Tells by which nodes there is anything to ask `history/0` for."
  @spec fingerprint() :: {Release.t(), integer()}
  defdelegate fingerprint(), to: Past

  @doc "What came to this node with a patch, for a node that missed it."
  @spec payload(String.t()) :: {:ok, Payload.t()} | :unknown
  defdelegate payload(id), to: Past

  @doc "What a patch has replaced here: paths with their former bytes, nil for what it has added."
  @spec former(String.t()) :: {:ok, [{Path.t(), binary() | nil}]} | :unknown
  defdelegate former(id), to: Past

  @doc "The journal of this node."
  @spec journal() :: [Store.Journal.entry()]
  defdelegate journal(), to: Store.Journal, as: :list

  @doc "Every module that runs here, with its digests."
  @spec census() :: [HotPatch.Agent.Census.line()]
  defdelegate census(), to: HotPatch.Agent.Census, as: :take

  @doc "Takes note of operations that others have seen and that change nothing here."
  @spec note([Store.Applied.op()]) :: :ok | {:error, String.t()}
  def note([]), do: :ok
  def note(ops), do: GenServer.call(__MODULE__, {:note, ops}, :infinity)

  @doc "Ends on disk what an operation could not, if nothing is going on here now."
  @spec settle() :: :ok | {:error, String.t()}
  def settle, do: GenServer.call(__MODULE__, :settle, :infinity)

  @doc "Says why this node is behind the others, for `nodes/0`; nil if it is not."
  @spec behind(String.t() | nil) :: :ok
  def behind(text) do
    # Written only when it changes: a write makes every process look.
    if :persistent_term.get(@behind, nil) != text, do: :persistent_term.put(@behind, text)
    :ok
  end

  @doc "Has a process of this node told `{HotPatch.Agent, :ended}` whenever an operation has ended."
  @spec subscribe() :: :ok
  def subscribe, do: GenServer.call(__MODULE__, {:subscribe, self()})

  @doc "Judges a patch, changing nothing."
  @spec check(Payload.t()) :: [Report.File.t()]
  def check(payload), do: payload |> Examination.run() |> report()

  @doc "Judges a patch and says what applying it would do here, changing nothing."
  @spec foresee(Payload.t()) :: HotPatch.Plan.Node.t()
  def foresee(payload), do: payload |> Examination.run() |> Foresight.plan()

  @doc """
  Takes this node for an operation, if nobody else has it; gives the number of the last
  operation known here.
  """
  @spec reserve(operation()) ::
          {:ok, non_neg_integer()} | {:busy, operation()} | {:unfinished, String.t()}
  def reserve(operation) do
    with :ok <- GenServer.call(__MODULE__, {:reserve, operation}, :infinity) do
      Fault.point(:reserved)
      {:ok, Store.Applied.seq()}
    end
  end

  @doc "First half of an apply: everything that can fail without harm."
  @spec prepare(operation(), Payload.t()) :: vote()
  def prepare(operation, payload) do
    Telemetry.span(:prepare, Map.take(operation, [:patch, :by]), fn ->
      vote = vote(operation, payload)
      {vote, %{}, %{vote: elem(vote, 0)}}
    end)
  end

  defp vote(operation, payload) do
    case payload |> Examination.run() |> Preparation.run(operation, payload) do
      {:ok, preparation} ->
        Fault.point(:prepared)
        kept(GenServer.call(__MODULE__, {:prepared, operation, preparation}), preparation)

      {:no, verdicts} ->
        {:no, Enum.map(verdicts, &Verdict.to_report/1)}
    end
  end

  @doc """
  Second half: makes what was prepared current. Answers `:held` when all is changed and
  everybody concerned stands still until `decide/2`, or how it ended if it failed.
  """
  @spec commit(reference()) :: :held | {:ended, Commit.result()} | {:error, String.t()}
  def commit(ref), do: GenServer.call(__MODULE__, {:commit, ref}, :infinity)

  @doc "Ends a commit that is held. Answers when it has ended."
  @spec decide(reference(), Commit.decision()) :: {:ended, Commit.result()} | {:error, String.t()}
  def decide(ref, decision), do: GenServer.call(__MODULE__, {:decide, ref, decision}, :infinity)

  @doc "Lets go of what was prepared; the node is as it was."
  @spec abort(reference()) :: :ok
  def abort(ref), do: GenServer.call(__MODULE__, {:abort, ref})

  @doc "Who holds this node, if anyone."
  @spec holder() :: operation() | nil
  def holder, do: GenServer.call(__MODULE__, :holder)

  defp report(examination), do: Enum.map(examination.verdicts, &Verdict.to_report/1)

  defp kept(:ok, preparation), do: {:yes, report(preparation.examination)}

  # The coordinator died while this node prepared.
  defp kept(:gone, preparation) do
    Preparation.discard(preparation)
    {:failed, "this node was no longer reserved for the operation"}
  end

  # The server: who holds this node.

  # An agent that was killed may have left files behind; so may a node. Files of a commit
  # that goes on without its agent are that commit's.
  @impl GenServer
  def init([]) do
    case Process.whereis(Commit) do
      nil ->
        _ = Store.Recovery.run()
        :ok = Swap.Shadow.unload_leftovers()
        {:ok, idle()}

      pid ->
        worker = {pid, Process.monitor(pid)}
        {:ok, %{idle() | phase: :orphaned, operation: Commit.operation(pid), worker: worker}}
    end
  end

  @impl GenServer
  def handle_call({:reserve, operation}, _from, %{phase: :idle} = state) do
    case settled() do
      :ok ->
        monitor = Process.monitor(operation.coordinator)
        {:reply, :ok, %{idle() | phase: :reserved, operation: operation, monitor: monitor}}

      {:error, text} ->
        {:reply, {:unfinished, text}, state}
    end
  end

  def handle_call({:reserve, _operation}, _from, state) do
    {:reply, {:busy, state.operation}, state}
  end

  def handle_call({:prepared, operation, preparation}, _from, state) do
    case state do
      %{phase: :reserved, operation: %{ref: ref}} when ref == operation.ref ->
        {:reply, :ok, %{state | phase: :prepared, operation: operation, preparation: preparation}}

      _ ->
        {:reply, :gone, state}
    end
  end

  def handle_call({:commit, ref}, from, %{phase: :prepared, operation: %{ref: ref}} = state) do
    worker = spawn_monitor(Commit, :run, [self(), state.preparation])
    {:noreply, %{state | phase: :committing, worker: worker, caller: from}}
  end

  def handle_call({:commit, _ref}, _from, state), do: {:reply, nothing(), state}

  def handle_call({:decide, ref, decision}, from, %{operation: %{ref: ref}} = state)
      when state.phase == :held do
    Fault.point(:decided)
    {:noreply, tell(%{state | caller: from}, decision)}
  end

  # It did not wait: the deadline came first.
  def handle_call({:decide, _ref, _decision}, _from, state), do: {:reply, nothing(), state}

  def handle_call({:abort, ref}, _from, %{operation: %{ref: ref}} = state) do
    {:reply, :ok, let_go(state)}
  end

  def handle_call({:abort, _ref}, _from, state), do: {:reply, :ok, state}
  def handle_call(:holder, _from, state), do: {:reply, state.operation, state}

  # Nobody else writes the state now.
  def handle_call({:note, ops}, _from, %{phase: :idle} = state) do
    applied = Enum.reduce(ops, Store.Applied.state(), &Store.Applied.noted(&2, &1))

    case Store.Applied.put(applied) do
      :ok -> {:reply, :ok, state}
      {:error, posix} -> {:reply, {:error, "cannot write the state: #{posix}"}, state}
    end
  end

  def handle_call({:note, _ops}, _from, state),
    do: {:reply, {:error, "an operation has begun meanwhile"}, state}

  def handle_call(:settle, _from, %{phase: :idle} = state), do: {:reply, settled(), state}
  def handle_call(:settle, _from, state), do: {:reply, :ok, state}

  def handle_call({:subscribe, pid}, _from, state) do
    Process.put(:subscriber, pid)
    {:reply, :ok, state}
  end

  @impl GenServer
  def handle_info({Commit, :held, decider}, %{phase: :committing} = state) do
    GenServer.reply(state.caller, :held)
    state = %{state | phase: :held, caller: nil, decider: decider}
    {:noreply, if(state.orphaned?, do: tell(state, coordinator_gone()), else: state)}
  end

  def handle_info({Commit, {:ended, result}}, %{worker: {_pid, _monitor}} = state) do
    {:noreply, ended(state, {:ended, result})}
  end

  # Its files may be half in place: as at a start, what was decided is finished.
  def handle_info({:DOWN, monitor, _, _, reason}, %{worker: {_pid, monitor}} = state) do
    # Not what was decided already: that is finished below.
    if state.preparation && not decided?(state.preparation),
      do: Preparation.discard(state.preparation)

    _ = Store.Recovery.run()
    {:noreply, ended(state, {:error, "the commit on #{node()} died: #{inspect(reason)}"})}
  end

  def handle_info({:DOWN, monitor, _, _, _reason}, %{monitor: monitor} = state)
      when monitor != nil do
    Logger.warning("HotPatch: the coordinator of #{state.operation.patch} is gone",
      patch: state.operation.patch
    )

    {:noreply, orphaned(state)}
  end

  def handle_info(_late_answer, state), do: {:noreply, state}

  # Its state would be built upon one that is about to change.
  defp settled do
    case Store.Recovery.run() do
      [] -> :ok
      [{_intent, {path, reason}} | _] -> {:error, "#{path}: #{inspect(reason)}"}
    end
  end

  defp decided?(preparation) do
    Enum.any?(Store.Files.pending(), &(&1.tag == preparation.staged.tag and &1.state == :decided))
  end

  defp orphaned(%{phase: :held} = state), do: tell(state, coordinator_gone())
  defp orphaned(%{phase: :committing} = state), do: %{state | orphaned?: true}
  defp orphaned(state), do: let_go(state)

  defp coordinator_gone, do: {:take_back, "the coordinator died before it decided"}

  defp tell(%{decider: decider} = state, decision) do
    :ok = Swap.decide(decider, decision)
    %{state | phase: :deciding}
  end

  defp ended(state, answer) do
    if state.caller, do: GenServer.reply(state.caller, answer)
    {_pid, monitor} = state.worker
    Process.demonitor(monitor, [:flush])
    tell_subscriber(state.operation)
    Fault.point(:ended)
    done(state)
  end

  # Who catches up knows by itself when that has ended, and would try again at once for ever.
  defp tell_subscriber(%{catching_up: nil}) do
    if pid = Process.get(:subscriber), do: send(pid, {__MODULE__, :ended})
  end

  defp tell_subscriber(_operation), do: :ok

  defp nothing, do: {:error, "nothing is prepared or held for this operation on #{node()}"}

  # A commit that has begun is not let go of: it ends by itself.
  defp let_go(%{phase: phase} = state) when phase in [:committing, :held, :deciding, :orphaned],
    do: state

  defp let_go(state) do
    if state.preparation, do: Preparation.discard(state.preparation)
    done(state)
  end

  defp done(state) do
    if state.monitor, do: Process.demonitor(state.monitor, [:flush])
    idle()
  end

  defp idle do
    %{
      phase: :idle,
      operation: nil,
      monitor: nil,
      preparation: nil,
      worker: nil,
      caller: nil,
      decider: nil,
      orphaned?: false
    }
  end
end
