defmodule HotPatch.Test.Faults.Rig do
  @moduledoc false
  # A cluster of machines under load with one patch uploaded, and what must be true of it
  # whenever a fault is over.

  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.Faults.Load
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.Faults.Snapshot
  alias HotPatch.Test.Faults.Subject

  @enforce_keys [:machines, :patch]
  defstruct [:machines, :patch, :volume]

  @typedoc "`volume`: a folder of the first machine that is a small file system of its own."
  @type t :: %__MODULE__{
          machines: [Machine.t()],
          patch: String.t(),
          volume: Path.t() | nil
        }

  @calls 20

  # How long the nodes may take to agree after the last of them is back, in looks at them
  # and milliseconds between: where the host itself stands still for a while, no look is lost.
  @looks 400
  @between 50

  @volume 4_000_000

  @doc """
  Starts a cluster with the patch uploaded on each node. Options: see `Machine.new/2`, and
  `volume: :lib | :data`.
  """
  @spec start(pos_integer(), keyword()) :: t()
  def start(count, options \\ []) do
    machines = Machine.new(count, options)
    volume = volume(hd(machines), options[:volume])
    rig = %__MODULE__{machines: Machine.start_all(machines), patch: nil, volume: volume}
    connected(rig)
    for node <- nodes(rig), do: :ok = Cluster.call(node, Load, :start, [@calls])
    %{rig | patch: upload(rig)}
  end

  @doc "Uploads the patch on every node: each may be the one that is killed."
  @spec upload(t()) :: String.t()
  def upload(rig) do
    # A zip holds the time at which it was made.
    zip = Subject.zip()

    [id] =
      Enum.uniq(
        for node <- nodes(rig) do
          {:ok, patch} = hot_patch(node, :upload, [zip, [name: "fix"]])
          patch.id
        end
      )

    id
  end

  @doc "Ends all machines and removes their files."
  @spec stop(t()) :: :ok
  def stop(rig) do
    group = Machine.group(hd(rig.machines))
    # Also those that were started again since this was the cluster.
    Machine.kill_all(group)
    if rig.volume, do: Damage.unmount(rig.volume)
    File.rm_rf!(group)
    :ok
  end

  defp volume(_machine, nil), do: nil

  defp volume(machine, :data) do
    Damage.mount(machine.data, @volume)
    machine.data
  end

  defp volume(machine, :lib) do
    Damage.mount(machine.lib, @volume)
    Machine.install(machine, "shipped")
    machine.lib
  end

  @doc "A cluster as it is now, by what its nodes say: they may have been started again since."
  @spec refresh(t()) :: t()
  def refresh(rig) do
    machines =
      for machine <- rig.machines,
          do: %{machine | os_pid: Cluster.call(machine.node, System, :pid, [])}

    %{rig | machines: machines}
  end

  @spec nodes(t()) :: [node()]
  def nodes(rig), do: Enum.map(rig.machines, & &1.node)

  @spec machine(t(), node()) :: Machine.t()
  def machine(rig, node), do: Enum.find(rig.machines, &(&1.node == node))

  @spec put(t(), Machine.t()) :: t()
  def put(rig, machine) do
    machines = Enum.map(rig.machines, &if(&1.node == machine.node, do: machine, else: &1))
    %{rig | machines: machines}
  end

  @doc "Ends a node as a power cut would."
  @spec kill(t(), node()) :: t()
  def kill(rig, node), do: put(rig, Machine.kill(machine(rig, node)))

  @doc "Starts a node that was killed, with calls anew."
  @spec restart(t(), node(), keyword()) :: t()
  def restart(rig, node, options \\ []) do
    machine = rig |> machine(node) |> Machine.start(options)
    if machine.os_pid, do: :ok = Cluster.call(node, Load, :start, [@calls])
    put(rig, machine)
  end

  @doc "Calls HotPatch on a node; an answer also where the node dies."
  @spec hot_patch(node(), atom(), [term()]) :: term()
  def hot_patch(node, function, args) do
    Cluster.call(node, HotPatch, function, args)
  catch
    :error, {:erpc, reason} -> {:error, reason}
  end

  @doc "Begins an operation on the cluster; `await/1` gives its answer."
  @spec begin(t(), node(), :apply | :rollback, keyword()) :: Task.t()
  def begin(rig, coordinator, kind, options \\ []) do
    Task.async(fn -> hot_patch(coordinator, kind, [rig.patch, options]) end)
  end

  @spec await(Task.t()) :: term()
  def await(task), do: Task.await(task, 90_000)

  @doc "Carries an operation out, which nothing may prevent; old code may be in use for a moment."
  @spec carry_out(t(), node(), :apply | :rollback) :: :ok
  def carry_out(rig, coordinator, kind) do
    look_until(fn ->
      case hot_patch(coordinator, kind, [rig.patch]) do
        {:ok, _report} -> :ok
        answer -> {:not_yet, "a following #{kind} on #{coordinator}: #{inspect_answer(answer)}"}
      end
    end)

    build = if kind == :apply, do: :new, else: :old
    ^build = agreed(rig)
    :ok
  end

  @doc """
  Waits until all nodes are well and say the same, and gives the build they run. Raises with
  what is wrong if they never do.
  """
  @spec agreed(t(), keyword()) :: :old | :new
  def agreed(rig, options \\ []) do
    {:agreed, build} =
      look_until(fn ->
        case look(rig, options) do
          {snapshots, []} -> {:agreed, Subject.build(hd(snapshots))}
          {_snapshots, wrong} -> {:not_yet, "no agreement:\n  " <> Enum.join(wrong, "\n  ")}
        end
      end)

    for node <- nodes(rig), [_ | _] = wrong <- [Cluster.call(node, Load, :verify, [])] do
      raise ExUnit.AssertionError, "#{node}: " <> Enum.join(Enum.take(wrong, 5), "; ")
    end

    build
  end

  @doc "Old code in use would have an operation refused."
  @spec settled(t()) :: :ok
  def settled(rig) do
    for node <- nodes(rig) do
      look_until(fn ->
        case hot_patch(node, :stragglers, [[nodes: [node]]]) do
          {:ok, %{items: [], failed: []}} -> :ok
          answer -> {:not_yet, "stragglers on #{node}: #{inspect(answer)}"}
        end
      end)
    end

    :ok
  end

  @doc "Waits for something that is told as `{:not_yet, text}` until it is there."
  @spec look_until((() -> {:not_yet, String.t()} | result), non_neg_integer()) :: result
        when result: term()
  def look_until(fun, looks \\ @looks) do
    case fun.() do
      {:not_yet, text} when looks == 0 ->
        raise ExUnit.AssertionError, text

      {:not_yet, _text} ->
        Damage.pause(@between)
        look_until(fun, looks - 1)

      result ->
        result
    end
  end

  @doc "What every node is now."
  @spec snapshots(t()) :: [Snapshot.t()]
  def snapshots(rig) do
    for machine <- rig.machines,
        do: Cluster.call(machine.node, Snapshot, :take, [machine.lib, Subject.paths()])
  end

  @doc "Waits until every machine sees every other."
  @spec connected(t()) :: :ok
  def connected(rig) do
    nodes = nodes(rig)

    for node <- nodes do
      look_until(fn ->
        case nodes -- [node | seen_by(node)] do
          [] -> :ok
          missing -> {:not_yet, "#{node} does not see #{Enum.join(missing, ", ")}"}
        end
      end)
    end

    :ok
  end

  defp seen_by(node) do
    Cluster.call(node, Node, :list, [])
  catch
    :error, {:erpc, _reason} -> []
  end

  defp look(rig, options) do
    snapshots = snapshots(rig)
    {snapshots, Enum.flat_map(snapshots, &alone(&1, rig.patch, options)) ++ together(snapshots)}
  catch
    # What was to crash may do so while it is asked.
    :exit, {:exception, reason} -> {[], ["cannot be asked: #{inspect(reason, limit: 20)}"]}
    :error, {:erpc, reason} -> {[], ["a node cannot be reached: #{inspect(reason)}"]}
  end

  defp alone(snapshot, patch, options) do
    build = Subject.build(snapshot)

    for {true, text} <- [
          {match?({:mixed, _}, build), "mixed: #{inspect(build)}"},
          {build == :new and patch not in snapshot.applied, "new, but not applied"},
          {build == :old and patch in snapshot.applied, "old, but applied"},
          {snapshot.damaged?, "the journal is damaged"},
          {!options[:journal_lost] and last(snapshot, patch) != build,
           "the journal says #{last(snapshot, patch)}, not #{inspect(build)}"},
          {snapshot.suspended != [], "suspended: #{inspect(snapshot.suspended)}"},
          {snapshot.leftovers != [], "left behind: #{inspect(snapshot.leftovers)}"},
          {snapshot.holder != nil, "held by #{inspect(snapshot.holder)}"},
          {snapshot.behind != nil, "behind: #{snapshot.behind}"}
        ],
        do: "#{snapshot.node}: #{text}"
  end

  defp together(snapshots) do
    if snapshots |> Enum.uniq_by(&{Subject.build(&1), &1.applied}) |> length() == 1,
      do: [],
      else:
        for(
          s <- snapshots,
          do: "#{s.node}: #{inspect(Subject.build(s))}, applied #{inspect(s.applied)}"
        )
  end

  # What the journal says of a patch.
  defp last(snapshot, patch) do
    ends = for {what, id} <- snapshot.journal, what in [:apply, :rollback], id == patch, do: what
    if List.last(ends) == :apply, do: :new, else: :old
  end

  defp inspect_answer({:error, %{message: message}}), do: message
  defp inspect_answer(answer), do: inspect(answer, limit: 20)
end
