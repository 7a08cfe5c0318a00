defmodule HotPatch.SuccessionTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Store.Applied
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.Faults.Machine

  @moduletag timeout: 120_000

  # Patches when another version of the system is started, and when that one is started again.

  @one {"exchange", "1.0.0"}
  @two {"exchange", "1.1.0"}
  @note "exchange-1.0.0/priv/new/note.txt"

  defp machines(count, options \\ []) do
    machines = Machine.new(count, options)

    on_exit(fn ->
      Machine.kill_all(Machine.group(hd(machines)))
      File.rm_rf!(Machine.group(hd(machines)))
    end)

    machines
  end

  defp hot_patch(machine, function, args),
    do: Cluster.call(machine.node, HotPatch, function, args)

  defp files, do: Builds.changed("patched") ++ [{@note, "hi"}]

  defp apply!(machine, files, options \\ []) do
    {:ok, patch} = hot_patch(machine, :upload, [zip(files), [name: "fix#{length(files)}"]])
    {:ok, _report} = hot_patch(machine, :apply, [patch.id, options])
    patch
  end

  defp again(machine, release), do: machine |> Machine.kill() |> start(release)
  defp start(machine, release), do: Machine.start(%{machine | release: release})

  defp me(machine), do: Enum.find(hot_patch(machine, :nodes, []), &(&1.node == machine.node))

  # All files of the machine's applications, with their bytes.
  defp disk(machine) do
    for path <- Path.wildcard(machine.lib <> "/**"), File.regular?(path), into: %{} do
      {Path.relative_to(path, machine.lib), File.read!(path)}
    end
    |> Map.drop(["hot_patch.install", "hot_patch.lock"])
  end

  defp blobs(machine), do: Path.wildcard(Path.join(Machine.data(machine), "blobs/*"))

  # What is new in the patch is loaded when it is used.
  defp memory(machine) do
    for {path, _bytes} <- files(),
        File.exists?(Path.join(Builds.ebin("shipped"), Path.basename(path))),
        module = String.to_atom(Path.basename(path, ".beam")),
        into: %{} do
      {module,
       Cluster.call(machine.node, HotPatch.NodeAgent.LoadedCode, :md5_of, [Atom.to_string(module)])}
    end
  end

  @tag :starts_nodes
  test "the files of a version go back when the next one is started, and it can be started again" do
    [machine] = machines(1)
    machine = start(machine, @one)
    {disk, memory} = {disk(machine), memory(machine)}
    patch = apply!(machine, files())
    patched = memory(machine)
    assert patched != memory

    machine = again(machine, @two)
    assert %{applied: [], restart_needed: []} = me(machine)
    assert disk(machine) == disk
    # The two versions have the folder in common: what the boot script has loaded was the patch's.
    assert memory(machine) == memory
    assert blobs(machine) == []
    assert {:ok, entries} = hot_patch(machine, :journal, [])
    assert %{patch: id, reason: reason} = Enum.find(entries, &(&1.what == :put_back))
    assert id == patch.id and reason =~ "exchange 1.0.0"
    assert %{items: [%{state: :retired}]} = hot_patch(machine, :list, [])

    machine = again(machine, @one)
    assert %{applied: [], restart_needed: []} = me(machine)
    assert {disk(machine), memory(machine)} == {disk, memory}
    assert {:ok, %{items: []}} = hot_patch(machine, :drift, [])

    # It is for this version, and nothing keeps it from being applied.
    assert {:ok, _report} = hot_patch(machine, :apply, [patch.id])
    assert memory(machine) == patched

    until(
      fn -> match?({:ok, %{items: []}}, hot_patch(machine, :stragglers, [])) end,
      "nobody runs old code"
    )

    assert {:ok, _report} = hot_patch(machine, :rollback, [patch.id])
    assert disk(machine) == disk
  end

  @tag :starts_nodes
  test "of patches over patches, and of one that replaces them, the files go back to the first" do
    [machine] = machines(1)
    machine = start(machine, @one)
    disk = disk(machine)
    [first, second | _] = Builds.changed("patched")
    broken = Builds.changed("broken") |> Enum.find(&(elem(&1, 0) == elem(first, 0)))
    _one = apply!(machine, [first])
    _two = apply!(machine, [broken || first, second])
    _three = apply!(machine, files(), cumulative: true)
    machine = again(machine, @two)
    assert disk(machine) == disk
    assert blobs(machine) == []
  end

  if Damage.mounts?() do
    @tag :starts_nodes
    test "what cannot go back now is kept, told, and goes back when it can" do
      [machine] = machines(1)
      Damage.mount(machine.lib, 4_000_000)
      on_exit(fn -> Damage.unmount(machine.lib) end)
      Machine.install(machine, "shipped")
      machine = start(machine, @one)
      disk = disk(machine)
      patch = apply!(machine, files())
      machine = Machine.kill(machine)

      Damage.read_only(machine.lib, true)
      machine = start(machine, @two)
      assert disk(machine) != disk
      assert [reason] = me(machine).restart_needed
      assert reason =~ "code of #{patch.id}, which has ended, is in memory"
      assert blobs(machine) != []
      machine = Machine.kill(machine)

      Damage.read_only(machine.lib, false)
      machine = start(machine, @one)
      assert %{applied: [], restart_needed: []} = me(machine)
      assert disk(machine) == disk
      assert blobs(machine) == []
    end
  else
    @tag skip: "no file system can be mounted here"
    test "what cannot go back now is kept, told, and goes back when it can", do: :ok
  end

  @tag :starts_nodes
  test "while another node of the host runs the old version with its patch, the files are that node's" do
    [a, b] = machines(2, shared: true)
    [a, b] = Machine.start_all([a, b])
    until(fn -> length(Cluster.call(a.node, Node, :list, [])) == 1 end, "they see each other")
    disk = disk(a)
    patch = apply!(a, files())
    patched = disk(a)
    assert patched != disk

    a = again(a, @two)
    assert disk(a) == patched
    assert [reason] = me(a).restart_needed
    assert reason =~ "code of #{patch.id}, which has ended, is in memory"
    assert %{applied: [id], restart_needed: []} = me(b)
    assert id == patch.id

    # It ends there too, whoever is the last.
    b = again(b, @two)
    assert disk(b) == disk
    assert %{applied: [], restart_needed: []} = me(b)
    a = again(a, @two)
    assert %{applied: [], restart_needed: []} = me(a)
    assert {blobs(a), blobs(b)} == {[], []}
  end

  @tag :starts_nodes
  test "a folder that was installed anew is none of the patch's, whatever is in it" do
    [machine] = machines(1)
    machine = start(machine, @one)
    _patch = apply!(machine, files())
    machine = Machine.kill(machine)

    # The next version has the repaired code for its own, under the same version of the application.
    for {path, bytes} <- files() do
      file = Path.join(machine.lib, path)
      File.rm!(file)
      File.write!(file, bytes)
      # As an archive brings it.
      File.touch!(file, 1_700_000_000)
    end

    installed = disk(machine)
    machine = start(machine, @two)
    assert disk(machine) == installed
    assert %{applied: [], restart_needed: []} = me(machine)
  end

  @tag :starts_nodes
  test "a fresh disk gets the patch's files only where they were made for what is on it" do
    [machine] = machines(1)
    machine = start(machine, @one)
    patch = apply!(machine, files())
    patched = disk(machine)
    machine = Machine.kill(machine)
    File.rm_rf!(machine.lib)
    Machine.install(machine, "shipped")
    machine = start(machine, @one)
    assert %{applied: [id], restart_needed: []} = me(machine)
    assert {id, disk(machine)} == {patch.id, patched}

    # The same version, built once more with another change.
    machine = Machine.kill(machine)
    File.rm_rf!(machine.lib)
    Machine.install(machine, "shipped")
    {path, bytes} = Enum.find(Builds.changed("broken"), &(&1 not in files()))
    assert List.keymember?(files(), path, 0)
    File.write!(Path.join(machine.lib, path), bytes)
    built = disk(machine)
    machine = start(machine, @one)
    assert %{applied: [], restart_needed: []} = me(machine)
    assert disk(machine) == built
    assert %{items: [%{state: :retired}]} = hot_patch(machine, :list, [])
  end

  @tag :starts_nodes
  test "an operation that was cut off by the upgrade leaves the next version's memory alone" do
    [machine] = machines(1)
    machine = start(machine, @one)
    disk = disk(machine)
    {:ok, patch} = hot_patch(machine, :upload, [zip(files()), []])
    Cluster.call(machine.node, HotPatch.Support.FaultPoint, :arm, [:decision_written, 1])

    assert catch_error(hot_patch(machine, :apply, [patch.id])) == {:erpc, :noconnection}
    machine = Machine.await_death(machine)

    machine = start(machine, @two)
    assert disk(machine) == disk
    assert %{applied: [], restart_needed: []} = me(machine)
    {_path, bytes} = hd(Builds.changed("patched"))
    refute :code.module_md5(bytes) in Map.values(memory(machine))
  end

  describe "a system without a release" do
    @tag :starts_nodes
    test "has its patches after a restart, and where something was put on its code path" do
      [machine] = machines(1)
      machine = start(machine, nil)
      disk = disk(machine)
      assert to_string(me(machine).release) == "unreleased exchange-1.0.0"
      patch = apply!(machine, files())
      patched = memory(machine)

      machine = again(machine, nil)
      assert %{applied: [id], restart_needed: []} = me(machine)
      assert {id, memory(machine)} == {patch.id, patched}

      ebin = Path.join(machine.lib, "extra/ebin")
      File.mkdir_p!(ebin)
      extra = {:application, :hot_patch_test_extra, [vsn: ~c"1", modules: []]}
      File.write!(Path.join(ebin, "hot_patch_test_extra.app"), :io_lib.format("~tp.~n", [extra]))
      machine = start(%{Machine.kill(machine) | path: [ebin]}, nil)
      assert %{applied: [^id], restart_needed: []} = info = me(machine)
      assert to_string(info.release) == "unreleased exchange-1.0.0+hot_patch_test_extra-1"
      assert %{items: [%{state: :applied, release: release}]} = hot_patch(machine, :list, [])
      assert release == info.release

      # With a name from now on.
      machine = start(%{Machine.kill(machine) | path: []}, @one)
      assert %{applied: [^id], restart_needed: []} = me(machine)

      until(
        fn -> match?({:ok, %{items: []}}, hot_patch(machine, :stragglers, [])) end,
        "nobody runs old code"
      )

      assert {:ok, _report} = hot_patch(machine, :rollback, [patch.id])
      File.rm_rf!(Path.dirname(ebin))
      assert disk(machine) == disk
    end
  end

  describe "an upload" do
    @tag :starts_nodes
    test "counts again after the release was installed again, also on an operator's own node" do
      [machine] = machines(1)
      machine = start(machine, @one)

      [operator] =
        Cluster.start(1, exchange: false, release: {"unreleased", "none"}, args: [~c"-hidden"])

      true = Cluster.call(operator, Node, :connect, [machine.node])
      attach = fn -> Cluster.call(operator, HotPatch, :attach, [machine.node]) end
      :ok = attach.()
      call = &Cluster.call(operator, HotPatch, &1, &2)
      archive = zip(files())
      {:ok, patch} = call.(:upload, [archive, []])
      assert to_string(patch.release) == "exchange 1.0.0"
      here = [nodes: [machine.node]]
      {:ok, _report} = call.(:apply, [patch.id, here])

      machine = Machine.kill(machine)
      Machine.install(machine, "shipped")
      machine = start(machine, @one)
      true = Cluster.call(operator, Node, :connect, [machine.node])
      :ok = attach.()
      assert me(machine).applied == []

      assert {:error, %Error{reason: :retired} = error} = call.(:apply, [patch.id, here])
      assert error.message =~ "upload it again"
      assert {:ok, %{id: id, state: :uploaded}} = call.(:upload, [archive, []])
      assert id == patch.id
      assert {:ok, _report} = call.(:apply, [patch.id, here])
      assert me(machine).applied == [patch.id]

      # It ended by a clock that is ahead.
      state = Cluster.call(machine.node, Applied, :state, [])
      ended = Applied.retired(state, DateTime.add(DateTime.utc_now(), 3600))
      :ok = Cluster.call(machine.node, Applied, :put, [ended])
      assert {:error, %Error{reason: :retired}} = call.(:apply, [patch.id, here])
      assert {:ok, %{state: :uploaded}} = call.(:upload, [archive, []])
      assert {:ok, _report} = call.(:apply, [patch.id, here])
    end
  end
end
