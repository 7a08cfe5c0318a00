defmodule HotPatch.Test.Faults.Schedule do
  @moduledoc false
  # One operation of several nodes, with something that goes wrong on the way: what, where and when
  # by chance. Afterwards all must agree, and what the operator was told must be true.

  alias HotPatch.Error
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.Faults.Rig
  alias HotPatch.Test.Faults.Round
  alias HotPatch.Test.Faults.Strike

  @typedoc """
  When: the n-th time that the node comes to a step, or some time after the call, or some time after
  the canary is being watched.
  """
  @type moment ::
          {:step, FaultPoint.point(), nth :: pos_integer()}
          | {:instant, non_neg_integer()}
          | {:watched, non_neg_integer()}

  @typedoc """
  What: the node is killed, or what is at work there crashes, or the coordinator's process is killed,
  wherever that is, or the node stands still for a while, cannot write what it has decided, is cut
  off, says that it is ill. Or a node joins, or another operator has the same idea.
  """
  @type what ::
          :kill | :crash | :coordinator | :suspend | :unwritable | :cut | :ill | :join | :two

  @type t :: %{
          operation: :apply | :rollback | :canary,
          on_failure: :rollback | :keep,
          coordinator: pos_integer(),
          victim: pos_integer(),
          what: what(),
          moment: moment(),
          lasts: pos_integer()
        }

  import HotPatch.Test.Until

  @whats [:kill, :crash, :coordinator, :suspend, :unwritable, :cut, :ill, :join, :two]
  @longest_ms 400

  # Less than a call may wait, with what a decision may take beyond it.
  @pause_timeout 1_500
  @health {:persistent_term, :get, [:hot_patch_test_health, :ok]}

  # Nothing but what is to go wrong shall be too much.
  @watch [
    baseline: 0,
    duration: 400,
    crashes: 100_000,
    errors: 100_000,
    restarts: 100_000,
    run_queue: 100_000,
    mailboxes: 10_000_000,
    health: @health
  ]

  @doc "One by chance; the caller has seeded the generator."
  @spec random(pos_integer()) :: t()
  def random(nodes) do
    what = Enum.random(@whats)
    operation = if what == :ill, do: :canary, else: Enum.random([:apply, :rollback, :canary])

    %{
      operation: operation,
      on_failure: Enum.random([:rollback, :rollback, :keep]),
      coordinator: :rand.uniform(nodes),
      victim: :rand.uniform(nodes),
      what: what,
      moment: moment(operation, what),
      lasts: 200 + :rand.uniform(2_800)
    }
  end

  defp moment(:canary, what) when what != :unwritable do
    if :rand.uniform(3) == 1, do: {:watched, :rand.uniform(300) - 1}, else: moment(what)
  end

  defp moment(_operation, what), do: moment(what)

  # Where it is too late to be told of the decision, but not for the decision.
  defp moment(:unwritable), do: {:step, :held, :rand.uniform(2)}

  defp moment(what) when what in [:cut, :ill, :join, :two],
    do: {:instant, :rand.uniform(@longest_ms) - 1}

  defp moment(_what) do
    if :rand.uniform(3) == 1,
      do: {:instant, :rand.uniform(2 * @longest_ms) - 1},
      else: {:step, Enum.random(Round.steps()), :rand.uniform(2)}
  end

  @doc "In words."
  @spec describe(t()) :: String.t()
  def describe(schedule) do
    at =
      case schedule.moment do
        {:step, step, nth} -> "at #{inspect(step)} for the #{nth}. time"
        {:instant, ms} -> "after #{ms} ms"
        {:watched, ms} -> "after #{ms} ms of the watch"
      end

    "#{schedule.operation} (on_failure: #{schedule.on_failure}) from node #{schedule.coordinator}, " <>
      "#{schedule.what} of node #{schedule.victim} #{at}, for #{schedule.lasts} ms"
  end

  @doc "Carries it out. Raises if something is wrong after it."
  @spec run(Rig.t(), t()) :: Rig.t()
  def run(rig, schedule) do
    before = Round.ready(rig, kind(schedule))
    coordinator = Enum.at(Rig.nodes(rig), schedule.coordinator - 1)
    victim = victim(rig, schedule)
    arm(victim, schedule)
    task = Rig.begin(rig, coordinator, kind(schedule), options(schedule))
    {rig, more} = strike(rig, victim, task, schedule)
    results = [Rig.await(task) | more]
    rig = rig |> disarm(victim, schedule) |> back(victim)
    true = true?(results, schedule, before, agreed(rig, coordinator, hd(results), schedule))

    # Whatever it came to, the next operation works.
    build = Rig.agreed(rig)
    Rig.carry_out(rig, coordinator, if(build == :old, do: :apply, else: :rollback))
    leave(rig, schedule)
  end

  # Where the canary is told to keep what it has, whatever comes, the others have not got it.
  defp agreed(rig, coordinator, {:error, reason}, %{operation: :canary, on_failure: :keep})
       when not is_struct(reason, Error) or reason.reason != :rolled_back do
    :ok = Rig.carry_out(rig, coordinator, :apply)
    :apart
  end

  defp agreed(rig, _coordinator, _result, _schedule), do: Rig.agreed(rig)

  defp kind(%{operation: :rollback}), do: :rollback
  defp kind(_apply_or_canary), do: :apply

  defp options(%{operation: :rollback}), do: [pause_timeout: @pause_timeout, timeout: 20_000]

  defp options(%{operation: :apply} = schedule) do
    [pause_timeout: @pause_timeout, timeout: 20_000, on_failure: schedule.on_failure]
  end

  defp options(%{operation: :canary} = schedule),
    do: options(%{schedule | operation: :apply}) ++ [canary: 1, watch: @watch]

  # Only the coordinator's node comes to this step.
  defp victim(rig, %{moment: {:step, :decision_journaled, _}} = schedule),
    do: Enum.at(Rig.nodes(rig), schedule.coordinator - 1)

  defp victim(rig, schedule), do: Enum.at(Rig.nodes(rig), schedule.victim - 1)

  defp arm(victim, %{moment: {:step, step, nth}} = schedule),
    do: :ok = Cluster.call(victim, FaultPoint, :arm, [step, nth, action(schedule)])

  defp arm(_victim, _schedule), do: :ok

  defp action(%{what: :kill}), do: :kill
  defp action(%{what: :crash}), do: {:erlang, :error, [:armed]}
  defp action(%{what: :coordinator}), do: {Strike, :coordinator, []}
  defp action(%{what: :suspend, lasts: lasts}), do: {Strike, :suspend, [lasts]}
  defp action(%{what: :unwritable, lasts: lasts}), do: {Strike, :unwritable, [lasts]}

  # By itself, when the node comes there.
  defp strike(rig, _victim, _task, %{moment: {:step, _, _}}), do: {rig, []}

  defp strike(rig, victim, task, %{moment: {how, ms}} = schedule) do
    if how == :watched, do: until(fn -> watched_or_over?(victim, task) end, "a watch")
    Damage.pause(ms)
    strike_now(rig, victim, schedule)
  end

  defp watched_or_over?(victim, task) do
    not Process.alive?(task.pid) or
      Enum.any?(Rig.hot_patch(victim, :progress, []), &(&1.phase == :watch))
  end

  defp strike_now(rig, victim, %{what: :kill}), do: {Rig.kill(rig, victim), []}

  defp strike_now(rig, victim, %{what: :crash}) do
    name =
      Enum.random([
        HotPatch.NodeAgent.Server,
        HotPatch.NodeAgent.Commit,
        HotPatch.Cluster.Comparison
      ])

    pid = Cluster.call(victim, Process, :whereis, [name])
    if pid, do: Process.exit(pid, :kill)
    {rig, []}
  end

  defp strike_now(rig, victim, %{what: :coordinator}) do
    :ok = Cluster.call(victim, Strike, :coordinator, [])
    {rig, []}
  end

  defp strike_now(rig, victim, %{what: :suspend, lasts: lasts}) do
    :ok = Cluster.call(victim, Strike, :suspend, [lasts])
    {rig, []}
  end

  defp strike_now(rig, victim, %{what: :cut, lasts: lasts}) do
    others = Rig.nodes(rig) -- [victim]
    :ok = Damage.cut_network([victim], others)
    Damage.pause(lasts)
    :ok = Damage.heal_network([victim], others)
    {rig, []}
  end

  defp strike_now(rig, victim, %{what: :ill}) do
    Cluster.call(victim, :persistent_term, :put, [:hot_patch_test_health, :ill])
    {rig, []}
  end

  defp strike_now(rig, _victim, %{what: :join}) do
    new = Machine.like(hd(rig.machines), Rig.nodes(rig))
    {Rig.restart(%{rig | machines: rig.machines ++ [new]}, new.node), []}
  end

  defp strike_now(rig, victim, %{what: :two} = schedule) do
    task = Rig.begin(rig, victim, kind(schedule), options(schedule))
    {rig, [Rig.await(task)]}
  end

  defp disarm(rig, victim, %{what: :ill}) do
    Cluster.call(victim, :persistent_term, :erase, [:hot_patch_test_health])
    rig
  end

  defp disarm(rig, victim, %{what: :kill, moment: {:step, _, _}}) do
    case Round.disarm(victim) do
      :ok -> rig
      _reached_or_dead -> Rig.put(rig, Machine.await_death(Rig.machine(rig, victim)))
    end
  end

  # Nobody looks at calls before the node goes on.
  defp disarm(rig, victim, _schedule) do
    if Rig.machine(rig, victim).os_pid, do: _ = Cluster.call(victim, FaultPoint, :disarm, [])
    rig
  end

  defp back(rig, victim) do
    rig = if Rig.machine(rig, victim).os_pid, do: rig, else: Rig.restart(rig, victim)
    Rig.connected(rig)
    rig
  end

  # What the operator was told has to be so.
  defp true?(_results, _schedule, _before, :apart), do: true

  # One wins, or both have found the other in their way, or the one who had the nodes has failed and
  # says how it ended: a node that was watched did not answer in time, as where the host stands still.
  defp true?([_, _] = results, %{what: :two} = schedule, before, build) do
    {won, others} = Enum.split_with(results, &match?({:ok, _report}, &1))
    {stood_back, failed} = Enum.split_with(others, &stood_back?/1)

    (won != [] and failed == []) or
      (won == [] and length(stood_back) == 2) or
      (won == [] and match?([_], failed) and
         true?(failed, %{schedule | what: :kill}, before, build)) or
      wrong(results, "two operators")
  end

  defp true?([{:ok, _report} = result | _], schedule, _before, build) do
    target = if schedule.operation == :rollback, do: :old, else: :new
    build == target or wrong(result, build)
  end

  defp true?([{:error, %{reason: reason}} = result | _], schedule, before, build)
       when reason in [:rolled_back, :refused, :busy] do
    # A step before one that was refused may have failed to go back.
    build == before or schedule.operation == :canary or wrong(result, build)
  end

  defp true?([{:error, %{reason: :failed, message: message}} = result | _], _, before, build) do
    build == before or not (message =~ "nothing was changed on any node") or wrong(result, build)
  end

  defp true?(_not_known, _schedule, _before, _build), do: true

  defp stood_back?(result),
    do: busy?(result) or match?({:error, %{reason: :not_applied}}, result)

  defp busy?({:error, %{reason: :busy, details: %{holder: holder}}}),
    do: match?(%{patch: _, by: _, node: _}, holder)

  defp busy?(_other), do: false

  defp wrong(result, build) do
    text = with {:error, %{message: message}} <- result, do: message
    raise ExUnit.AssertionError, "#{inspect(text, limit: 30)}, but it is #{inspect(build)}"
  end

  # The clusters of other schedules have their size.
  defp leave(rig, %{what: :join}) do
    {machines, [new]} = Enum.split(rig.machines, -1)
    _ = Machine.kill(new)
    %{rig | machines: machines}
  end

  defp leave(rig, _schedule), do: rig
end
