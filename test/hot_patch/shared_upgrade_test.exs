defmodule HotPatch.SharedUpgradeTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.NextRelease, only: [ask: 2]
  import HotPatch.Test.Until

  alias HotPatch.Support.FaultPoint
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease
  alias HotPatch.Test.PatchedShared

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: 240_000

  # A live upgrade over a patch of the former release in a folder that both releases have: the patch ends there, on disk
  # and in memory, and comes again with the way back, exactly once. Nodes of one host may have that folder in common.

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  defp ok!({:ok, %{status: :ok} = report}), do: report
  defp ok!({_ok_or_error, other}), do: flunk("#{said(other)}")

  defp said(error) when is_exception(error), do: Exception.message(error)

  defp said(report) do
    for %{files: files, error: error} <- report.nodes,
        text <- [error | Enum.map(files, &"#{&1.path} #{&1.status}: #{&1.reason}")],
        do: "#{text}\n"
  end

  defp start(count) do
    made = NextRelease.make()
    PatchedShared.ship(made)
    nodes = for _n <- 1..count, do: NextRelease.boot(made.old)
    [{node, _peer} | others] = nodes
    for {other, _peer} <- others, do: true = Cluster.call(node, Node, :connect, [other])
    until(fn -> length(hot_patch(node, :nodes, [])) == count end, "all are there")
    {:ok, upgrade} = hot_patch(node, :upload, [made.zip])
    {:ok, fix} = hot_patch(node, :upload, [zip(PatchedShared.files()), [name: "fix"]])
    %{root: made.old, nodes: nodes, node: node, upgrade: upgrade.id, fix: fix.id}
  end

  defp again(run, index) do
    {node, peer} = Enum.at(run.nodes, index)
    NextRelease.stop(peer)
    [name, _host] = node |> Atom.to_string() |> String.split("@")
    {^node, peer} = NextRelease.boot(run.root, String.to_atom(name))

    for {other, _peer} <- run.nodes,
        other != node,
        do: Cluster.call(node, Node, :connect, [other])

    %{run | nodes: List.replace_at(run.nodes, index, {node, peer})}
  end

  defp names(run), do: for({node, _peer} <- run.nodes, do: node)

  defp patched!(run) do
    assert PatchedShared.disk(run.root) == :patched
    for node <- names(run), do: assert(PatchedShared.memory(node) == :patched, "#{node}")
    assert [%{applied: [fix]} | _] = all = hot_patch(run.node, :nodes, [])
    assert Enum.all?(all, &(&1.restart_needed == []))
    assert fix == run.fix and length(Enum.uniq_by(all, & &1.applied)) == 1
    assert {:ok, %{items: []}} = hot_patch(run.node, :drift, [])
  end

  defp upgraded!(run) do
    assert PatchedShared.disk(run.root) == :shipped
    for node <- names(run), do: assert(PatchedShared.memory(node) == :shipped, "#{node}")
    assert [%{applied: [upgrade]} | _] = all = hot_patch(run.node, :nodes, [])
    assert Enum.all?(all, &(&1.restart_needed == []))
    assert upgrade == run.upgrade and length(Enum.uniq_by(all, & &1.applied)) == 1
    for node <- names(run), do: assert({2, _state} = ask(node, :shop_server))
    assert {:ok, %{items: []}} = hot_patch(run.node, :drift, [])
  end

  for count <- [1, 2] do
    test "the patch ends with the upgrade and comes again with the way back, #{count} on the folder" do
      run = start(unquote(count))
      ok!(hot_patch(run.node, :apply, [run.fix]))
      patched!(run)
      pids = for node <- names(run), do: Cluster.call(node, Process, :whereis, [:scales_server])

      report = ok!(hot_patch(run.node, :check, [run.upgrade]))
      assert said(report) |> to_string() =~ "before #{run.fix}, which ends with the release"
      ok!(hot_patch(run.node, :apply, [run.upgrade]))
      upgraded!(run)

      # One of the new release over the same file, which goes before it.
      next = zip(PatchedShared.files(3))
      {:ok, next} = hot_patch(run.node, :upload, [next, [name: "next"]])
      ok!(hot_patch(run.node, :apply, [next.id]))
      for node <- names(run), do: assert({3, {:v3, []}} = ask(node, :scales_server))
      ok!(hot_patch(run.node, :rollback, [next.id]))
      upgraded!(run)

      ok!(hot_patch(run.node, :rollback, [run.upgrade]))
      patched!(run)

      # Nobody was started anew for any of it.
      assert pids ==
               for(
                 node <- names(run),
                 do: Cluster.call(node, Process, :whereis, [:scales_server])
               )

      ok!(hot_patch(run.node, :rollback, [run.fix]))
      assert PatchedShared.disk(run.root) == :shipped
      for node <- names(run), do: assert(PatchedShared.memory(node) == :shipped)
    end
  end

  test "a start before the upgrade is permanent has the patch in force, and the upgrade comes again" do
    run = start(2)
    ok!(hot_patch(run.node, :apply, [run.fix]))
    ok!(hot_patch(run.node, :apply, [run.upgrade]))

    # The other runs the upgrade, and this one comes to it again.
    run = again(run, 1)
    agree(run)
    upgraded!(run)

    # Nobody does: the release of before, as it was.
    for {_node, peer} <- run.nodes, do: NextRelease.stop(peer)
    run = run |> again(0) |> again(1)
    agree(run)
    patched!(run)

    # Permanent: a start boots the new one, which has no such patch.
    ok!(hot_patch(run.node, :apply, [run.upgrade, [permanent: :now]]))
    for {_node, peer} <- run.nodes, do: NextRelease.stop(peer)
    run = run |> again(0) |> again(1)
    agree(run)
    upgraded!(run)
    ok!(hot_patch(run.node, :rollback, [run.upgrade]))
    patched!(run)
    for {_node, peer} <- run.nodes, do: NextRelease.stop(peer)
    run = run |> again(0) |> again(1)
    agree(run)
    patched!(run)
  end

  test "over a patch that is in memory only" do
    run = start(1)
    beams = for {path, _} = file <- PatchedShared.files(), Path.extname(path) == ".beam", do: file
    {:ok, fix} = hot_patch(run.node, :upload, [zip(beams), [name: "fix"]])
    ok!(hot_patch(run.node, :apply, [fix.id, [disk: :memory_only]]))
    assert {2, {:v2, []}} = ask(run.node, :scales_server)
    ok!(hot_patch(run.node, :apply, [run.upgrade]))
    upgraded!(run)
    ok!(hot_patch(run.node, :rollback, [run.upgrade]))
    assert {2, {:v2, []}} = ask(run.node, :scales_server)
    assert PatchedShared.disk(run.root) == :shipped
    assert [%{applied: [id]}] = hot_patch(run.node, :nodes, [])
    assert id == fix.id
    ok!(hot_patch(run.node, :rollback, [fix.id]))
    assert PatchedShared.memory(run.node) == :shipped
  end

  test "a state that the patch cannot take back refuses the upgrade, and nothing has changed" do
    run = start(2)
    ok!(hot_patch(run.node, :apply, [run.fix]))
    {node, _peer} = List.last(run.nodes)
    Cluster.call(node, :sys, :replace_state, [:scales_server, &:erlang.tuple_to_list/1])
    assert {:error, %{reason: :failed}} = hot_patch(run.node, :apply, [run.upgrade])
    Cluster.call(node, :sys, :replace_state, [:scales_server, &:erlang.list_to_tuple/1])
    patched!(run)
  end

  test "killed between its decision and its files, the second finds what the first has left" do
    run = start(2)
    ok!(hot_patch(run.node, :apply, [run.fix]))
    {victim, _peer} = List.last(run.nodes)

    # With its decision on its own disk, and without.
    for step <- [:decision_written, :loaded], reduce: run do
      run ->
        :ok = Cluster.call(victim, FaultPoint, :arm, [step, 1])
        _ = hot_patch(run.node, :apply, [run.upgrade])
        run = again(run, 1)
        agree(run)
        upgraded!(run)
        ok!(hot_patch(run.node, :rollback, [run.upgrade]))
        patched!(run)
        run
    end

    ok!(hot_patch(run.node, :apply, [run.upgrade, [permanent: :now]]))

    # Nothing is decided: what was in place early goes again.
    :ok = Cluster.call(victim, FaultPoint, :arm, [:held, 1])
    _ = hot_patch(run.node, :rollback, [run.upgrade])
    run = again(run, 1)
    agree(run)
    upgraded!(run)

    :ok = Cluster.call(victim, FaultPoint, :arm, [:decision_written, 1])
    _ = hot_patch(run.node, :rollback, [run.upgrade])
    run = again(run, 1)
    agree(run)
    patched!(run)
  end

  defp agree(run) do
    until(
      fn ->
        nodes = hot_patch(run.node, :nodes, [])

        length(nodes) == length(run.nodes) and hot_patch(run.node, :progress, []) == [] and
          Enum.all?(nodes, &(&1.behind == nil and &1.operation == nil)) and
          length(Enum.uniq_by(nodes, & &1.applied)) == 1
      end,
      "all agree"
    )
  end
end
