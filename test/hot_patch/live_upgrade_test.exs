defmodule HotPatch.LiveUpgradeTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.NextRelease, only: [ask: 2, ask: 3]
  import HotPatch.Test.Until

  alias HotPatch.Support.Folder
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: 240_000

  # A system that an upgrade takes to the next version of its release, and back.

  setup do
    made = NextRelease.make()
    {node, peer} = NextRelease.boot(made.old)
    %{made: made, node: node, peer: peer}
  end

  # The same node, started once more.
  defp again(made, node) do
    [name, _host] = node |> Atom.to_string() |> String.split("@")
    NextRelease.boot(made.old, String.to_atom(name))
  end

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  defp upload!(node, made) do
    {:ok, patch} = hot_patch(node, :upload, [made.zip])
    patch
  end

  # What it says of itself where it is not ok.
  defp ok!({:ok, %{status: :ok} = report}), do: report
  defp ok!({_ok_or_error, %{} = other}), do: flunk(said(other))

  defp said(error) when is_exception(error), do: Exception.message(error)

  defp said(report) do
    for(
      %{files: files, error: error} <- report.nodes,
      text <- [error | Enum.map(files, &"#{&1.path} #{&1.status}: #{&1.reason}")],
      do: text
    )
    |> Enum.join("\n")
  end

  defp running(node) do
    for {name, _, vsn} <- Cluster.call(node, :application, :which_applications, []),
        name in [:shop, :rates, :legacy, :scales],
        into: %{},
        do: {name, to_string(vsn)}
  end

  defp children(node) do
    for {id, pid, _, _} <- Cluster.call(node, :supervisor, :which_children, [:shop_sup]),
        is_pid(pid),
        into: MapSet.new(),
        do: id
  end

  test "it goes to the next release with its states, and back", %{made: made, node: node} do
    :ok = ask(node, :shop_server, :sell)
    sold = Cluster.call(node, Process, :whereis, [:shop_server])
    # Whoever was added by hand is none of the release's.
    spec = %{id: :stranger, start: {Agent, :start_link, [Map, :new, []]}}
    {:ok, stranger} = Cluster.call(node, :supervisor, :start_child, [:shop_sup, spec])
    patch = upload!(node, made)
    ok!(hot_patch(node, :check, [patch.id]))

    assert {:ok, plan} = hot_patch(node, :plan, [patch.id])
    assert hd(plan.nodes).config == ["shop: :colour", "shop: :limit", "shop: :rounding"]
    # What it does itself is not left to the operator's hand.
    assert Enum.any?(hd(plan.nodes).instructions, &(&1 =~ "start their new children"))
    refute Enum.any?(hd(plan.nodes).analysis.findings, &(&1.name == :supervisor_init_changed))

    ok!(hot_patch(node, :apply, [patch.id]))
    assert ask(node, :shop_server) == {2, %{sold: 1}}
    assert Cluster.call(node, Process, :whereis, [:shop_server]) == sold
    assert running(node) == %{shop: "1.1.0", rates: "0.1.0", scales: "1.0.0"}
    assert children(node) == MapSet.new([:shop_server, :shop_till, :stranger])
    assert Cluster.call(node, :application, :get_env, [:shop, :limit]) == {:ok, 2}
    assert Cluster.call(node, :application, :get_env, [:shop, :colour]) == {:ok, :blue}
    assert Cluster.call(node, :application, :get_env, [:shop, :rounding]) == {:ok, :up}

    for gone <- [:shop_old, :shop_sign, :legacy_server, :legacy_sup],
        do: refute(Cluster.call(node, :erlang, :module_loaded, [gone]), "#{gone} is loaded")

    assert Cluster.call(node, Process, :alive?, [stranger])
    assert [%{release: release, applied: [_]}] = hot_patch(node, :nodes, [])
    assert to_string(release) == "shop 1.1.0"

    ok!(hot_patch(node, :rollback, [patch.id]))
    assert ask(node, :shop_server) == {1, {:v1, 1}}
    assert running(node) == %{shop: "1.0.0", legacy: "0.3.0", scales: "1.0.0"}
    assert children(node) == MapSet.new([:shop_server, :shop_sign, :stranger])
    assert Cluster.call(node, :application, :get_env, [:shop, :limit]) == {:ok, 1}
    assert Cluster.call(node, :application, :get_env, [:shop, :colour]) == :undefined
    assert Cluster.call(node, :erlang, :module_loaded, [:shop_old])
    refute Cluster.call(node, :erlang, :module_loaded, [:rates_server])
    assert [%{release: release, applied: []}] = hot_patch(node, :nodes, [])
    assert to_string(release) == "shop 1.0.0"
  end

  # That of the new release.
  defp tarball(made) do
    path = Path.join(Path.dirname(made.zip), "shop-1.1.0.tar.gz")
    parts = for part <- ["lib", "releases"], do: {~c"#{part}", ~c"#{Path.join(made.new, part)}"}
    :ok = :erl_tar.create(~c"#{path}", parts, [:compressed, :dereference])
    path
  end

  test "by a relup with what code_change is given and with calls, up and back", run do
    %{made: made, node: node} = run
    noted = fn what -> Cluster.call(node, :persistent_term, :get, [{:shop, what}, nil]) end
    note = fn what -> {:apply, {:shop_server, :note, [what]}} end

    # Who stops the child that goes, and starts the one that comes, is the supervisor of the new code.
    up = [
      note.(:before_up),
      {:add_module, :shop_till},
      {:update, :shop_server, {:advanced, {:more, 10}}},
      {:update, :shop_sup, :supervisor},
      {:delete_module, :shop_old},
      {:delete_module, :shop_sign},
      note.(:after_up)
    ]

    down = [
      note.(:before_down),
      {:add_module, :shop_old},
      {:add_module, :shop_sign},
      {:update, :shop_server, {:advanced, {:less, 10}}},
      {:update, :shop_sup, :supervisor},
      {:delete_module, :shop_till},
      note.(:after_down)
    ]

    made = NextRelease.with_relup(made, up, down)
    :ok = ask(node, :shop_server, :sell)
    {:ok, patch} = hot_patch(node, :upload, [tarball(made)])
    assert {:ok, plan} = hot_patch(node, :plan, [patch.id])
    text = Cluster.call(node, String.Chars, :to_string, [plan])

    for line <- [
          "the way up is as releases/1.1.0/relup says",
          "the way back is as releases/1.1.0/relup says",
          "before the pause: calls shop_server:note/1",
          "shop_server: code_change is given {more,10}",
          "after the resume: calls shop_server:note/1"
        ],
        do: assert(text =~ line, text)

    refute text =~ "carried and not used"
    ok!(hot_patch(node, :apply, [patch.id]))
    assert ask(node, :shop_server) == {2, %{sold: 11}}
    assert {noted.(:before_up), noted.(:after_up)} == {1, 2}
    assert running(node) == %{shop: "1.1.0", rates: "0.1.0", scales: "1.0.0"}
    assert children(node) == MapSet.new([:shop_server, :shop_till])

    ok!(hot_patch(node, :rollback, [patch.id]))
    assert ask(node, :shop_server) == {1, {:v1, 1}}
    assert {noted.(:before_down), noted.(:after_down)} == {2, 1}
    assert running(node) == %{shop: "1.0.0", legacy: "0.3.0", scales: "1.0.0"}
    assert children(node) == MapSet.new([:shop_server, :shop_sign])
  end

  test "the tarball of a release is taken for the upgrade that leads there",
       %{made: made} = run do
    tarball = tarball(made)
    assert {:ok, patch} = hot_patch(run.node, :upload, [tarball, [by: "alice"]])
    assert {patch.name, patch.upgrade} == {"shop-1.1.0", "1.1.0"}
    assert {:ok, same} = hot_patch(run.node, :upload, [File.read!(tarball), [name: "same"]])
    assert {:ok, composition} = hot_patch(run.node, :composition, [same.id])
    assert {:ok, zip} = hot_patch(run.node, :composition, [patch.id])
    files = &Map.new(&1.files, fn file -> {file.path, file.sha256} end)
    assert files.(composition) == files.(zip)

    ok!(hot_patch(run.node, :apply, [patch.id]))
    assert running(run.node) == %{shop: "1.1.0", rates: "0.1.0", scales: "1.0.0"}

    # What it leads to runs now.
    assert {:error, error} = hot_patch(run.node, :upload, [tarball])
    assert Exception.message(error) =~ "nothing differs"
  end

  defp statuses(node) do
    {:ok, releases} = hot_patch(node, :releases, [])

    for one <- releases.items,
        into: %{},
        do: {one.version, {one.status, one.running?, one.boots?}}
  end

  defp otp(node) do
    for {_name, vsn, _libs, status} <- Cluster.call(node, :release_handler, :which_releases, []),
        into: %{},
        do: {to_string(vsn), status}
  end

  test "a restart boots the former release until the new one is permanent", %{made: made} = run do
    %{node: node, peer: peer} = run
    before = tree(made.old)
    patch = upload!(node, made)
    ok!(hot_patch(node, :apply, [patch.id]))

    assert statuses(node) == %{
             "1.0.0" => {:permanent, false, true},
             "1.1.0" => {:current, true, false}
           }

    assert otp(node) == %{"1.0.0" => :permanent, "1.1.0" => :current}
    assert {:error, %{reason: :refused}} = hot_patch(node, :remove_release, ["1.1.0"])
    assert {:error, %{reason: :refused}} = hot_patch(node, :remove_release, ["1.0.0"])

    # Nothing that runs was overwritten.
    assert Map.take(tree(made.old), Map.keys(before)) == before

    NextRelease.stop(peer)
    {node, peer} = again(made, node)
    assert running(node) == %{shop: "1.0.0", legacy: "0.3.0", scales: "1.0.0"}
    assert [%{applied: [], restart_needed: []}] = hot_patch(node, :nodes, [])

    assert statuses(node) == %{
             "1.0.0" => {:permanent, true, true},
             "1.1.0" => {:unpacked, false, false}
           }

    assert otp(node) == %{"1.0.0" => :permanent, "1.1.0" => :unpacked}

    # What lies there already is this upgrade's own.
    ok!(hot_patch(node, :apply, [patch.id, [permanent: :now]]))

    assert statuses(node) == %{
             "1.0.0" => {:old, false, false},
             "1.1.0" => {:permanent, true, true}
           }

    assert otp(node) == %{"1.0.0" => :old, "1.1.0" => :permanent}

    NextRelease.stop(peer)
    {node, peer} = again(made, node)
    assert running(node) == %{shop: "1.1.0", rates: "0.1.0", scales: "1.0.0"}
    assert [%{applied: [_], restart_needed: []}] = hot_patch(node, :nodes, [])

    assert statuses(node) == %{
             "1.0.0" => {:old, false, false},
             "1.1.0" => {:permanent, true, true}
           }

    assert {:ok, %{items: []}} = hot_patch(node, :drift, [])

    # Back from there, while it runs.
    :ok = ask(node, :shop_server, :sell)
    ok!(hot_patch(node, :rollback, [patch.id]))
    assert ask(node, :shop_server) == {1, {:v1, 1}}
    assert running(node) == %{shop: "1.0.0", legacy: "0.3.0", scales: "1.0.0"}

    assert statuses(node) == %{
             "1.0.0" => {:permanent, true, true},
             "1.1.0" => {:old, false, false}
           }

    assert {:error, %{reason: :refused}} = hot_patch(node, :remove_release, ["1.1.0"])

    NextRelease.stop(peer)
    {node, _peer} = again(made, node)
    assert {:ok, _releases} = hot_patch(node, :remove_release, ["1.1.0"])
    assert statuses(node) == %{"1.0.0" => {:permanent, true, true}}
    assert {:ok, %{items: []}} = hot_patch(node, :drift, [])
    refute File.exists?(Path.join(made.old, "lib/shop-1.1.0"))
    assert File.exists?(Path.join(made.old, "lib/scales-1.0.0"))
  end

  defp tree(root) do
    for folder <- ["lib", "releases"],
        {path, _stat} <- Folder.tree(Path.join(root, folder)),
        File.regular?(path),
        Path.basename(path) not in ["RELEASES"],
        not String.starts_with?(Path.basename(path), "hot_patch"),
        into: %{},
        do: {path, :erlang.md5(File.read!(path))}
  end

  describe "on several nodes" do
    setup %{made: made, node: node} do
      root = Path.join(Path.dirname(made.old), "other")
      {_, 0} = System.cmd("cp", ["-a", made.old, root])
      File.rm_rf!(Path.join(root, "data"))
      {other, peer} = NextRelease.boot(root)
      true = Cluster.call(node, Node, :connect, [other])
      %{root: root, other: other, other_peer: peer, patch: upload!(node, made)}
    end

    test "it is for all or for none", %{node: node, other: other, patch: patch} = run do
      before = for root <- [run.made.old, run.root], do: all(root)
      was = facts(node)

      # Its code_change does not know this state.
      Cluster.call(other, :sys, :replace_state, [:shop_server, &:erlang.tuple_to_list/1])
      assert {:error, error} = hot_patch(node, :apply, [patch.id])
      assert error.reason == :failed
      assert facts(node) == was
      assert for(root <- [run.made.old, run.root], do: all(root)) == before

      # Somebody else's folder is where it would go.
      Cluster.call(other, :sys, :replace_state, [:shop_server, &:erlang.list_to_tuple/1])
      foreign = Path.join(run.root, "lib/shop-1.1.0/README")
      File.mkdir_p!(Path.dirname(foreign))
      File.write!(foreign, "mine")
      assert {:error, %{report: report}} = hot_patch(node, :apply, [patch.id])
      assert said(report) =~ "is there already and is not what the upgrade brings"
      assert facts(node) == was
      File.rm_rf!(Path.dirname(foreign))

      watch = [duration: 100, baseline: 100]
      options = [watch: watch, permanent: :after_watch]
      report = ok!(hot_patch(node, :apply, [patch.id, options]))
      assert length(report.nodes) == 2
      for one <- [node, other], do: assert(running(one)[:shop] == "1.1.0")
      assert {_, _, true} = statuses(node)["1.1.0"]
    end

    test "one that was installed as the new release has missed nothing", run do
      %{node: node, made: made, patch: patch} = run
      ok!(hot_patch(node, :apply, [patch.id]))
      {new, _peer} = NextRelease.boot(made.new)
      true = Cluster.call(node, Node, :connect, [new])
      until(fn -> length(hot_patch(node, :nodes, [])) == 3 end, "all three are there")
      assert Cluster.call(new, HotPatch.Cluster.CatchUp, :run, [[node]]) == :ok
      assert Cluster.call(node, HotPatch.Cluster.CatchUp, :run, [[new]]) == :ok
      assert %{behind: nil, applied: []} = Cluster.call(new, HotPatch.NodeAgent, :info, [])
      assert running(new) == running(node)
    end

    test "one that was restarted comes to it again, and goes back with the others", run do
      %{node: node, other: other, patch: patch} = run
      ok!(hot_patch(node, :apply, [patch.id]))
      NextRelease.stop(run.other_peer)
      [name, _host] = other |> Atom.to_string() |> String.split("@")
      {^other, peer} = NextRelease.boot(run.root, String.to_atom(name))
      true = Cluster.call(node, Node, :connect, [other])

      back? = fn -> match?([%{applied: [_]}, %{applied: [_]}], hot_patch(node, :nodes, [])) end
      until(back?, "the node has come to the upgrade again")
      assert running(other)[:shop] == "1.1.0"
      assert ask(other, :shop_server) == {2, %{sold: 0}}

      assert [%{applied: [_]}, %{applied: [_]}] = hot_patch(node, :nodes, [])

      # What is done while it is away is done when it is back.
      NextRelease.stop(peer)
      until(fn -> other not in Cluster.call(node, Node, :list, []) end, "it is away")
      ok!(hot_patch(node, :rollback, [patch.id]))
      {^other, _peer} = NextRelease.boot(run.root, String.to_atom(name))
      true = Cluster.call(node, Node, :connect, [other])
      assert running(other) == running(node)

      until(
        fn -> match?([%{behind: nil}, %{behind: nil}], hot_patch(node, :nodes, [])) end,
        "they agree"
      )

      assert running(other)[:shop] == "1.0.0"
    end
  end

  # All that an upgrade could have changed.
  defp facts(node) do
    {ask(node, :shop_server), running(node), children(node), statuses(node),
     Cluster.call(node, :code, :get_path, []),
     Cluster.call(node, :application, :get_all_env, [:shop]),
     Cluster.call(node, :application, :get_all_key, [:shop]),
     for(one <- hot_patch(node, :nodes, []), do: one.applied),
     for(m <- [:rates_server, :shop_till], do: Cluster.call(node, :erlang, :module_loaded, [m]))}
  end

  # Whatever lies in the release.
  defp all(root) do
    for folder <- ["lib", "releases"],
        {path, _stat} <- Folder.tree(Path.join(root, folder)),
        do: path
  end

  # systools makes no `start_clean` as mix and relx do: the VM that evaluates configurations boots by this.
  test "of the system's own boot script kernel and stdlib are left", %{made: made, node: node} do
    {:ok, script} = Cluster.call(node, HotPatch.NodeAgent.BootScript, :clean, [])
    boot = Path.join(made.old, "clean")
    File.write!(boot <> ".boot", script)
    {:ok, emulator, environment} = HotPatch.Host.Emulator.find()

    runs =
      ~c"io:format(\"~w\", [lists:sort([N || {N, _, _} <- application:which_applications()])])"

    args =
      ["-noinput", "-boot", boot, "-boot_var", "RELEASE_LIB", Path.join(made.old, "lib")] ++
        ["-eval", "#{runs}, halt()"]

    env = for {name, value} <- environment, do: {"#{name}", if(value, do: "#{value}")}
    assert {"[kernel,stdlib]", 0} = System.cmd(emulator, args, env: env, stderr_to_stdout: true)
  end
end
