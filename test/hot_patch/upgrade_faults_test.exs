defmodule HotPatch.UpgradeFaultsTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.NextRelease, only: [ask: 2, ask: 3]
  import HotPatch.Test.Until

  alias HotPatch.Support.FaultPoint
  alias HotPatch.Support.Folder
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: :infinity

  # Nodes are killed at steps of upgrades, of their way back, and of making them permanent; each is wholly old or wholly
  # new when it is back, and all agree. script/faults --upgrade has more of them.

  @faults String.to_integer(System.get_env("HOT_PATCH_UPGRADE_FAULTS", "4"))
  @seed String.to_integer(System.get_env("HOT_PATCH_SEED", "1"))

  # Steps that a node comes to; with how often it comes there.
  @up [
    reserved: 1,
    intent_written: 1,
    files_staged: 1,
    prepared: 1,
    early_placed: 12,
    held: 1,
    decision_journaled: 1,
    decided: 1,
    loaded: 1,
    decision_written: 1,
    file: 12,
    files_replaced: 1,
    state_written: 1,
    journal_written: 1,
    intent_removed: 1,
    ended: 1
  ]
  @down Keyword.drop(@up, [:early_placed, :file])
  @permanent [before_permanent: 1, permanent: 1]

  setup do
    _ = :rand.seed(:exsss, {@seed, 0, 0})
    :ok
  end

  for {count, share} <- [{1, 2}, {3, 2}] do
    test "killed at any step, #{count} of them" do
      rig = start(unquote(count))

      Enum.reduce(1..div(@faults, unquote(share))//1, rig, fn number, rig ->
        fault = choose(rig)
        rig = strike(rig, fault)
        if @faults > 4, do: IO.puts("fault #{number}: right #{inspect(fault)}, #{rig.version}")
        rig
      end)
    end
  end

  test "the way back from a permanent release is finished by a start that begins with the other" do
    rig = start(1)
    [{node, root, _peer}] = rig.nodes
    {:ok, %{status: :ok}} = hot_patch(node, :apply, [rig.patch, [permanent: :now]])
    rig = again(rig, 0)
    assert looks(node) == rig.new
    :ok = Cluster.call(node, FaultPoint, :arm, [:decision_written, 1])
    _ = attempt(node, :rollback, [rig.patch])
    assert File.read!(Path.join(root, "releases/start_erl.data")) =~ " 1.1.0"
    rig = again(rig, 0)
    agree(rig, :decision_written)
    assert looks(node) == rig.old
    assert File.read!(Path.join(root, "releases/start_erl.data")) =~ " 1.0.0"
  end

  test "a torn start_erl.data is told, and put right" do
    %{nodes: [{node, root, _peer}], patch: patch} = start(1)
    {:ok, _report} = hot_patch(node, :apply, [patch])
    path = Path.join(root, "releases/start_erl.data")
    File.write!(path, "13.")
    {:ok, releases} = hot_patch(node, :releases, [])
    assert for(one <- releases.items, do: one.boots?) == [nil, nil]
    assert {:ok, _releases} = hot_patch(node, :make_permanent, ["1.1.0"])
    assert File.read!(path) == "#{:erlang.system_info(:version)} 1.1.0"
  end

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  defp start(count) do
    made = NextRelease.make()

    nodes =
      for n <- 1..count do
        root = Path.join(Path.dirname(made.old), "m#{n}")
        {_, 0} = System.cmd("cp", ["-a", made.old, root])
        {node, peer} = NextRelease.boot(root)
        {node, root, peer}
      end

    connect(nodes)
    {node, _root, _peer} = hd(nodes)
    {:ok, patch} = hot_patch(node, :upload, [made.zip])
    old = looks(node)
    {:ok, %{status: :ok}} = hot_patch(node, :apply, [patch.id])
    new = looks(node)
    {:ok, %{status: :ok}} = hot_patch(node, :rollback, [patch.id])
    assert looks(node) == old
    %{nodes: nodes, patch: patch.id, old: old, new: new, version: "1.0.0", permanent?: false}
  end

  defp choose(rig) do
    kind =
      cond do
        rig.version == "1.0.0" -> :apply
        rig.permanent? -> :rollback
        true -> Enum.random([:rollback, :make_permanent, :make_permanent])
      end

    steps = %{apply: @up, rollback: @down, make_permanent: @permanent}
    {step, most} = Enum.random(steps[kind])
    step = if step == :file, do: {:file, :any, :any}, else: step

    %{
      kind: kind,
      step: step,
      nth: :rand.uniform(most),
      victim: :rand.uniform(length(rig.nodes)) - 1,
      coordinator: :rand.uniform(length(rig.nodes)) - 1
    }
  end

  defp strike(rig, fault) do
    {victim, _root, _peer} = Enum.at(rig.nodes, fault.victim)
    {coordinator, _root, _peer} = Enum.at(rig.nodes, fault.coordinator)
    :ok = Cluster.call(victim, FaultPoint, :arm, [fault.step, fault.nth])
    _ = carry_out(coordinator, fault.kind, rig)
    rig = if disarmed?(victim), do: rig, else: again(rig, fault.victim)
    connect(rig.nodes)

    agree(rig, fault)
    for {node, root, _peer} <- rig.nodes, do: clean(node, root)
    next(rig)
  end

  defp agree(rig, fault) do
    until(fn -> agreed(rig) end, "all agree", 60_000)
  rescue
    error in ExUnit.AssertionError ->
      flunk("#{error.message} after #{inspect(fault)}: #{inspect(seen(rig), limit: :infinity)}")
  end

  # Whatever comes of it: the node that leads may be the one that is killed.
  defp carry_out(node, :make_permanent, _rig), do: attempt(node, :make_permanent, ["1.1.0"])
  defp carry_out(node, kind, rig), do: attempt(node, kind, [rig.patch])

  defp attempt(node, function, args) do
    hot_patch(node, function, args)
  catch
    _class, reason -> {:error, reason}
  end

  # It was not reached, where the node goes on.
  defp disarmed?(node) do
    Cluster.call(node, FaultPoint, :disarm, []) == :ok
  catch
    _class, _gone -> false
  end

  defp again(rig, index) do
    {node, root, peer} = Enum.at(rig.nodes, index)
    NextRelease.stop(peer)
    [name, _host] = node |> Atom.to_string() |> String.split("@")
    {^node, peer} = NextRelease.boot(root, String.to_atom(name))
    %{rig | nodes: List.replace_at(rig.nodes, index, {node, root, peer})}
  end

  defp connect(nodes) do
    for {a, _, _} <- nodes,
        {b, _, _} <- nodes,
        a < b,
        do: true = Cluster.call(a, Node, :connect, [b])
  end

  # All are the same, and wholly the one or the other.
  defp agreed(rig) do
    case Enum.uniq(seen(rig)) do
      [{looks, applied}] when looks == rig.old and applied == [] -> idle?(rig)
      [{looks, applied}] when looks == rig.new and applied == [rig.patch] -> idle?(rig)
      _not_yet -> false
    end
  end

  defp idle?(rig) do
    {node, _root, _peer} = hd(rig.nodes)

    hot_patch(node, :progress, []) == [] and
      Enum.all?(hot_patch(node, :nodes, []), &(&1.behind == nil and &1.operation == nil))
  end

  defp seen(rig) do
    for {node, _root, _peer} <- rig.nodes do
      applied = Enum.find_value(hot_patch(node, :nodes, []), &(&1.node == node && &1.applied))
      {looks(node), applied}
    end
  catch
    _class, reason -> [reason]
  end

  # What tells a release in memory.
  defp looks(node) do
    names = [:shop, :rates, :legacy, :scales]

    modules = [
      :shop_server,
      :shop_sup,
      :shop_sign,
      :shop_till,
      :shop_old,
      :rates_server,
      :legacy_server
    ]

    %{
      running:
        for(
          {name, _, vsn} <- Cluster.call(node, :application, :which_applications, []),
          name in names,
          into: %{},
          do: {name, vsn}
        ),
      keys: Cluster.call(node, :application, :get_all_key, [:shop]) |> sorted(),
      env: Cluster.call(node, :application, :get_all_env, [:shop]) |> Enum.sort(),
      children:
        for(
          {id, _, _, _} <- Cluster.call(node, :supervisor, :which_children, [:shop_sup]),
          into: MapSet.new(),
          do: id
        ),
      code:
        for(m <- modules, do: {m, Cluster.call(node, HotPatch.NodeAgent.LoadedCode, :md5, [m])}),
      path:
        for(
          folder <- Cluster.call(node, :code, :get_path, []),
          name = folder |> to_string() |> Path.dirname() |> Path.basename(),
          Enum.any?(names, &String.starts_with?(name, "#{&1}-")),
          into: MapSet.new(),
          do: name
        ),
      release: Cluster.call(node, HotPatch.Release, :current, []),
      serves: ask(node, :shop_server) |> elem(0)
    }
  end

  # The environment is looked at by itself.
  defp sorted({:ok, keys}), do: keys |> Keyword.delete(:env) |> Enum.sort()

  defp clean(node, root) do
    left =
      for folder <- ["lib", "releases"],
          {path, _stat} <- Folder.tree(Path.join(root, folder)),
          Path.basename(path) =~ ".hot_patch-",
          do: path

    assert left == []

    for data <- Folder.folders(Path.join(root, "data")),
        do: assert(Folder.files(Path.join(data, "staged"), "") == [])

    :ok = ask(node, :shop_server, :sell)
  end

  defp next(rig) do
    {node, root, _peer} = hd(rig.nodes)
    version = looks(node).release.version
    permanent? = File.read!(Path.join(root, "releases/start_erl.data")) =~ " 1.1.0"
    %{rig | version: version, permanent?: permanent?}
  end
end
