defmodule HotPatch.NifTest do
  # Files that modules need when they are loaded, NIF libraries among them.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.Nifs

  @moduletag :starts_nodes
  @moduletag timeout: 240_000
  # It takes what Linux says of a process, and the library.
  @moduletag skip: not Nifs.available?()

  @beam "exchange-1.0.0/ebin/#{Nifs.module()}.beam"
  @priv "exchange-1.0.0/priv/"

  # Before a node starts: version 1 with its files.
  defp install(lib, options, files) do
    for {path, bytes} <- [{@beam, Nifs.code(1, options)} | files],
        target = Path.join(lib, path) do
      File.mkdir_p!(Path.dirname(target))
      File.write!(target, bytes)
    end
  end

  defp machine(options, files, more \\ []) do
    [machine] = Machine.new(1, more)
    install(machine.lib, options, files)
    machine = start(machine)
    on_exit(fn -> Machine.kill_all(Machine.group(machine)) end)
    machine
  end

  # As a boot script does it, before HotPatch is there.
  defp start(machine, more \\ []), do: Machine.start(machine, [before: &load/1] ++ more)

  defp load(node) do
    {:module, _} = Cluster.call(node, :code, :ensure_loaded, [Nifs.module()])
    :ok
  end

  defp runs(machine),
    do: for(f <- [:vsn, :which, :noted], do: Cluster.call(machine.node, Nifs.module(), f, []))

  defp exists?(machine, path), do: File.exists?(Path.join(machine.lib, path))
  defp read(machine, path), do: File.read!(Path.join(machine.lib, path))

  defp upload(machine, files, name \\ "nif") do
    archive = [HotPatch.Test.Archives.zip(files), [name: name]]
    {:ok, patch} = hot_patch(machine.node, :upload, archive)
    patch.id
  end

  defp file(report, path),
    do: report.nodes |> hd() |> Map.fetch!(:files) |> Enum.find(&(&1.path == path))

  @lib_a @priv <> "lib_a.so"
  @lib_b @priv <> "new/lib_b.so"

  describe "a library of another name" do
    setup do
      machine = machine([library: "lib_a"], [{@lib_a, Nifs.library(:a)}])
      assert runs(machine) == [1, :a, :none]
      %{machine: machine}
    end

    defp brings_b, do: [{@beam, Nifs.code(2, library: "new/lib_b")}, {@lib_b, Nifs.library(:b)}]

    test "is there when the module looks for it, and goes again with the rollback", %{
      machine: machine
    } do
      id = upload(machine, brings_b())
      assert {:ok, check} = hot_patch(machine.node, :check, [id, [on_load: :load]])
      assert file(check, @beam).status == :ok
      assert {:ok, report} = hot_patch(machine.node, :apply, [id, [on_load: :load]])
      assert file(report, @beam).status == :ok
      assert runs(machine) == [2, :b, :none]
      assert exists?(machine, @lib_b)
      assert {:ok, %{items: []}} = hot_patch(machine.node, :drift, [])

      assert {:ok, report} = hot_patch(machine.node, :rollback, [id, [on_load: :load]])
      assert file(report, @beam).status == :ok
      assert runs(machine) == [1, :a, :none]
      refute exists?(machine, @priv <> "new")
      Machine.kill(machine)
    end

    test "goes again, with the folder made for it, if the module refuses to be loaded", %{
      machine: machine
    } do
      [_, library] = brings_b()
      id = upload(machine, [{@beam, Nifs.code(2, library: "new/lib_b", fails: true)}, library])

      assert {:error, %Error{reason: :failed} = error} =
               hot_patch(machine.node, :apply, [id, [on_load: :load]])

      assert Exception.message(error) =~ "runs code when it is loaded, and that failed"
      assert runs(machine) == [1, :a, :none]
      refute exists?(machine, @priv <> "new")
      Machine.kill(machine)
    end

    # Each step at which something is in place and nothing decided, and each behind the decision.
    for point <- [
          :early_kept,
          :early_placed,
          :held,
          :decided,
          :loaded,
          :decision_written,
          {:file, 2, 2}
        ] do
      test "is wholly there or not at all after kill -9 at #{inspect(point)}", %{machine: machine} do
        id = upload(machine, brings_b())
        :ok = Cluster.call(machine.node, FaultPoint, :arm, [unquote(Macro.escape(point))])
        catch_error(hot_patch(machine.node, :apply, [id, [on_load: :load]]))
        machine = machine |> Machine.await_death() |> start()
        applied = for p <- hot_patch(machine.node, :list, []), p.state == :applied, do: p.id
        new? = applied == [id]
        # What is decided is done; of one node, nobody else could know of it.
        assert new? == unquote(point in [:decided, :loaded, :decision_written, {:file, 2, 2}])
        assert runs(machine) == if(new?, do: [2, :b, :none], else: [1, :a, :none])
        assert exists?(machine, @lib_b) == new?
        assert leftovers(machine) == []
        assert {:ok, %{items: []}} = hot_patch(machine.node, :drift, [])
        Machine.kill(machine)
      end
    end
  end

  defp leftovers(machine) do
    for {path, _stat} <- HotPatch.Support.Folder.tree(machine.lib), path =~ "hot_patch-", do: path
  end

  describe "a library of the same name" do
    test "waits for a restart, with the whole patch, and says why" do
      machine = machine([library: "lib_a"], [{@lib_a, Nifs.library(:a)}])

      id =
        upload(machine, [
          {@beam, Nifs.code(2, library: "lib_a")},
          {@lib_a, Nifs.library(:b)},
          Builds.changed("patched", "Billing")
        ])

      assert {:ok, check} = hot_patch(machine.node, :check, [id, [on_load: :load]])
      assert %{status: :not_updated, reason: reason} = file(check, @lib_a)

      assert reason =~
               "is loaded in this VM, and the loader of libraries gives out what is loaded"

      assert reason =~ "restart the node to run it, or give the new library another name"

      assert %{status: :not_updated, reason: "held back with " <> @lib_a <> _} =
               file(check, @beam)

      assert {:ok, plan} = hot_patch(machine.node, :plan, [id, [on_load: :load]])
      assert risk?(hd(plan.nodes), @lib_a <> ": ")

      assert {:ok, %{status: :not_updated} = report} =
               hot_patch(machine.node, :apply, [id, [on_load: :load]])

      assert hd(report.nodes).restart_needed =~ @lib_a
      # The old module with the old library, as the report says.
      assert runs(machine) == [1, :a, :none]
      assert read(machine, @lib_a) == Nifs.library(:b)
      assert [%{restart_needed: [modules, library]}] = hot_patch(machine.node, :nodes, [])
      assert modules =~ "on disk but not in memory: " and library =~ @lib_a

      machine = machine |> Machine.kill() |> start()
      assert runs(machine) == [2, :b, :none]
      assert [%{restart_needed: []}] = hot_patch(machine.node, :nodes, [])
      Machine.kill(machine)
    end

    test "goes back at once where it was never loaded" do
      machine = machine([library: "lib_a"], [{@lib_a, Nifs.library(:a)}])
      id = upload(machine, [{@beam, Nifs.code(2, library: "lib_a")}, {@lib_a, Nifs.library(:b)}])
      assert {:ok, _} = hot_patch(machine.node, :apply, [id, [on_load: :load]])
      assert {:ok, report} = hot_patch(machine.node, :rollback, [id, [on_load: :load]])
      assert hd(report.nodes).restart_needed == nil
      assert file(report, @beam).status == :not_changed
      assert file(report, @lib_a).status == :not_beam
      assert read(machine, @lib_a) == Nifs.library(:a)
      assert runs(machine) == [1, :a, :none]
      assert {:ok, %{items: []}} = hot_patch(machine.node, :drift, [])
      Machine.kill(machine)
    end

    test "is loaded where nothing of that name is in use" do
      machine = machine([], [{@lib_a, Nifs.library(:a)}])
      assert runs(machine) == [1, :none, :none]
      id = upload(machine, [{@beam, Nifs.code(2, library: "lib_a")}, {@lib_a, Nifs.library(:b)}])
      assert {:ok, report} = hot_patch(machine.node, :apply, [id, [on_load: :load]])
      assert file(report, @beam).status == :ok
      assert runs(machine) == [2, :b, :none]
      Machine.kill(machine)
    end

    test "that is gone from the disk is still in use, and counts so" do
      machine = machine([library: "lib_a"], [{@lib_a, Nifs.library(:a)}])
      File.rm!(Path.join(machine.lib, @lib_a))
      id = upload(machine, [{@beam, Nifs.code(2, library: "lib_a")}, {@lib_a, Nifs.library(:b)}])
      assert {:ok, check} = hot_patch(machine.node, :check, [id, [on_load: :load]])
      assert file(check, @lib_a).status == :not_updated
      Machine.kill(machine)
    end
  end

  describe "a file that is read when a module is loaded" do
    @table @priv <> "table.txt"

    setup do
      machine = machine([reads: "table.txt"], [{@table, "old"}])
      assert runs(machine) == [1, :none, {:ok, "old"}]
      %{machine: machine}
    end

    test "is the new one for the new module, and the old one for the old", %{machine: machine} do
      id = upload(machine, [{@beam, Nifs.code(2, reads: "table.txt")}, {@table, "new"}])
      assert {:ok, _} = hot_patch(machine.node, :apply, [id, [on_load: :load]])
      assert runs(machine) == [2, :none, {:ok, "new"}]
      assert {:ok, _} = hot_patch(machine.node, :rollback, [id, [on_load: :load]])
      assert runs(machine) == [1, :none, {:ok, "old"}]
      Machine.kill(machine)
    end

    test "is the very old file again before a module is loaded back", %{machine: machine} do
      inode = File.stat!(Path.join(machine.lib, @table)).inode
      other = "hot_patch_test_refuses"

      refuses =
        Builds.erlang("""
        -module(#{other}).
        -on_load(init/0).
        init() -> {error, refused}.
        """)

      id =
        upload(machine, [
          {@beam, Nifs.code(2, reads: "table.txt")},
          {"exchange-1.0.0/ebin/#{other}.beam", refuses},
          {@table, "new"}
        ])

      assert {:error, %Error{reason: :failed}} =
               hot_patch(machine.node, :apply, [id, [on_load: :load]])

      assert runs(machine) == [1, :none, {:ok, "old"}]
      assert read(machine, @table) == "old"
      assert File.stat!(Path.join(machine.lib, @table)).inode == inode
      assert leftovers(machine) == []
      Machine.kill(machine)
    end

    # The boot script has loaded the module by then, which has read what a start takes back.
    test "is what the module has read, after kill -9 with the new one in place", %{
      machine: machine
    } do
      id = upload(machine, [{@beam, Nifs.code(2, reads: "table.txt")}, {@table, "new"}])
      :ok = Cluster.call(machine.node, FaultPoint, :arm, [:early_placed])
      catch_error(hot_patch(machine.node, :apply, [id, [on_load: :load]]))
      machine = Machine.await_death(machine)
      assert read(machine, @table) == "new"
      machine = start(machine)
      assert read(machine, @table) == "old"
      assert runs(machine) == [1, :none, {:ok, "old"}]
      assert leftovers(machine) == []
      Machine.kill(machine)
    end
  end

  describe "nodes that share their files" do
    setup do
      machines = Machine.new(2, shared: true)
      files = [{@table, "old"}, {@lib_a, Nifs.library(:a)}]
      install(hd(machines).lib, [library: "lib_a", reads: "table.txt"], files)
      machines = Enum.map(machines, &start/1)
      on_exit(fn -> Machine.kill_all(Machine.group(hd(machines))) end)
      Cluster.connect(Enum.map(machines, & &1.node))
      %{machines: machines}
    end

    defp patch(machine) do
      upload(machine, [
        {@beam, Nifs.code(2, library: "new/lib_b", reads: "table.txt")},
        {@lib_b, Nifs.library(:b)},
        {@table, "new"}
      ])
    end

    test "all have the old ones if one fails", %{machines: [a, b]} do
      id = patch(a)
      # Whoever has come that far on the second node fails.
      :ok = Cluster.call(b.node, FaultPoint, :arm, [:held, 1, {:erlang, :exit, [:struck]}])
      assert {:error, %Error{reason: :failed}} = hot_patch(a.node, :apply, [id, [on_load: :load]])
      for machine <- [a, b], do: assert(runs(machine) == [1, :a, {:ok, "old"}])
      assert read(a, @table) == "old"
      refute exists?(a, @priv <> "new")
      assert leftovers(a) == []
      Enum.each([a, b], &Machine.kill/1)
    end

    test "what one has decided another does not take back", %{machines: [a, b]} do
      id = patch(a)
      # It is decided, and this node is not told.
      :ok = Cluster.call(b.node, FaultPoint, :arm, [:decided])
      _ = hot_patch(a.node, :apply, [id, [on_load: :load]])
      b = Machine.await_death(b)
      assert runs(a) == [2, :b, {:ok, "new"}]
      b = start(b)
      assert read(a, @table) == "new"
      assert exists?(a, @lib_b)
      # It has come to it as well, before it serves.
      assert runs(b) == [2, :b, {:ok, "new"}]
      assert %{items: [%{state: :applied}]} = hot_patch(b.node, :list, [])
      Enum.each([a, b], &Machine.kill/1)
    end
  end
end
