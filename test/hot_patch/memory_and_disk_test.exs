defmodule HotPatch.MemoryAndDiskTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Report
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes

  # Where memory and disk are not the same before a patch, or after its way back.

  setup_all do
    [node] = Cluster.start(1)
    %{node: node}
  end

  defp name, do: :"hot_patch_test_drift_#{System.unique_integer([:positive])}"
  defp file(name, vsn), do: {"exchange-1.0.0/ebin/#{name}.beam", Builds.versioned(name, vsn)}
  defp path(node, name), do: Cluster.exchange(node) <> "/ebin/#{name}.beam"
  defp copy(node, name, vsn), do: File.write!(path(node, name), Builds.versioned(name, vsn))
  defp memory(node, name), do: Cluster.call(node, name, :vsn, [])

  # Which version the file has.
  defp disk(node, name) do
    {:ok, {_, [attributes: attributes]}} =
      :beam_lib.chunks(to_charlist(path(node, name)), [:attributes])

    hd(attributes[:vsn])
  end

  # Loads a version as somebody does by hand, from a file elsewhere or from none.
  defp load(node, name, vsn, from) do
    {:module, ^name} =
      Cluster.call(node, :code, :load_binary, [
        name,
        to_charlist(from),
        Builds.versioned(name, vsn)
      ])

    true = Cluster.call(node, :code, :soft_purge, [name])
  end

  defp restart_needed(node), do: hd(hot_patch(node, :nodes, [])).restart_needed

  describe "code that runs and is in no file" do
    setup %{node: node} do
      name = name()
      copy(node, name, 1)
      {:module, ^name} = Cluster.call(node, :code, :load_file, [name])
      copy(node, name, 3)
      %{name: name, patch: upload!(node, [file(name, 2)], "#{name}")}
    end

    test "is told by check and plan, and has the patch refused", context do
      %{node: node, name: name, patch: patch} = context
      assert {:ok, %Report{status: :error} = check} = hot_patch(node, :check, [patch.id])
      assert [%{files: [%{reason: reason}]}] = check.nodes
      assert reason =~ "no rollback could bring it back"
      assert reason =~ path(node, name)
      assert reason =~ "drift: :accept"

      assert {:ok, plan} = hot_patch(node, :plan, [patch.id])
      assert risk?(hd(plan.nodes), "no rollback could bring it back")

      assert {:error, %Error{reason: :refused}} = hot_patch(node, :apply, [patch.id])
      assert {memory(node, name), disk(node, name)} == {1, 3}
    end

    test "gives way where that is accepted, and the rollback says what it goes to", context do
      %{node: node, name: name, patch: patch} = context
      accept = [drift: :accept]
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :check, [patch.id, accept])
      assert {:ok, plan} = hot_patch(node, :plan, [patch.id, accept])
      assert risk?(hd(plan.nodes), "no rollback could bring it back")

      assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, [patch.id, accept])
      assert {memory(node, name), disk(node, name)} == {2, 2}

      assert {:ok, plan} = hot_patch(node, :plan, [patch.id, [operation: :rollback]])
      assert risk?(hd(plan.nodes), "what ran before the patch is kept nowhere")
      assert {:ok, report} = hot_patch(node, :rollback, [patch.id])
      assert [%{files: [%{status: :ok, reason: reason}]}] = report.nodes
      assert reason =~ "the version of its file becomes current"
      assert {memory(node, name), disk(node, name)} == {3, 3}
    end
  end

  describe "a rollback brings memory and disk each to what they were" do
    test "where the code came from another file", %{node: node} do
      name = name()
      copy(node, name, 3)
      elsewhere = Path.join(Cluster.home(node), "#{name}.beam")
      File.write!(elsewhere, Builds.versioned(name, 1))

      {:module, ^name} =
        Cluster.call(node, :code, :load_abs, [to_charlist(Path.rootname(elsewhere))])

      patch = upload!(node, [file(name, 2)], "#{name}")

      assert {:ok, plan} = hot_patch(node, :plan, [patch.id])
      assert risk?(hd(plan.nodes), "what runs is not what is on disk")
      assert {:ok, _report} = hot_patch(node, :apply, [patch.id])
      # Only the way back has it now.
      File.rm!(elsewhere)
      assert {memory(node, name), disk(node, name)} == {2, 2}
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :rollback, [patch.id])
      assert {memory(node, name), disk(node, name)} == {1, 3}
    end

    test "where an earlier patch has brought it and its file was overwritten", %{node: node} do
      name = name()
      first = upload!(node, [file(name, 1)], "#{name}-1")
      assert {:ok, _report} = hot_patch(node, :apply, [first.id])
      copy(node, name, 3)
      second = upload!(node, [file(name, 2)], "#{name}-2")
      assert {:ok, _report} = hot_patch(node, :apply, [second.id])
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :rollback, [second.id])
      assert {memory(node, name), disk(node, name)} == {1, 3}
      # Whoever has overwritten it has to say which is right.
      assert {:error, %Error{reason: :refused}} = hot_patch(node, :rollback, [first.id])
      copy(node, name, 1)
      assert {:ok, _report} = hot_patch(node, :rollback, [first.id])
      refute File.exists?(path(node, name))
    end

    test "but for the patch's own code that was loaded by hand before: that goes", %{node: node} do
      name = name()
      copy(node, name, 1)
      load(node, name, 2, path(node, name))
      patch = upload!(node, [file(name, 2)], "#{name}")
      assert {:ok, plan} = hot_patch(node, :plan, [patch.id])
      assert risk?(hd(plan.nodes), "it runs what the patch brings already")
      assert {:ok, %Report{status: :not_changed}} = hot_patch(node, :apply, [patch.id])
      assert {memory(node, name), disk(node, name)} == {2, 2}
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :rollback, [patch.id])
      assert {memory(node, name), disk(node, name)} == {1, 1}
    end

    test "where only the attributes differ", %{node: node} do
      name = name()

      text = fn vsn, note ->
        "-module(#{name}).\n-vsn(#{vsn}).\n-note(#{note}).\n-export([f/0]).\nf() -> #{div(vsn, 2)}.\n"
      end

      bytes =
        Map.new([{2, "a"}, {3, "b"}, {4, "c"}], fn {vsn, note} ->
          {vsn, Builds.erlang(text.(vsn, note))}
        end)

      File.write!(path(node, name), bytes[2])
      {:module, ^name} = Cluster.call(node, :code, :load_file, [name])
      # The same code by its digest, which does not cover the version.
      File.write!(path(node, name), bytes[3])
      patch = upload!(node, [{"exchange-1.0.0/ebin/#{name}.beam", bytes[4]}], "#{name}")
      assert {:error, %Error{reason: :refused} = error} = hot_patch(node, :apply, [patch.id])
      assert error.message =~ "no rollback could bring it back"
    end

    test "where a cumulative patch takes it out", %{node: node} do
      name = name()
      other = name()
      first = upload!(node, [file(name, 1)], "#{name}-1")
      assert {:ok, _report} = hot_patch(node, :apply, [first.id])
      second = upload!(node, [file(other, 1)], "#{name}-2")
      options = [cumulative: true]
      assert {:ok, _report} = hot_patch(node, :apply, [second.id, options])
      refute running(node, name)
      assert {:ok, _report} = hot_patch(node, :rollback, [second.id])
      assert {memory(node, name), disk(node, name)} == {1, 1}
      assert {:ok, _report} = hot_patch(node, :rollback, [first.id])
    end
  end

  describe "one cumulative patch over another" do
    test "goes back to the release's own, not to what the first had replaced", %{node: node} do
      name = name()
      copy(node, name, 0)
      {:module, ^name} = Cluster.call(node, :code, :load_file, [name])
      cumulative = [cumulative: true]
      one = upload!(node, [file(name, 1)], "#{name}-1")
      two = upload!(node, [file(name, 2)], "#{name}-2")
      three = upload!(node, [file(name(), 3)], "#{name}-3")
      assert {:ok, _report} = hot_patch(node, :apply, [one.id])
      assert {:ok, _report} = hot_patch(node, :apply, [two.id, cumulative])
      assert {:ok, _report} = hot_patch(node, :apply, [three.id, cumulative])
      assert {memory(node, name), disk(node, name)} == {0, 0}
      assert {:ok, _report} = hot_patch(node, :rollback, [three.id])
      assert {memory(node, name), disk(node, name)} == {2, 2}
      assert hd(hot_patch(node, :nodes, [])).applied == [two.id]

      # The same once more, and back: it has replaced what it had replaced.
      assert {:ok, _report} = hot_patch(node, :apply, [two.id, cumulative])
      assert {:ok, _report} = hot_patch(node, :rollback, [two.id])
      assert hd(hot_patch(node, :nodes, [])).applied == [one.id]
      assert {memory(node, name), disk(node, name)} == {1, 1}
      assert {:ok, _report} = hot_patch(node, :rollback, [one.id])
      assert {memory(node, name), disk(node, name)} == {0, 0}
    end
  end

  describe "nodes/0 says that a restart is needed" do
    defp on_load(name, vsn) do
      {"exchange-1.0.0/ebin/#{name}.beam",
       Builds.erlang("""
       -module(#{name}).
       -vsn(#{vsn}).
       -on_load(load/0).
       -export([vsn/0]).
       vsn() -> #{vsn}.
       load() -> ok.
       """)}
    end

    test "after a rollback that has changed the disk alone, until memory is so", %{node: node} do
      name = name()
      {_path, bytes} = on_load(name, 1)
      File.write!(path(node, name), bytes)
      {:module, ^name} = Cluster.call(node, :code, :load_file, [name])
      patch = upload!(node, [on_load(name, 2)], "#{name}")
      assert {:ok, %Report{status: :ok}} = hot_patch(node, :apply, [patch.id, [on_load: :load]])
      assert restart_needed(node) == []

      assert {:ok, %Report{status: :not_updated} = report} =
               hot_patch(node, :rollback, [patch.id, [on_load: :restart]])

      assert hd(report.nodes).restart_needed =~ "#{name}"
      assert {memory(node, name), disk(node, name)} == {2, 1}
      assert [reason] = restart_needed(node)
      assert reason == "on disk but not in memory: #{name}"
      assert {:ok, drift} = hot_patch(node, :drift, [])
      assert %{cause: cause} = Enum.find(drift, &(&1.module == "#{name}"))
      assert cause =~ "until a restart"

      # By whatever way memory comes to it.
      true = Cluster.call(node, :code, :soft_purge, [name])
      {:module, ^name} = Cluster.call(node, :code, :load_file, [name])
      assert restart_needed(node) == []
    end

    test "for what somebody has loaded over a patch", %{node: node} do
      name = name()
      patch = upload!(node, [file(name, 1)], "#{name}")
      assert {:ok, _report} = hot_patch(node, :apply, [patch.id])
      assert restart_needed(node) == []
      load(node, name, 9, path(node, name))

      assert restart_needed(node) == [
               "in memory otherwise than #{patch.id} has brought it: #{name}"
             ]

      load(node, name, 1, path(node, name))
      assert restart_needed(node) == []
      assert {:ok, _report} = hot_patch(node, :rollback, [patch.id])
    end
  end
end
