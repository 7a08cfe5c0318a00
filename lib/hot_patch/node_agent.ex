defmodule HotPatch.NodeAgent do
  @moduledoc false
  # The agent of a node: it checks, prepares, commits and aborts what a coordinator asks.
  #
  # Functions here are called on the agent's node (the coordinator uses :erpc) and do their
  # work in the calling process. Who holds this node is kept by HotPatch.NodeAgent.Server.

  alias HotPatch.Host.Attachment
  alias HotPatch.Host.Config
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.Commit
  alias HotPatch.NodeAgent.Coordinators
  alias HotPatch.NodeAgent.History
  alias HotPatch.NodeAgent.Inbox
  alias HotPatch.NodeAgent.Inventory
  alias HotPatch.NodeAgent.KnownNodes
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.PlanBuilder
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Rehearsal
  alias HotPatch.NodeAgent.Releases
  alias HotPatch.NodeAgent.RestartNeed
  alias HotPatch.NodeAgent.Server
  alias HotPatch.NodeAgent.Upgrade
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.NodeAgent.Vitals
  alias HotPatch.NodeInfo
  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Store
  alias HotPatch.Strategy
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Support.Quiet
  alias HotPatch.Swap
  alias HotPatch.Telemetry

  # Raised whenever what nodes say to each other changes its meaning.
  @protocol 9

  # Milliseconds in which a rehearsal that is to end does so.
  @rehearsal_ends_within 10_000

  # Milliseconds that processes have to leave the old code of an earlier change, and between two looks.
  @leaves_within 2_000
  @look_again 50

  # Why this node is behind the others, if it is.
  @behind {__MODULE__, :behind}

  @type vote ::
          {:yes, [Report.FileResult.t()]} | {:no, [Report.FileResult.t()]} | {:failed, String.t()}

  @doc "Version of the language that agents and coordinators speak."
  @spec protocol() :: pos_integer()
  def protocol, do: @protocol

  @doc "What is to be known about this node, and what it knows of patches."
  @spec overview(History.wanted()) :: {NodeInfo.t(), [History.patch()]}
  def overview(wanted) do
    state = Store.Applied.state()
    {info(state), History.patches(state, wanted)}
  end

  @doc "What is to be known about this node."
  @spec info() :: NodeInfo.t()
  def info, do: info(Store.Applied.state())

  defp info(state) do
    holder = holder()

    %NodeInfo{
      node: node(),
      managed?: true,
      attached?: Attachment.here() != nil,
      protocol: @protocol,
      roles: Config.current().roles,
      release: Release.current(),
      otp: System.otp_release(),
      elixir: System.version(),
      applied: Enum.map(state.stack, & &1.id),
      restart_needed: RestartNeed.list(state) ++ Upgrade.Releases.start_differs(),
      behind: :persistent_term.get(@behind, nil),
      forced: for(%{forced?: true, id: id} <- state.stack, do: id),
      memory_only: for(record <- state.stack, Store.Applied.memory_only?(record), do: record.id),
      archives?: HotPatch.Bridge.check() == :ok,
      warnings: Config.warnings() ++ if(holder == nil, do: Store.Recovery.unfinished(), else: []),
      operation: Operation.holder(holder),
      known: KnownNodes.known(state),
      dismissed: KnownNodes.dismissed()
    }
  end

  @doc "Takes note that a node has left for good."
  @spec dismiss(node(), DateTime.t()) :: :ok | {:error, File.posix()}
  defdelegate dismiss(node, at), to: KnownNodes

  @doc "Who runs old code on this node."
  @spec stragglers() :: [HotPatch.Straggler.t()]
  defdelegate stragglers(), to: Swap

  @doc "Which releases there are on this node."
  @spec releases() :: [HotPatch.InstalledRelease.t()]
  defdelegate releases(), to: Releases, as: :list

  @doc "Why this node could not do with a release what is wanted; `:ok` if it can."
  @spec may_change_release(:make_permanent | :remove_release, String.t()) ::
          :ok | {:error, String.t()}
  def may_change_release(:make_permanent, version), do: Upgrade.Releases.may_be_permanent(version)
  def may_change_release(:remove_release, version), do: Upgrade.Releases.may_be_removed(version)

  @doc "Does it. The node is reserved for it by then."
  @spec change_release(
          :make_permanent | :remove_release,
          String.t(),
          Upgrade.Releases.facts()
        ) :: :ok | {:error, String.t()}
  def change_release(:make_permanent, version, facts),
    do: Upgrade.Releases.make_permanent(version, facts)

  def change_release(:remove_release, version, facts), do: Upgrade.Releases.remove(version, facts)

  @doc "Puts the files of a release beside what runs here, for a restart into it."
  @spec unpack(Payload.t()) :: :ok | {:no, [Report.FileResult.t()]} | {:error, String.t()}
  def unpack(payload) do
    with {:ok, payload} <- Inbox.whole(payload),
         {:no, verdicts} <- Quiet.run(fn -> Upgrade.Restart.unpack(payload) end),
         do: {:no, Enum.map(verdicts, &Verdict.to_report/1)}
  end

  @doc "Ends this VM, so that it starts in another release."
  @spec leave(Upgrade.Restart.order()) :: :ok | {:error, String.t()}
  defdelegate leave(order), to: Upgrade.Restart

  @doc "How a restart into a release stands on this node, and which release runs here."
  @spec restarted(String.t()) :: {Release.t(), :trying | :served | :taken_back | :none}
  def restarted(version), do: {Release.current(), Upgrade.Restart.state(version)}

  @doc "The number of the last restart into another release that is known here."
  @spec rolled_seq() :: non_neg_integer()
  defdelegate rolled_seq(), to: Store.Rolled, as: :seq

  @doc "Keeps by which restarts all nodes came to another release, or back: a node that was away follows them."
  @spec rolled([Store.Rolled.t()]) :: :ok | {:error, String.t()}
  def rolled(entries) do
    with {:error, posix} <- Store.Rolled.add(entries),
         do: {:error, "cannot write to which release nodes were restarted: #{posix}"}
  end

  @doc "Has this node go back from a release into which it was restarted, by another restart."
  @spec restart_back(String.t()) :: :ok | {:error, String.t()}
  defdelegate restart_back(version), to: Upgrade.Restart, as: :take_back

  @doc "An archive kept on this node."
  @spec archive(String.t()) :: {:ok, Store.Archives.t(), binary()} | :unknown | :damaged
  defdelegate archive(id), to: Store.Archives, as: :fetch

  @doc "Forgets an archive kept on this node."
  @spec forget(String.t()) :: :ok | :unknown | {:error, File.posix()}
  defdelegate forget(id), to: Store.Archives, as: :delete

  @doc "What this node knows of the operations on its release, for those that missed some."
  @spec history() :: History.history()
  defdelegate history(), to: History

  @doc "Tells by which nodes there is anything to ask `history/0` for."
  @spec fingerprint() :: {Release.t(), integer()}
  defdelegate fingerprint(), to: History

  @doc "What came to this node with a patch, for a node that missed it."
  @spec payload(String.t()) :: {:ok, Payload.t()} | :unknown
  defdelegate payload(id), to: History

  @doc """
  What a patch has replaced here: paths with their former bytes, nil for what it has added; and how it
  is to go back.
  """
  @spec former(String.t()) :: {:ok, [{Path.t(), binary() | nil}], History.way()} | :unknown
  defdelegate former(id), to: History

  @doc "Forgets decisions of this node that have become operations like others."
  @spec tidy_decisions() :: :ok
  def tidy_decisions, do: Store.Decisions.tidy(Store.Applied.state())

  @doc "Begins to look at this node, for a coordinator that is about to change it."
  @spec watch(Vitals.job()) :: :ok
  defdelegate watch(job), to: Vitals, as: :start

  @doc "The change is about to be made: from here on what is logged counts."
  @spec watch_counts() :: :ok
  defdelegate watch_counts(), to: Vitals, as: :counts

  @doc "The change is made, and so many processes were ended by it."
  @spec watch_changed(non_neg_integer()) :: :ok
  defdelegate watch_changed(ended), to: Vitals, as: :changed

  @doc "What was seen since; nil if nobody looks."
  @spec figures() :: [Vitals.figure()] | nil
  defdelegate figures(), to: Vitals

  @doc "Ends the look."
  @spec unwatch() :: :ok
  defdelegate unwatch(), to: Vitals, as: :stop

  @doc "The journal of this node."
  @spec journal() :: [Store.Journal.entry()]
  defdelegate journal(), to: Store.Journal, as: :list

  @doc "Every module that runs here, with its digests."
  @spec census() :: [HotPatch.NodeAgent.ModuleDigests.line()]
  defdelegate census(), to: HotPatch.NodeAgent.ModuleDigests, as: :take

  @doc "The files of modules that run here and have to do with a change."
  @spec related(Inventory.query()) :: Inventory.related()
  defdelegate related(query), to: Inventory

  @doc "Takes note of operations that others have seen and that change nothing here."
  @spec note([Store.Applied.op()]) :: :ok | {:error, String.t()}
  def note([]), do: :ok
  def note(ops), do: GenServer.call(Server, {:note, ops}, :infinity)

  @doc "Ends on disk what an operation could not, if nothing is going on here now."
  @spec settle() :: :ok | {:error, String.t()}
  def settle, do: GenServer.call(Server, :settle, :infinity)

  @doc "There is nothing that this node could do to be as the others."
  @spec level() :: :ok
  def level, do: GenServer.call(Server, :level, :infinity)

  @doc "Says why this node is behind the others, for `nodes/0`; nil if it is not."
  @spec behind(String.t() | nil) :: :ok
  def behind(text) do
    # Written only when it changes: a write makes every process look.
    if :persistent_term.get(@behind, nil) != text, do: :persistent_term.put(@behind, text)
    :ok
  end

  @doc "Has a process of this node told `{HotPatch.NodeAgent, :ended}` whenever an operation has ended."
  @spec subscribe() :: :ok
  def subscribe, do: GenServer.call(Server, {:subscribe, self()})

  @doc "Which of these pieces of payloads this node does not have."
  @spec lacking([Store.Blobs.digest()]) :: [Store.Blobs.digest()]
  defdelegate lacking(digests), to: Inbox

  @doc "Takes parts of pieces in."
  @spec take_parts([Inbox.part()]) :: :ok | {:error, String.t()}
  defdelegate take_parts(parts), to: Inbox, as: :put

  @doc "Judges a patch whose pieces have been sent, changing nothing."
  @spec check(Payload.t()) ::
          {:ok, %{files: [Report.FileResult.t()], warnings: [String.t()], strategy: Strategy.t()}}
          | {:error, String.t()}
  def check(payload) do
    with {:ok, payload} <- Inbox.whole(payload) do
      quietly_once(fn ->
        examination = Check.run(payload)

        {:ok,
         %{
           files: report(examination),
           warnings: PlanBuilder.warnings(examination),
           strategy: examination.strategy
         }}
      end)
    end
  end

  # Nothing waits for it but whoever asked.
  defp quietly_once(fun), do: Quiet.run(fn -> Store.Applied.read_once(fun) end)

  @doc """
  Judges a patch and says what applying it would do here, changing nothing; and which modules run
  here, for the comparison with what the patch brings.
  """
  @spec foresee(Payload.t()) ::
          {:ok, {HotPatch.Plan.NodePlan.t(), Inventory.summary()}} | {:error, String.t()}
  def foresee(payload) do
    with {:ok, payload} <- Inbox.whole(payload) do
      plan = quietly_once(fn -> payload |> Check.run() |> PlanBuilder.plan() end)
      {:ok, {plan, Inventory.summary()}}
    end
  end

  @doc """
  Tries on this node what an operation would do to the processes that there are, changing nothing. The
  node is reserved for it by then.
  """
  @spec rehearse(Operation.t(), Payload.t(), Rehearsal.how()) ::
          {:ok, HotPatch.Rehearsal.NodeResult.t()} | {:error, String.t()}
  def rehearse(operation, payload, how) do
    Telemetry.span(:rehearsal, Map.take(operation, [:patch, :by]), fn ->
      result =
        with {:ok, payload} <- Inbox.whole(payload), do: Rehearsal.run(operation, payload, how)

      {measurements, outcome} = Rehearsal.measured(result)
      {result, measurements, %{outcome: outcome}}
    end)
  end

  @doc "Ends the rehearsal of this node, and waits until nothing is left of it."
  @spec stop_rehearsal() :: :ok | :late
  def stop_rehearsal, do: Swap.Rehearsal.stop(@rehearsal_ends_within)

  @doc """
  Takes this node for an operation, if nobody else has it; gives the number of the last
  operation known here, and what this node's clock says (microseconds).
  """
  @spec reserve(Operation.t()) ::
          {:ok, {seq :: non_neg_integer(), clock_us :: integer()}}
          | {:busy, Server.holder()}
          | {:unfinished, String.t()}
  def reserve(operation) do
    with :ok <- GenServer.call(Server, {:reserve, operation}, :infinity) do
      # Of a coordinator that is gone: what it has loaded must be out of the way.
      _ = stop_rehearsal()
      FaultPoint.point(:reserved)
      {:ok, {History.seq(), System.system_time(:microsecond)}}
    end
  end

  @doc """
  Keeps this node for all operations of one coordinator, until that unlocks it or dies; gives
  the number of the last operation known here.
  """
  @spec lock(Server.holder()) :: {:ok, seq :: non_neg_integer()} | {:busy, Server.holder()}
  def lock(holder) do
    with :ok <- GenServer.call(Server, {:lock, holder}, :infinity), do: {:ok, History.seq()}
  end

  @doc "Ends what `lock/1` began."
  @spec unlock(pid()) :: :ok
  def unlock(coordinator), do: GenServer.call(Server, {:unlock, coordinator}, :infinity)

  @doc "The number of the last operation known here."
  @spec seq() :: non_neg_integer()
  defdelegate seq(), to: History

  @doc "Whether an operation is known here to have been decided, or to have been carried out."
  @spec decided?(String.t()) :: boolean()
  def decided?(id), do: History.decided?(id) or GenServer.call(Server, {:finishing?, id})

  @doc "First half of an apply: everything that can fail without harm."
  @spec prepare(Operation.t(), Payload.t()) :: vote()
  def prepare(operation, payload) do
    Telemetry.span(:prepare, Map.take(operation, [:patch, :by]), fn ->
      vote = vote(operation, payload)
      {vote, %{}, %{vote: elem(vote, 0)}}
    end)
  end

  defp vote(operation, payload) do
    with {:ok, payload} <- Inbox.whole(payload),
         {:ok, preparation} <- prepare_quietly(operation, payload) do
      FaultPoint.point(:prepared)
      kept(GenServer.call(Server, {:prepared, operation, preparation}), preparation)
    else
      {:no, verdicts} -> {:no, Enum.map(verdicts, &Verdict.to_report/1)}
      {:error, text} -> {:failed, text}
    end
  end

  # Who takes back at once what was wrong would else be refused.
  defp prepare_quietly(operation, payload),
    do: Quiet.run(fn -> prepare_until(now() + @leaves_within, operation, payload) end)

  defp prepare_until(deadline, operation, payload) do
    prepared = payload |> Check.run() |> Prepare.run(operation, payload)

    with {:no, verdicts} <- prepared,
         true <- Prepare.old_code?(verdicts) and now() < deadline do
      receive do
      after
        @look_again -> prepare_until(deadline, operation, payload)
      end
    else
      _ready_or_refused -> prepared
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  @doc """
  Second half: makes what was prepared current. Answers `:held` when all is changed and
  everybody concerned stands still until `decide/2`, or how it ended if it failed.
  """
  @spec commit(reference()) :: :held | {:ended, Commit.result()} | {:error, String.t()}
  def commit(ref), do: GenServer.call(Server, {:commit, ref}, :infinity)

  @doc "Ends a commit that is held. Answers when it has ended."
  @spec decide(reference(), Commit.decision()) :: {:ended, Commit.result()} | {:error, String.t()}
  def decide(ref, decision), do: GenServer.call(Server, {:decide, ref, decision}, :infinity)

  @doc "Lets go of what was prepared; the node is as it was."
  @spec abort(reference()) :: :ok
  def abort(ref), do: GenServer.call(Server, {:abort, ref})

  @doc "What is led from this node."
  @spec led() :: [Coordinators.facts()]
  defdelegate led(), to: Coordinators, as: :list

  @doc "Whether an operation is led from this node, also where HotPatch was started anew since."
  @spec leads?(String.t()) :: boolean()
  defdelegate leads?(id), to: Coordinators

  @doc "Tells what is led from this node to stop, and waits for its end."
  @spec cancel(String.t(), Coordinators.order(), timeout()) ::
          {:ended, term()} | :unknown | :ending
  defdelegate cancel(id, order, within), to: Coordinators

  @doc "Who holds this node, if anyone."
  @spec holder() :: Server.holder() | nil
  def holder, do: GenServer.call(Server, :holder)

  defp report(examination), do: Enum.map(examination.verdicts, &Verdict.to_report/1)

  defp kept(:ok, preparation), do: {:yes, report(preparation.examination)}

  # The coordinator died while this node prepared.
  defp kept(:gone, preparation) do
    Prepare.discard(preparation)
    {:failed, "this node was no longer reserved for the operation"}
  end
end
