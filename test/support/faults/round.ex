defmodule HotPatch.Test.Faults.Round do
  @moduledoc false
  # One fault: an apply or a rollback is begun, a node is killed at one of its steps or at
  # any instant, and started again. Then all must be well, and another operation must work.

  alias HotPatch.Support.FaultPoint
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.Faults.Rig
  alias HotPatch.Test.Faults.Subject

  @typedoc """
  `again`: the step of the start at which the node is killed once more, if it comes there.
  """
  @type t :: %{
          kind: :apply | :rollback,
          coordinator: pos_integer(),
          victim: pos_integer(),
          fault: {:step, FaultPoint.point()} | {:instant, milliseconds :: non_neg_integer()},
          again: FaultPoint.point() | nil
        }

  # Longer than an operation takes on a busy host.
  @longest_ms 400

  @doc "All steps at which a node can be killed, for a patch of `files` files."
  @spec steps(pos_integer()) :: [FaultPoint.point()]
  def steps(files \\ length(Subject.files())) do
    Enum.flat_map(FaultPoint.points(), fn
      {:file, :any, :any} -> for n <- 1..files, do: {:file, n, files}
      point -> [point]
    end)
  end

  @doc "A fault by chance; the caller has seeded the generator."
  @spec random(pos_integer()) :: t()
  def random(nodes) do
    %{
      kind: Enum.random([:apply, :rollback]),
      coordinator: :rand.uniform(nodes),
      victim: :rand.uniform(nodes),
      fault:
        if(:rand.uniform(4) == 1,
          do: {:instant, :rand.uniform(@longest_ms) - 1},
          else: {:step, Enum.random(steps())}
        ),
      again: if(:rand.uniform(5) == 1, do: Enum.random(steps()))
    }
  end

  @doc "Carries a fault out. Raises if something is wrong after it."
  @spec run(Rig.t(), t()) :: Rig.t()
  def run(rig, fault) do
    ready(rig, fault.kind)
    coordinator = Enum.at(Rig.nodes(rig), fault.coordinator - 1)
    victim = Enum.at(Rig.nodes(rig), fault.victim - 1)

    rig = rig |> strike(fault, coordinator, victim) |> back(victim, fault.again)
    Rig.connected(rig)
    build = Rig.agreed(rig)

    # Whatever it came to, the next operation works.
    Rig.carry_out(rig, coordinator, if(build == :old, do: :apply, else: :rollback))
    rig
  end

  @doc "Brings the patch to where it has to be for the operation to be possible; gives that build."
  @spec ready(Rig.t(), :apply | :rollback) :: :old | :new
  def ready(rig, kind) do
    [first | _] = Rig.nodes(rig)
    build = Rig.agreed(rig)
    if build == :new and kind == :apply, do: Rig.carry_out(rig, first, :rollback)
    if build == :old and kind == :rollback, do: Rig.carry_out(rig, first, :apply)
    Rig.settled(rig)
    if kind == :apply, do: :old, else: :new
  end

  defp strike(rig, %{fault: {:instant, ms}} = fault, coordinator, victim) do
    task = Rig.begin(rig, coordinator, fault.kind)
    Damage.pause(ms)
    rig = Rig.kill(rig, victim)
    _ = Rig.await(task)
    rig
  end

  defp strike(rig, %{fault: {:step, step}} = fault, coordinator, victim) do
    :ok = Cluster.call(victim, FaultPoint, :arm, [step])
    _ = rig |> Rig.begin(coordinator, fault.kind) |> Rig.await()

    case disarm(victim) do
      :ok -> rig
      _reached_or_dead -> Rig.put(rig, Machine.await_death(Rig.machine(rig, victim)))
    end
  end

  @doc "`:ok` where the operation has ended without coming to the step; else the node is dying still."
  @spec disarm(node()) :: :ok | :reached | :dead
  def disarm(victim) do
    Cluster.call(victim, FaultPoint, :disarm, [])
  catch
    :error, {:erpc, _reason} -> :dead
  end

  defp back(rig, victim, again) do
    cond do
      Rig.machine(rig, victim).os_pid != nil -> rig
      again == nil -> Rig.restart(rig, victim)
      true -> rig |> Rig.restart(victim, arm: {again, 1}) |> back(victim, nil)
    end
  end
end
