defmodule HotPatch.UpgradeFaultsTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives, only: [zip: 1]
  import HotPatch.Test.NextRelease, only: [ask: 2, ask: 3]
  import HotPatch.Test.Until

  alias HotPatch.Support.FaultPoint
  alias HotPatch.Support.Folder
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.NextRelease
  alias HotPatch.Test.PatchedShared

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: :infinity

  # Nodes are killed at steps of upgrades, of their way back, and of making them permanent, or their disk is full from a
  # step on; what names the release that a start boots is torn. Each is wholly old or wholly new when it is back, and all
  # agree. script/faults --upgrade has more of them; few are kills alone.
  #
  # In one form two nodes have the release's folder in common, with a patch of the former release in an application that both
  # releases have: it ends with the upgrade, and is there again, wholly, wherever the former release runs.

  @few 6
  @faults String.to_integer(System.get_env("HOT_PATCH_UPGRADE_FAULTS", "#{@few}"))
  @form System.get_env("HOT_PATCH_UPGRADE_FORM")
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

  # What is done to a node, the kills the more often; and bytes of its disk where that may be full.
  @hows [:kill, :kill, :kill, :full_disk, :torn]
  @room 3_000_000

  setup do
    _ = :rand.seed(:exsss, {@seed, 0, 0})
    :ok
  end

  @forms %{"one" => 1, "three" => 3, "folder" => :folder}
  @chosen if @form, do: Map.take(@forms, [@form]), else: @forms

  for {form, count} <- @chosen do
    test "killed at any step: #{form}" do
      rig = start(unquote(count))

      Enum.reduce(1..div(@faults, map_size(@chosen))//1, rig, fn number, rig ->
        fault = choose(rig)
        rig = strike(rig, fault)
        if @faults > @few, do: IO.puts("fault #{number}: right #{inspect(fault)}, #{rig.version}")
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

  test "a start that finds another release permanent in RELEASES writes there what it booted" do
    rig = start(1)
    [{node, root, _peer}] = rig.nodes
    {:ok, _report} = hot_patch(node, :apply, [rig.patch])
    :ok = Cluster.call(node, FaultPoint, :arm, [:permanent, 1])
    _ = attempt(node, :make_permanent, ["1.1.0"])
    assert HotPatch.Store.ReleaseFiles.permanent(root) == "1.1.0"
    rig = again(rig, 0)
    assert looks(node) == rig.new
    # Torn, nothing else is left that says it.
    File.write!(Path.join(root, "releases/start_erl.data"), "")
    assert HotPatch.Store.ReleaseFiles.permanent(root) == "1.1.0"
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

    # By the way back, which finds it torn; then by a start.
    File.write!(path, "")
    {:ok, _report} = hot_patch(node, :rollback, [patch])
    assert File.read!(path) == "#{:erlang.system_info(:version)} 1.0.0"
  end

  test "a start by hand, where start_erl.data is torn, writes it anew" do
    rig = start(1)
    [{node, root, _peer}] = rig.nodes
    path = Path.join(root, "releases/start_erl.data")

    Enum.reduce(["", "13.", "13.1 9.9.9", <<0, 255, 32, 47, 46, 46>>], rig, fn torn, rig ->
      File.write!(path, torn)
      rig = again(rig, 0, "1.0.0")
      assert File.read!(path) == "#{:erlang.system_info(:version)} 1.0.0"
      assert looks(node) == rig.old
      rig
    end)
  end

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  defp start(:folder) do
    made = NextRelease.make()
    PatchedShared.ship(made)

    nodes =
      for _n <- 1..2 do
        {node, peer} = NextRelease.boot(made.old)
        {node, made.old, peer}
      end

    rig(nodes, made, PatchedShared.files())
  end

  defp start(count) do
    made = NextRelease.make()

    nodes =
      for n <- 1..count do
        root = Path.join(Path.dirname(made.old), "m#{n}")
        if damages?(), do: small_disk(root)
        {_, 0} = System.cmd("cp", ["-a", made.old <> "/.", root])
        {node, peer} = NextRelease.boot(root)
        {node, root, peer}
      end

    rig(nodes, made, nil)
  end

  defp rig(nodes, made, fix) do
    connect(nodes)
    {node, root, _peer} = hd(nodes)
    {:ok, patch} = hot_patch(node, :upload, [made.zip])
    fix = fix && fix!(node, fix)
    old = looks(node)
    {:ok, %{status: :ok}} = hot_patch(node, :apply, [patch.id])
    new = looks(node)
    {:ok, %{status: :ok}} = hot_patch(node, :rollback, [patch.id])
    assert looks(node) == old
    assert fix == nil or fixed(node, root) == {:patched, :patched}

    %{
      nodes: nodes,
      patch: patch.id,
      fix: fix,
      old: old,
      new: new,
      version: "1.0.0",
      permanent?: false
    }
  end

  defp fix!(node, files) do
    {:ok, fix} = hot_patch(node, :upload, [zip(files), [name: "fix"]])
    {:ok, _report} = hot_patch(node, :apply, [fix.id])
    fix.id
  end

  # What the patch in the common folder has made of disk and memory.
  defp fixed(node, root), do: {PatchedShared.disk(root), PatchedShared.memory(node)}

  # With little room, to be filled.
  defp small_disk(root) do
    Damage.mount(root, @room)
    ExUnit.Callbacks.on_exit(fn -> Damage.unmount(root) end)
  end

  defp damages?, do: @faults > @few and Damage.mounts?()

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
      how: how(rig),
      kind: kind,
      step: step,
      nth: :rand.uniform(most),
      victim: :rand.uniform(length(rig.nodes)) - 1,
      coordinator: :rand.uniform(length(rig.nodes)) - 1
    }
  end

  # One disk is all nodes' there.
  defp how(%{fix: fix}) when fix != nil, do: Enum.random([:kill, :kill_all])
  defp how(_rig), do: if(damages?(), do: Enum.random(@hows), else: :kill)

  defp strike(rig, fault) do
    rig = damage(rig, fault.how, fault)
    connect(rig.nodes)
    agree(rig, fault)
    for {node, root, _peer} <- rig.nodes, do: clean(node, root)
    next(rig)
  end

  defp damage(rig, :kill, fault) do
    {victim, _root, _peer} = Enum.at(rig.nodes, fault.victim)
    :ok = Cluster.call(victim, FaultPoint, :arm, [fault.step, fault.nth])
    _ = carry_out(coordinator(rig, fault), fault.kind, rig)
    if disarmed?(victim), do: rig, else: again(rig, fault.victim)
  end

  # The others die while it is away.
  defp damage(rig, :kill_all, fault) do
    {victim, _root, _peer} = Enum.at(rig.nodes, fault.victim)
    :ok = Cluster.call(victim, FaultPoint, :arm, [fault.step, fault.nth])
    _ = carry_out(coordinator(rig, fault), fault.kind, rig)
    for {_node, _root, peer} <- rig.nodes, do: NextRelease.stop(peer)
    Enum.reduce(0..(length(rig.nodes) - 1), rig, &again(&2, &1))
  end

  # From a step on; it may be killed and started again before there is room, or when there is.
  defp damage(rig, :full_disk, fault) do
    {victim, root, peer} = Enum.at(rig.nodes, fault.victim)
    filler = Path.join(root, "filler")
    fill = ["-c", "head -c #{@room} /dev/zero > '#{filler}' 2>/dev/null"]
    action = {System, :cmd, ["sh", fill]}
    :ok = Cluster.call(victim, FaultPoint, :arm, [fault.step, fault.nth, action])
    _ = carry_out(coordinator(rig, fault), fault.kind, rig)
    _ = disarmed?(victim)

    case Enum.random([:stays, :killed, :killed_full]) do
      :stays ->
        File.rm(filler)
        agree(rig, fault)
        if staged(root) == [], do: rig, else: finished_by_a_start(rig, fault, victim)

      :killed ->
        NextRelease.stop(peer)
        File.rm(filler)
        again(rig, fault.victim)

      :killed_full ->
        rig = again(rig, fault.victim)
        File.rm(filler)
        restarted_if_told(rig, fault, victim)
    end
  end

  # By somebody else: it is found by what is done next, or by the start that somebody finds the way to by hand.
  defp damage(rig, :torn, fault) do
    {_victim, root, _peer} = Enum.at(rig.nodes, fault.victim)
    path = Path.join(root, "releases/start_erl.data")
    booted = NextRelease.boots(root)

    torn = Enum.random(["", String.slice(File.read!(path), 0..3), :rand.bytes(20), "13.1 9.9.9"])

    File.write!(path, torn)

    rig =
      if :rand.uniform(2) == 1 do
        again(rig, fault.victim, booted)
      else
        _ = carry_out(coordinator(rig, fault), fault.kind, rig)
        rig
      end

    {victim, _root, _peer} = Enum.at(rig.nodes, fault.victim)
    {:ok, releases} = hot_patch(victim, :releases, [])
    mine = for one <- releases.items, one.node == victim, do: one.boots?
    # It is whole again, or said.
    assert true in mine or Enum.uniq(mine) == [nil]

    if true not in mine,
      do: {:ok, _report} = hot_patch(victim, :make_permanent, [running(victim)])

    rig
  end

  # A way back from a permanent release that is written to the end only now leads there by a start, and the node says so.
  defp restarted_if_told(rig, fault, victim) do
    settled? = fn ->
      staged(Enum.at(rig.nodes, fault.victim) |> elem(1)) == [] and me(victim).operation == nil
    end

    until(settled?, "what was begun is written")
    if me(victim).restart_needed == [], do: rig, else: again(rig, fault.victim)
  end

  defp me(node), do: Enum.find(hot_patch(node, :nodes, []), &(&1.node == node))

  # What could not be written is said, and written by the next start or operation.
  defp finished_by_a_start(rig, fault, victim) do
    assert me(victim).warnings != [] or staged(Enum.at(rig.nodes, fault.victim) |> elem(1)) == []
    again(rig, fault.victim)
  end

  defp running(node), do: looks(node).release.version

  defp coordinator(rig, fault), do: rig.nodes |> Enum.at(fault.coordinator) |> elem(0)

  defp agree(rig, fault) do
    until(fn -> agreed(rig) end, "all agree")
  rescue
    error in ExUnit.AssertionError ->
      how = inspect({stands(rig), seen(rig)}, limit: :infinity)
      flunk("#{error.message} after #{inspect(fault)}: #{how}\n#{journals(rig)}")
  end

  # What each says itself of why it is not there.
  defp stands(rig) do
    {node, _root, _peer} = hd(rig.nodes)

    for info <- hot_patch(node, :nodes, []),
        do: Map.take(info, [:node, :release, :behind, :operation, :warnings, :problem])
  catch
    _class, reason -> reason
  end

  # What has happened last, as each node has written it down.
  defp journals(rig) do
    for {node, _root, _peer} <- rig.nodes,
        entry <- node |> Cluster.call(HotPatch.Store.Journal, :list, []) |> Enum.take(-12),
        do: "#{node} #{inspect(Map.take(entry, [:at, :what, :patch, :reason, :op, :error]))}\n"
  catch
    _class, reason -> inspect(reason)
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

  defp again(rig, index, version \\ nil) do
    {node, root, peer} = Enum.at(rig.nodes, index)
    NextRelease.stop(peer)
    [name, _host] = node |> Atom.to_string() |> String.split("@")
    {^node, peer} = NextRelease.boot(root, String.to_atom(name), version)
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
    before = {rig.old, List.wrap(rig.fix), rig.fix && {:patched, :patched}}
    behind = {rig.new, [rig.patch], rig.fix && {:shipped, :shipped}}

    case Enum.uniq(seen(rig)) do
      [one] when one in [before, behind] -> idle?(rig)
      _not_yet -> false
    end
  end

  defp idle?(rig) do
    {node, _root, _peer} = hd(rig.nodes)

    hot_patch(node, :progress, []) == [] and
      Enum.all?(hot_patch(node, :nodes, []), &(&1.behind == nil and &1.operation == nil))
  end

  defp seen(rig) do
    for {node, root, _peer} <- rig.nodes do
      applied = Enum.find_value(hot_patch(node, :nodes, []), &(&1.node == node && &1.applied))
      {looks(node), applied, rig.fix && fixed(node, root)}
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

    assert staged(root) == []

    :ok = ask(node, :shop_server, :sell)
  end

  defp staged(root) do
    for data <- Folder.folders(Path.join(root, "data")),
        file <- Folder.files(Path.join(data, "staged"), ""),
        do: file
  end

  defp next(rig) do
    {node, root, _peer} = hd(rig.nodes)
    version = looks(node).release.version
    permanent? = File.read!(Path.join(root, "releases/start_erl.data")) =~ " 1.1.0"
    %{rig | version: version, permanent?: permanent?}
  end
end
