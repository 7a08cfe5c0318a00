defmodule HotPatch.Test.Faults.Scenarios do
  @moduledoc false
  # What else happens to a cluster in production, one function each. They take a cluster and
  # give it back well, or raise; what they vary, they vary by chance.

  alias HotPatch.Support.Folder
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.Faults.Load
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.Faults.Modules
  alias HotPatch.Test.Faults.Rig
  alias HotPatch.Test.Faults.Round
  alias HotPatch.Test.Faults.Spaces
  alias HotPatch.Test.Faults.Subject

  @doc "The scenarios by name; those that mount something are left out where that is not allowed."
  @spec names() :: [atom()]
  def names do
    [
      :torn_journal,
      :damaged_state,
      :both_sides,
      :damaged_archive,
      :damaged_blob,
      :network_cut,
      :away,
      :new_node,
      :fresh_disk,
      :upgraded,
      :reinstalled,
      :shared,
      :shared_away
    ] ++
      if(Damage.mounts?(), do: [:full_disk, :read_only], else: []) ++
      if(Spaces.available?(), do: [:vanishing], else: [])
  end

  @doc "Runs one by name."
  @spec run(atom(), Rig.t()) :: Rig.t()
  def run(name, rig), do: apply(__MODULE__, name, [rig])

  @doc "A node's disk is full, its data's or its applications': refused, or done."
  def full_disk(rig) do
    own_rig(rig, 2, [volume: Enum.random([:lib, :data])], fn own ->
      to(own, Enum.random([:old, :new]))
      filler = Path.join(own.volume, "filler")
      Damage.fill(filler, :rand.uniform(200_000))
      _ = attempt(own)
      File.rm!(filler)
      Rig.agreed(own)
      next(own, hd(Rig.nodes(own)))
    end)
  end

  @doc "A node's folder cannot be written: refused."
  def read_only(rig) do
    own_rig(rig, 2, [volume: Enum.random([:lib, :data])], fn own ->
      before = to(own, Enum.random([:old, :new]))
      Damage.read_only(own.volume, true)
      {:error, %{reason: :refused}} = attempt(own)
      ^before = Rig.agreed(own)
      Damage.read_only(own.volume, false)
      next(own, hd(Rig.nodes(own)))
    end)
  end

  @doc "A journal is cut off anywhere, or bits of it flip, while its node is away."
  def torn_journal(rig) do
    node = Enum.random(Rig.nodes(rig))
    next(rig, Enum.random(Rig.nodes(rig)))
    rig = Rig.kill(rig, node)
    path = rig |> Rig.machine(node) |> Machine.data() |> Path.join("journal.log")
    if :rand.uniform(2) == 1, do: Damage.cut(path), else: Damage.flip(path)
    rig = Rig.restart(rig, node)
    Rig.agreed(rig, journal_lost: true)
    next(rig, node)
    rig
  end

  @doc "What a node keeps of what is applied on it is damaged while it is away."
  def damaged_state(rig) do
    to(rig, :new)
    machine = Enum.random(rig.machines)
    rig = Rig.kill(rig, machine.node)
    Damage.flip(Path.join(Machine.data(machine), "applied.record"))
    rig = Rig.restart(rig, machine.node)
    at_once(rig, machine.node, :new)
    next(rig, machine.node)
    rig
  end

  @doc "The network is cut, and each side goes on with patches of its own for the same module."
  def both_sides(rig) do
    own_rig(rig, 2, [], fn own ->
      [a, b] = Rig.nodes(own)
      Damage.cut_network([a], [b])
      for node <- [a, b], n <- 1..:rand.uniform(3), do: Modules.apply_or_roll_back(node, n)
      # Nothing that one side has done is lost.
      expected = Modules.expected([a, b])
      Damage.heal_network([a], [b])
      Modules.agree([a, b], expected)
      Modules.roll_all_back([a, b])
      Rig.agreed(own)
    end)
  end

  @doc "The archive is damaged on the disk of every node that has it."
  def damaged_archive(rig) do
    to(rig, :old)
    archive = Path.join("archives", rig.patch <> ".zip")
    for machine <- rig.machines, do: Damage.flip(Path.join(Machine.data(machine), archive))

    {:error, %{reason: :damaged_patch}} = attempt(rig)
    :old = Rig.agreed(rig)
    :ok = Rig.hot_patch(hd(Rig.nodes(rig)), :delete, [rig.patch])
    rig = %{rig | patch: Rig.upload(rig)}
    next(rig, hd(Rig.nodes(rig)))
    rig
  end

  @doc "What a patch has replaced is damaged where one node keeps it."
  def damaged_blob(rig) do
    to(rig, :new)
    machine = Enum.random(rig.machines)
    {path, _module} = hd(Subject.paths())
    blob = Path.join([Machine.data(machine), "blobs", Subject.old_digest(path)])
    bytes = File.read!(blob)
    Damage.flip(blob)
    {:error, %{reason: :refused}} = attempt(rig)
    :new = Rig.agreed(rig)
    File.write!(blob, bytes)
    next(rig, machine.node)
    rig
  end

  @doc "The network is cut at any moment of an operation; both sides may go on by themselves."
  def network_cut(rig) do
    build = to(rig, Enum.random([:old, :new]))
    [alone | others] = Enum.shuffle(Rig.nodes(rig))
    task = Rig.begin(rig, Enum.random([alone | others]), kind(build))
    Damage.pause(:rand.uniform(300) - 1)
    Damage.cut_network([alone], others)
    _ = Rig.await(task)

    for node <- [alone | others], :rand.uniform(2) == 1 do
      _ = Rig.hot_patch(node, Enum.random([:apply, :rollback]), [rig.patch])
    end

    Damage.heal_network([alone], others)
    Rig.agreed(rig)
    next(rig, alone)
    rig
  end

  @doc "Packets to and from a node vanish at any moment of an operation, and nobody is told."
  def vanishing(rig) do
    spaces = Spaces.make(3)

    try do
      own_rig(rig, 3, [spaces: spaces], fn own ->
        build = to(own, Enum.random([:old, :new]))
        space = Enum.random(spaces)
        task = Rig.begin(own, Enum.random(Rig.nodes(own)), kind(build))
        Damage.pause(:rand.uniform(300) - 1)
        Spaces.cut(space)
        # Shorter or longer than it takes the others to notice.
        Damage.pause(:rand.uniform(8_000))
        Spaces.heal(space)
        _ = Rig.await(task)
        # To find each other again is the host's affair.
        :ok = Damage.connect(Rig.nodes(own))
        Rig.agreed(own)
        next(own, Enum.random(Rig.nodes(own)))
      end)
    after
      Spaces.remove(spaces)
    end
  end

  @doc "A node is away while the others apply and roll back; it is with them before it serves."
  def away(rig) do
    [away | others] = Enum.shuffle(Rig.nodes(rig))
    Rig.agreed(rig)
    rig = Rig.kill(rig, away)
    rest = %{rig | machines: Enum.reject(rig.machines, &(&1.node == away))}
    for _ <- 1..:rand.uniform(3), do: next(rest, Enum.random(others))
    rig = Rig.restart(rig, away)
    at_once(rig, away, Rig.agreed(rest))
    next(rig, away)
    rig
  end

  @doc "A node with nothing on its disk but the release comes to a cluster with a patch."
  def new_node(rig) do
    own_rig(rig, 2, [], fn own ->
      to(own, :new)
      new = Machine.like(hd(own.machines), Rig.nodes(own))
      own = Rig.restart(%{own | machines: own.machines ++ [new]}, new.node)
      at_once(own, new.node, :new)
      next(own, new.node)
    end)
  end

  @doc "A container starts anew: its applications are as shipped, its data is still there."
  def fresh_disk(rig) do
    own_rig(rig, 1, [], fn own ->
      [node] = Rig.nodes(own)
      to(own, :new)
      own = Rig.kill(own, node)
      machine = Rig.machine(own, node)
      File.rm_rf!(machine.lib)
      Machine.install(machine, "shipped")
      own = Rig.restart(own, node)
      at_once(own, node, :new)
      next(own, node)
    end)
  end

  @doc "The whole system starts as another version: patches have ended, backups are gone."
  def upgraded(rig) do
    ended(rig, fn machine ->
      File.rm_rf!(machine.lib)
      Machine.install(machine, "shipped")
      %{machine | release: {"exchange", "1.0.1"}}
    end)
  end

  @doc "The same version is installed again over the patched files."
  def reinstalled(rig) do
    ended(rig, fn machine ->
      Machine.install(machine, "shipped")
      machine
    end)
  end

  @doc "Nodes of one host share their applications' folder; one is killed, most often while it renames."
  def shared(rig) do
    own_rig(rig, 2, [shared: true], fn own ->
      Enum.reduce(1..2, own, fn _, own ->
        fault = Round.random(2)
        files = for {:file, _, _} = step <- Round.steps(), do: {:step, step}
        fault = if :rand.uniform(2) == 1, do: %{fault | fault: Enum.random(files)}, else: fault
        Round.run(own, fault)
      end)
    end)
  end

  @doc "The same, and one is away while the other changes the files under it."
  def shared_away(rig), do: own_rig(rig, 2, [shared: true], &away(away(&1)))

  defp ended(rig, change) do
    own_rig(rig, 2, [], fn own ->
      to(own, :new)
      own = Enum.reduce(Rig.nodes(own), own, &Rig.kill(&2, &1))
      own = %{own | machines: own.machines |> Enum.map(change) |> Machine.start_all()}
      Rig.connected(own)
      for node <- Rig.nodes(own), do: :ok = Cluster.call(node, Load, :start, [10])
      :old = Rig.agreed(own, journal_lost: true)
      {:error, %{reason: :retired}} = Rig.hot_patch(hd(Rig.nodes(own)), :apply, [own.patch])
      %{items: [%{state: :retired}]} = Rig.hot_patch(hd(Rig.nodes(own)), :list, [])
      for m <- own.machines, do: [] = Folder.files(Path.join(Machine.data(m), "blobs"), "")
      # Uploaded again it counts for what runs now.
      if hd(own.machines).release == {"exchange", "1.0.0"}, do: again(own), else: own
    end)
  end

  defp again(own) do
    own = %{own | patch: Rig.upload(own)}
    next(own, hd(Rig.nodes(own)))
  end

  # A cluster for a scenario alone: what it does to it is not for others to bear.
  defp own_rig(rig, count, options, fun) do
    own = Rig.start(count, options)

    try do
      _ = fun.(own)
      rig
    after
      Rig.stop(own)
    end
  end

  defp to(rig, build) do
    if Rig.agreed(rig) != build, do: Rig.carry_out(rig, hd(Rig.nodes(rig)), kind(opposite(build)))
    Rig.settled(rig)
    build
  end

  # An operation that may fail.
  defp attempt(rig) do
    build = Rig.agreed(rig)
    rig |> Rig.begin(Enum.random(Rig.nodes(rig)), kind(build)) |> Rig.await()
  end

  # One that may not.
  defp next(rig, coordinator) do
    build = Rig.agreed(rig, journal_lost: true)
    Rig.carry_out(rig, coordinator, kind(build))
  end

  # Without a moment's wait: before a node serves, it is as the others.
  defp at_once(rig, node, build) do
    snapshot = Enum.find(Rig.snapshots(rig), &(&1.node == node))

    if Subject.build(snapshot) != build do
      raise ExUnit.AssertionError,
            "#{node} serves as #{inspect(Subject.build(snapshot))}, the others are #{build}"
    end

    ^build = Rig.agreed(rig)
  end

  # The operation that leads away from a build.
  defp kind(:old), do: :apply
  defp kind(:new), do: :rollback

  defp opposite(:old), do: :new
  defp opposite(:new), do: :old
end
