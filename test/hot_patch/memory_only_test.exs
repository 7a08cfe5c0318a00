defmodule HotPatch.MemoryOnlyTest do
  # Patches that touch no file of the system: what they are called wherever they are told of, what a
  # restart leaves of them, how they come to nodes that were away, and beside patches that are on disk.
  use ExUnit.Case, async: false

  @moduletag :starts_nodes

  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Machine
  alias HotPatch.Test.Faults.Rig

  @moduletag timeout: 240_000
  @ebin "exchange-1.0.0/ebin/"
  @x :hot_patch_test_memory_x
  @y :hot_patch_test_memory_y
  @memory [disk: :memory_only]

  defp start(count) do
    machines = Machine.start_all(Machine.new(count))
    on_exit(fn -> Machine.kill_all(Machine.group(hd(machines))) end)
    nodes = Enum.map(machines, & &1.node)
    for a <- nodes, b <- nodes, a < b, do: true = Cluster.call(a, Node, :connect, [b])
    machines
  end

  defp again(machine), do: machine |> Machine.kill() |> Machine.start()

  # Of one module or of several, each in a version.
  defp patch(node, name, versions) do
    files = for {m, v} <- versions, do: {@ebin <> "#{m}.beam", Builds.versioned(m, v)}
    upload!(node, files, name).id
  end

  # Both modules in version 1, on disk.
  defp base(node) do
    id = patch(node, "base", [{@x, 1}, {@y, 1}])
    assert {:ok, %{status: :ok, disk: :replace}} = hot_patch(node, :apply, [id])
    id
  end

  defp apply!(node, id, options \\ []) do
    assert {:ok, report} = hot_patch(node, :apply, [id, options])
    report
  end

  defp rollback!(node, id) do
    assert {:ok, report} = hot_patch(node, :rollback, [id])
    report
  end

  # The versions that are current for who calls them, and those of the files. A start loads on demand
  # what is not in the application's own list.
  defp run(node), do: for(module <- [@x, @y], do: vsn(node, module))

  defp vsn(node, module) do
    case Cluster.call(node, :code, :ensure_loaded, [module]) do
      {:module, ^module} -> Cluster.call(node, module, :vsn, [])
      {:error, :nofile} -> nil
    end
  end

  defp files(machine) do
    for module <- [@x, @y] do
      case File.read(Path.join([machine.lib, @ebin, "#{module}.beam"])) do
        {:ok, bytes} -> Enum.find(1..9, &(Builds.versioned(module, &1) == bytes))
        {:error, :enoent} -> nil
      end
    end
  end

  defp info(node), do: Enum.find(hot_patch(node, :nodes, []), &(&1.node == node))
  defp stack(node), do: {info(node).applied, info(node).memory_only}
  defp drift(node), do: answers(hot_patch(node, :drift, []))
  defp journal(node, id), do: answers(hot_patch(node, :journal, [[patch: id]]))
  defp answers({:ok, %{failed: [], items: items}}), do: items

  defp caught_up(nodes, expected) do
    Rig.look_until(fn ->
      found = for node <- nodes, do: {stack(node), run(node)}
      infos = Enum.map(nodes, &info/1)
      free? = Enum.all?(infos, &(&1.behind == nil and &1.operation == nil))

      if free? and Enum.uniq(found) == [expected],
        do: :ok,
        else: {:not_yet, "#{inspect(found)}, #{inspect(Enum.map(infos, & &1.behind))}"}
    end)
  end

  test "is named as what it is, and gone with a restart, which is said" do
    [machine] = start(1)
    %{node: node} = machine
    base = base(node)
    id = patch(node, "memory", [{@x, 2}])

    assert {:ok, plan} = hot_patch(node, :plan, [id, @memory])
    assert plan.disk == :memory_only
    assert to_string(plan) =~ "in memory only: gone with a restart"
    report = apply!(node, id, @memory)
    assert %{status: :ok, disk: :memory_only} = report
    assert to_string(report) =~ "in memory only: gone with a restart"
    assert run(node) == [2, 1]
    assert files(machine) == [1, 1]

    assert stack(node) == {[base, id], [id]}
    assert to_string(info(node)) =~ "in memory only: #{id}"
    assert info(node).restart_needed == []

    assert [%{from: :disk, cause: cause} = drift] = drift(node)
    assert drift.module == "#{@x}"
    assert cause == "#{id} is applied in memory only, until a restart"

    assert [%{what: :apply, disk: :memory_only} = entry | _] = journal(node, id)
    assert to_string(entry) =~ "in memory only"

    machine = again(machine)
    assert run(node) == [1, 1]
    assert stack(node) == {[base], []}
    assert drift(node) == []

    assert [%{what: :retire, by: "HotPatch", reason: reason} | _] = journal(node, id)
    assert reason == "it was applied in memory only, and the node has started anew"

    # It is not in force, and nothing stands in the way of applying it anew.
    assert {:error, %Error{reason: :not_applied}} = hot_patch(node, :rollback, [id])
    apply!(node, id)
    assert {run(node), files(machine)} == {[2, 1], [2, 1]}
    again(machine)
    assert run(node) == [2, 1]
    assert stack(node) == {[base, id], []}
  end

  test "a rollback gives back what ran, and touches no file either" do
    [machine] = start(1)
    %{node: node} = machine
    base = base(node)
    id = patch(node, "memory", [{@x, 2}])
    apply!(node, id, @memory)
    stat = File.stat!(Path.join([machine.lib, @ebin, "#{@x}.beam"]))
    assert %{disk: :memory_only} = rollback!(node, id)
    assert {run(node), files(machine)} == {[1, 1], [1, 1]}
    assert File.stat!(Path.join([machine.lib, @ebin, "#{@x}.beam"])) == stat
    assert stack(node) == {[base], []}
    assert drift(node) == []
    assert [%{what: :rollback, disk: :memory_only} | _] = journal(node, id)
  end

  test "a module that it brings has no file, and is gone as it came" do
    [machine] = start(1)
    %{node: node} = machine
    id = patch(node, "memory", [{@x, 1}])
    apply!(node, id, @memory)
    assert {run(node), files(machine)} == {[1, nil], [nil, nil]}
    rollback!(node, id)
    assert run(node) == [nil, nil]
    apply!(node, id, @memory)
    again(machine)
    assert run(node) == [nil, nil]
    assert stack(node) == {[], []}
  end

  describe "beside patches that are on disk" do
    test "those of other files come and go, in any order, and only they outlive a restart" do
      [machine] = start(1)
      %{node: node} = machine
      base = base(node)
      memory = patch(node, "memory", [{@x, 2}])
      disk = patch(node, "disk", [{@y, 3}])
      apply!(node, memory, @memory)
      apply!(node, disk)
      assert stack(node) == {[base, memory, disk], [memory]}
      assert {run(node), files(machine)} == {[2, 3], [1, 3]}

      again(machine)
      assert {run(node), files(machine)} == {[1, 3], [1, 3]}
      assert stack(node) == {[base, disk], []}

      apply!(node, memory, @memory)
      assert stack(node) == {[base, disk, memory], [memory]}
      rollback!(node, disk)
      assert {run(node), files(machine)} == {[2, 1], [1, 1]}
      rollback!(node, memory)
      assert {run(node), files(machine)} == {[1, 1], [1, 1]}
      rollback!(node, base)
      assert {run(node), files(machine)} == {[nil, nil], [nil, nil]}
    end

    test "one of the same file has to wait, and one below it too" do
      [machine] = start(1)
      %{node: node} = machine
      base = base(node)
      memory = patch(node, "memory", [{@x, 2}])
      disk = patch(node, "disk", [{@x, 3}])
      apply!(node, memory, @memory)

      for options <- [[], [cumulative: true]] do
        assert {:error, %Error{reason: :refused} = error} =
                 hot_patch(node, :apply, [disk, options])

        assert Exception.message(error) =~ "#{memory} is applied in memory only"

        assert Exception.message(error) =~
                 "roll it back first, restart the node, or apply this one"
      end

      assert {:error, %Error{} = error} = hot_patch(node, :rollback, [base])
      assert Exception.message(error) =~ memory
      assert {run(node), files(machine)} == {[2, 1], [1, 1]}
      assert stack(node) == {[base, memory], [memory]}

      # As it says.
      apply!(node, disk, @memory)
      assert {run(node), files(machine)} == {[3, 1], [1, 1]}
      rollback!(node, disk)
      assert run(node) == [2, 1]
      rollback!(node, memory)
      apply!(node, disk)
      assert {run(node), files(machine)} == {[3, 1], [3, 1]}
    end

    test "one that takes the place of all gives it back with a restart" do
      [machine] = start(1)
      %{node: node} = machine
      base = base(node)
      memory = patch(node, "memory", [{@x, 2}])
      disk = patch(node, "disk", [{@y, 3}])
      whole = patch(node, "whole", [{@x, 4}])
      apply!(node, memory, @memory)
      apply!(node, disk)
      report = apply!(node, whole, [cumulative: true] ++ @memory)
      assert stack(node) == {[whole], [whole]}
      # What it does not bring goes back to the release's own; where that has no file, it stays.
      assert {run(node), files(machine)} == {[4, 3], [1, 3]}

      kept =
        for file <- hd(report.nodes).files, file.path =~ "#{@y}", do: {file.status, file.reason}

      assert [{:not_changed, "it stays: its file does, and would bring it back" <> _}] = kept
      again(machine)
      assert stack(node) == {[base, disk], []}
      assert {run(node), files(machine)} == {[1, 3], [1, 3]}
      assert drift(node) == []
    end
  end

  describe "in a cluster" do
    test "a node that starts again gets it from the others, in its place, and in memory only" do
      [a, b] = start(2)
      base = base(a.node)
      memory = patch(a.node, "memory", [{@x, 2}])
      disk = patch(a.node, "disk", [{@y, 3}])
      apply!(a.node, memory, @memory)
      apply!(a.node, disk)

      for machine <- [b, a] do
        again(machine)
        caught_up([a.node, b.node], {{[base, memory, disk], [memory]}, [2, 3]})
        assert files(machine) == [1, 3]
        what = for entry <- journal(machine.node, memory), do: {entry.what, entry.disk}
        assert {:apply, :memory_only} in what
        refute {:apply, :replace} in what
      end

      # To be rid of it everywhere.
      rollback!(b.node, memory)
      caught_up([a.node, b.node], {{[base, disk], []}, [1, 3]})
    end

    test "one that was away when it came gets it, and one that was away when it went does not" do
      [a, b] = start(2)
      base = base(a.node)
      memory = patch(a.node, "memory", [{@x, 2}])
      b = Machine.kill(b)
      apply!(a.node, memory, @memory)
      b = Machine.start(b)
      caught_up([a.node, b.node], {{[base, memory], [memory]}, [2, 1]})
      assert files(b) == [1, 1]

      b = Machine.kill(b)
      rollback!(a.node, memory)
      b = Machine.start(b)
      caught_up([a.node, b.node], {{[base], []}, [1, 1]})
      assert files(b) == [1, 1]
    end

    # Only the coordinator comes to the first.
    for step <- [:decision_journaled, :loaded, :state_written, :ended] do
      test "where all have started again it is gone, also when they died at #{step}" do
        [a, b] = start(2)
        base = base(a.node)
        memory = patch(a.node, "memory", [{@x, 2}])
        step = unquote(step)

        for %{node: node} <- [a, b],
            do: :ok = Cluster.call(node, HotPatch.Support.FaultPoint, :arm, [step])

        task = Task.async(fn -> hot_patch_or_dead(a.node, memory) end)
        a = Machine.await_death(a)
        b = if step == :decision_journaled, do: Machine.kill(b), else: Machine.await_death(b)
        _ = Task.await(task, 120_000)
        [a, b] = Machine.start_all([a, b])
        true = Cluster.call(a.node, Node, :connect, [b.node])
        caught_up([a.node, b.node], {{[base], []}, [1, 1]})
        assert [files(a), files(b)] == [[1, 1], [1, 1]]
        assert [drift(a.node), drift(b.node)] == [[], []]

        # It can be applied as if it had never been there.
        assert %{status: :ok} = apply!(b.node, memory, @memory)
        assert {run(a.node), run(b.node)} == {[2, 1], [2, 1]}
      end
    end

    defp hot_patch_or_dead(node, id) do
      hot_patch(node, :apply, [id, @memory])
    catch
      :error, {:erpc, reason} -> reason
    end
  end
end
