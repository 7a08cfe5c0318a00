defmodule HotPatch.RollingRestartTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.NextRelease, only: [ask: 2]
  import HotPatch.Test.Settings
  import HotPatch.Test.Until

  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Request
  alias HotPatch.Console.User
  alias HotPatch.Test.Archives
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Disks
  alias HotPatch.Test.NextRelease
  alias HotPatch.Test.Upgrade

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: 240_000

  # An upgrade that comes by a restart of one node after the other, on a system that heart starts again.

  setup_all do
    %{pristine: NextRelease.make()}
  end

  # Both releases, for each test to change.
  setup %{pristine: pristine} do
    root = Path.join(Path.dirname(pristine.old), "t#{System.unique_integer([:positive])}")
    File.mkdir_p!(root)
    own = &Path.join(root, Path.basename(&1))
    paths = Map.take(pristine, [:old, :new, :zip])
    for {_part, path} <- paths, do: copy(path, own.(path))
    %{made: struct!(pristine, for({part, path} <- paths, do: {part, own.(path)}))}
  end

  defp copy(from, to), do: {_, 0} = System.cmd("cp", ["-a", from, to])

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  # Two nodes with a copy of the former release each, of which the first is the one to be called.
  defp two(made, of_b) do
    [{a, _}, {b, _}] = nodes = apart(made, of_b)
    true = Cluster.call(a, Node, :connect, [b])
    {:ok, patch} = hot_patch(a, :upload, [made.zip])
    {nodes, patch}
  end

  defp remote(node, arguments) do
    cookie = Atom.to_string(Node.get_cookie())

    System.cmd("mix", ["hot_patch.remote", "#{node}" | arguments] ++ ["--cookie", cookie],
      stderr_to_stdout: true,
      env: [{"MIX_ENV", "test"}, {"HOT_PATCH_SKIP_NATIVE", "1"}]
    )
  end

  # Not connected to each other.
  defp apart(made, of_b) do
    nodes =
      for {part, own} <- [{"a", []}, {"b", of_b}] do
        root = Path.join(Path.dirname(made.old), part)
        copy(made.old, root)
        name = :"#{part}_#{System.unique_integer([:positive])}_#{System.pid()}"
        {NextRelease.launch_with_heart(root, name, own), root}
      end

    for {node, _root} <- nodes, do: NextRelease.await(node)
    nodes
  end

  defp scales_fix do
    {_module, bytes} =
      Upgrade.server(:scales_server, 2, "code_change(_, State, _) -> {ok, State}.")

    Archives.zip([{"scales-1.0.0/ebin/scales_server.beam", bytes}])
  end

  defp os_pid(node), do: Cluster.call(node, System, :pid, [])

  # It may go between two questions.
  defp another?(node, os_pid) do
    match?({"1.1.0", _}, version(node)) and os_pid(node) != os_pid
  catch
    :error, {:erpc, :noconnection} -> false
  end

  defp version(node, tried \\ "1.1.0") do
    {release, state} = Cluster.call(node, HotPatch.NodeAgent, :restarted, [tried])
    {release.version, state}
  catch
    _kind, _away -> :away
  end

  defp boots(root), do: File.read!(Path.join(root, "releases/start_erl.data"))

  defp statuses(node) do
    {:ok, releases} = hot_patch(node, :releases, [[nodes: [node]]])
    for one <- releases.items, into: %{}, do: {one.version, {one.status, one.running?}}
  end

  @quick [watch: [duration: 300, baseline: 100]]

  test "it goes from node to node, also to the one that was called, with another runtime system",
       %{made: made} do
    made = NextRelease.with_other_erts(made)
    {[{a, root_a}, {b, root_b}], patch} = two(made, [])
    pids = Enum.map([a, b], &os_pid/1)

    # A patch of what both releases share ends with the former one, and is in nobody's way.
    scales = "lib/scales-1.0.0/ebin/scales_server.beam"
    shipped = File.read!(Path.join(root_a, scales))
    {:ok, fix} = hot_patch(a, :upload, [scales_fix(), [name: "fix"]])
    assert {:ok, %{status: :ok}} = hot_patch(a, :apply, [fix.id])
    refute File.read!(Path.join(root_b, scales)) == shipped

    assert {:ok, %{status: :error} = report} = hot_patch(a, :check, [patch.id])
    assert hd(hd(report.nodes).files).reason =~ "apply it with restart: :rolling"
    assert {:ok, %{status: :ok}} = hot_patch(a, :check, [patch.id, [restart: :rolling]])
    assert {:ok, plan} = hot_patch(a, :plan, [patch.id, [restart: :rolling]])
    assert to_string(plan) =~ "started again by heart"
    # What all files have in common is said once.
    told = for %{message: text} <- hd(plan.nodes).risks, text =~ "it runs from", do: text
    assert ["" <> _once] = told

    # Who leads is restarted too, so that nobody is there for an answer: the terminal waits until it is back.
    arguments = ["apply", patch.id] ++ ~w(--restart rolling --watch-for 300)
    assert {output, 0} = remote(a, arguments)
    assert output =~ "#{a} leads, and is restarted last"
    assert output =~ ~r/shop 1\.1\.0 +permanent +yes +yes/

    for node <- [a, b],
        do: until(fn -> version(node) == {"1.1.0", :served} end, "#{node} serves")

    for {node, root} <- [{a, root_a}, {b, root_b}] do
      assert ask(node, :shop_server) == {2, %{sold: 0}}
      # Its own build of what has the same version lies beside that of the former release.
      assert {3, []} = ask(node, :scales_server)
      where = Cluster.call(node, :code, :which, [:scales_server])
      assert String.ends_with?(to_string(where), "/releases/1.1.0/" <> scales)
      assert File.read!(Path.join(root, scales)) == shipped
      assert [erts, "1.1.0"] = String.split(boots(root))
      assert Cluster.call(node, System, :get_env, ["SHOP_ERTS"]) == erts
      assert statuses(node) == %{"1.0.0" => {:old, false}, "1.1.0" => {:permanent, true}}
      # Heart has the command of the system, and its release no longer that of the trial.
      assert Cluster.call(node, :heart, :get_cmd, []) == {:ok, ~c"#{root}/bin/shop start"}
      assert Cluster.call(node, System, :get_env, ["RELEASE_VSN"]) == "1.1.0"
    end

    assert Enum.all?(Enum.zip(pids, [os_pid(a), os_pid(b)]), fn {one, other} -> one != other end)
    true = Cluster.call(a, Node, :connect, [b])
    assert {:ok, %{items: entries}} = hot_patch(b, :journal, [[]])
    restarts = for %{what: :restart, patch: id} = entry <- entries, id == patch.id, do: entry
    assert length(restarts) == 2
    assert Enum.all?(restarts, &(&1.status == :ok))
    # All are there: whoever was away is to follow.
    for node <- [a, b], do: until(fn -> rolled(node) != [] end, "#{node} knows of it")
    assert for(one <- rolled(a), do: {one.kind, one.to, one.scope}) == [{:apply, "1.1.0", :all}]
    assert rolled(b) == rolled(a)
    # Who has led and the node itself have both written it, of that node.
    for %{nodes: nodes} <- restarts, do: assert([_one] = nodes)

    # It is patched there as it would be in `lib`.
    {:ok, again} = hot_patch(b, :upload, [scales_fix(), [name: "again"]])
    assert {:ok, %{status: :ok} = report} = hot_patch(b, :check, [again.id])
    assert [%{path: "scales-1.0.0/ebin/scales_server.beam"}] = hd(report.nodes).files

    # The way back: not live, not where the former release is gone; and as it came, from the other node.
    back = [operation: :rollback, restart: :rolling]
    assert {:error, %{reason: :not_applied}} = hot_patch(b, :rollback, [patch.id])
    gone = Path.join(root_a, "releases/1.0.0")
    File.rename!(gone, gone <> ".gone")
    assert {:ok, %{status: :error} = report} = hot_patch(b, :check, [patch.id, back])
    assert [:ok, :error] = for(one <- Enum.sort_by(report.nodes, &(&1.node == a)), do: one.status)
    assert to_string(report) =~ "1.0.0 is not on this node's disk any more"

    assert {:error, %{reason: :refused}} =
             hot_patch(b, :rollback, [patch.id, [restart: :rolling] ++ @quick])

    File.rename!(gone <> ".gone", gone)
    assert {:ok, plan} = hot_patch(b, :plan, [patch.id, back])
    assert to_string(plan) =~ "started again by heart"

    # The page offers it, and no other way.
    admin = %Authorization{user: %User{name: "alice", role: :admin}}
    form = [%Request{}, admin, %{}, {:rollback, patch.id}]
    page = Cluster.call(b, HotPatch.Console.Page.Actions, :confirm, form)
    html = IO.iodata_to_binary(page.body)
    assert html =~ "they are restarted into shop 1.0.0"
    assert html =~ ~s(<option value="rolling" selected)
    assert html =~ ">Roll back</a>"

    caller =
      Task.async(fn ->
        catch_error(hot_patch(b, :rollback, [patch.id, [restart: :rolling] ++ @quick]))
      end)

    assert {:erpc, :noconnection} = Task.await(caller, 120_000)

    for node <- [a, b] do
      until(fn -> version(node, "1.0.0") == {"1.0.0", :served} end, "#{node} is back")
      assert ask(node, :shop_server) == {1, {:v1, 0}}
      assert statuses(node) == %{"1.0.0" => {:permanent, true}, "1.1.0" => {:old, false}}
      until(fn -> length(rolled(node)) == 2 end, "#{node} knows of it")
    end

    assert boots(root_b) == "#{:erlang.system_info(:version)} 1.0.0"
    assert %{kind: :rollback, from: "1.1.0", to: "1.0.0"} = List.last(rolled(b))
  end

  test "one that is alone goes by itself, and one that was away follows it, there and back", %{
    made: made
  } do
    [{a, _}, {b, root_b}] = apart(made, [])
    {:ok, patch} = hot_patch(a, :upload, [made.zip])

    assert {:ok, %{status: :not_updated} = report} =
             hot_patch(a, :apply, [patch.id, [restart: :rolling]])

    assert hd(hd(report.nodes).warnings) =~ "its journal will say how that ended"
    until(fn -> version(a) == {"1.1.0", :served} end, "it serves")
    restarts = fn node -> for %{what: :restart} = one <- journal(node), do: one end
    until(fn -> match?([%{status: :ok}], restarts.(a)) end, "it has noted that")
    assert boots(root_b) =~ "1.0.0"

    # One that was away is restarted there by the other.
    pids = Enum.map([a, b], &os_pid/1)
    true = Cluster.call(a, Node, :connect, [b])
    until(fn -> version(b) == {"1.1.0", :served} end, "it has followed")
    assert os_pid(a) == hd(pids)
    assert boots(root_b) =~ "1.1.0"
    assert Enum.any?(restarts.(b), &(&1.reason == "catching up"))
    until(fn -> at_rest?([a, b]) end, "nobody is held or behind")

    # The way back without it; then nobody would start it again, and it says so.
    true = Cluster.call(a, Node, :disconnect, [b])
    assert {:ok, _report} = hot_patch(a, :rollback, [patch.id, [restart: :rolling]])
    until(fn -> version(a, "1.0.0") == {"1.0.0", :served} end, "it is back")
    until(fn -> length(rolled(a)) == 2 end, "it has noted that")
    pid = os_pid(b)
    configure_on(b, comes_back: false)
    true = Cluster.call(b, Node, :connect, [a])
    until(fn -> behind(b) =~ "would not be started again" end, "it says that")
    assert behind(b) =~ "restarted into shop 1.0.0 by #{patch.id} while this node was away"
    assert os_pid(b) == pid

    configure_on(b, comes_back: true)
    until(fn -> version(b, "1.0.0") == {"1.0.0", :served} end, "it has followed")
    assert ask(b, :shop_server) == {1, {:v1, 0}}
  end

  defp rolled(node), do: Cluster.call(node, HotPatch.Store.Rolled, :list, [])

  defp journal(node) do
    {:ok, %{items: entries}} = hot_patch(node, :journal, [[nodes: [node]]])
    entries
  catch
    _kind, _away -> []
  end

  defp behind(node) do
    Cluster.call(node, HotPatch.NodeAgent, :info, []).behind || ""
  catch
    _kind, _away -> ""
  end

  defp at_rest?(nodes) do
    Enum.all?(nodes, fn node ->
      info = Cluster.call(node, HotPatch.NodeAgent, :info, [])
      {info.operation, info.behind} == {nil, nil}
    end)
  catch
    _kind, _away -> false
  end

  test "one whose VM does not start at all is started in the former release", %{made: made} do
    {[{a, _}, {b, root_b}], patch} = two(made, [{"SHOP_BREAK", "1.1.0"}])
    options = [restart: :rolling, timeout: 4_000] ++ @quick
    assert {:error, %{reason: :failed}} = hot_patch(a, :apply, [patch.id, options])
    until(fn -> version(b) == {"1.0.0", :taken_back} end, "it is back")
    assert [_erts, "1.0.0"] = String.split(boots(root_b))
    assert version(a) == {"1.0.0", :none}
  end

  test "it stops at the first that does not serve, which goes back", %{made: made} do
    {[{a, root_a}, {b, root_b}], patch} = two(made, [{"SHOP_FLAGS", "-rates broken true"}])
    pids = Enum.map([a, b], &os_pid/1)

    options = [restart: :rolling, timeout: 20_000] ++ @quick
    assert {:error, error} = hot_patch(a, :apply, [patch.id, options])
    assert error.reason == :failed
    assert Exception.message(error) =~ "on #{b} it did not come to serve in 1.1.0"
    assert Exception.message(error) =~ "no node runs 1.1.0"

    assert version(b) == {"1.0.0", :taken_back}
    assert ask(b, :shop_server) == {1, {:v1, 0}}
    assert version(a) == {"1.0.0", :none}
    assert os_pid(a) == hd(pids)
    assert os_pid(b) not in pids
    for root <- [root_a, root_b], do: assert([_erts, "1.0.0"] = String.split(boots(root)))
    assert statuses(b)["1.0.0"] == {:permanent, true}
    assert Cluster.call(b, :heart, :get_cmd, []) == {:ok, ~c"#{root_b}/bin/shop start"}
    # Nobody is held any more.
    assert Enum.all?(hot_patch(a, :nodes, []), &(&1.operation == nil))
  end

  test "cancelled, it goes no further than the node it is at", %{made: made} do
    {[{a, _}, {b, _}], patch} = two(made, [])
    pid = os_pid(a)
    # All have been there before, and came back.
    before = [Upgrade.rolled(1, "1.0.0", "1.1.0"), Upgrade.rolled(2, "1.1.0", "1.0.0")]
    for node <- [a, b], do: :ok = Cluster.call(node, HotPatch.NodeAgent, :rolled, [before])
    options = [restart: :rolling, watch: [duration: 120_000, baseline: 100]]
    applied = Task.async(fn -> hot_patch(a, :apply, [patch.id, options]) end)
    until(fn -> version(b) == {"1.1.0", :served} end, "the first serves")

    operation =
      until(
        fn ->
          for(%{phase: :watch} = event <- hot_patch(a, :progress, []), do: event) |> List.first()
        end,
        "it is watched"
      )

    assert {:ok, %{outcome: :kept}} = hot_patch(a, :cancel, [operation.operation, [by: "alice"]])
    assert {:error, %{reason: :cancelled} = error} = Task.await(applied, 120_000)
    assert Exception.message(error) =~ "in 1.1.0 by now: #{b}; no more nodes are restarted"
    assert {os_pid(a), version(a)} == {pid, {"1.0.0", :none}}
    assert version(b) == {"1.1.0", :served}
    assert Enum.all?(hot_patch(a, :nodes, []), &(&1.operation == nil))
    # It was not all of them: nobody is to follow, and the one that went stays there.
    assert rolled(a) == before
    assert rolled(b) == before

    [of_a, of_b] = for node <- [a, b], do: Cluster.call(node, HotPatch.NodeAgent, :history, [])

    catch_up = HotPatch.Cluster.RollingCatchUp
    assert Cluster.call(b, catch_up, :run, [of_b, [{a, of_a}]]) == :ok
    assert Cluster.call(a, catch_up, :run, [of_a, [{b, of_b}]]) == :ok

    # What serves, and not well, goes back.
    assert Cluster.call(b, HotPatch.NodeAgent, :restart_back, ["1.1.0"]) == :ok
    until(fn -> version(b) == {"1.0.0", :taken_back} end, "it is back")
    assert ask(b, :shop_server) == {1, {:v1, 0}}

    # Nor has it a way where they went on from what they had come to while they ran.
    far = %{Upgrade.rolled(2, "1.2.0", "1.3.0") | id: "far", name: "inn", past: ["1.0.0"]}
    inn = &%HotPatch.Release{name: "inn", version: &1}
    :ok = Cluster.call(b, HotPatch.NodeAgent, :rolled, [[far]])
    others = [{a, %{of_a | lineage: [inn.("1.3.0")]}}]

    assert {:error, text} =
             Cluster.call(b, catch_up, :run, [%{of_b | release: inn.("1.0.0")}, others])

    assert text =~ "nothing is known any more that leads from 1.0.0 there. Start it in 1.3.0"

    # Were it one that all others had gone, this node would not be restarted into it again, and would say so.
    all = %{Upgrade.rolled(3, "1.0.0", "1.1.0") | id: operation.operation, patch: patch.id}
    :ok = Cluster.call(b, HotPatch.NodeAgent, :rolled, [[all]])
    of_b = Cluster.call(b, HotPatch.NodeAgent, :history, [])
    there = %{of_a | lineage: [%HotPatch.Release{name: "shop", version: "1.1.0"}]}
    assert {:error, text} = Cluster.call(b, catch_up, :run, [of_b, [{a, there}]])
    assert text =~ "it was restarted there, did not come to serve, and went back"
    assert text =~ ~s[HotPatch.apply("#{patch.id}", restart: :rolling)]
  end

  test "what was made permanent while it runs is what heart starts", %{made: made} do
    node =
      NextRelease.start_with_heart(
        made.old,
        :"h_#{System.unique_integer([:positive])}_#{System.pid()}"
      )

    {:ok, patch} = hot_patch(node, :upload, [made.zip])
    assert {:ok, %{status: :ok}} = hot_patch(node, :apply, [patch.id, [permanent: :now]])
    pid = os_pid(node)
    :ok = Cluster.call(node, :init, :reboot, [])

    until(fn -> another?(node, pid) end, "it is back")
  end

  test "it is refused where nobody starts the node again", %{made: made} do
    {node, _peer} = NextRelease.boot(made.old)
    {:ok, patch} = hot_patch(node, :upload, [made.zip])
    assert {:ok, report} = hot_patch(node, :check, [patch.id, [restart: :rolling]])
    assert report.status == :error
    assert hd(hd(report.nodes).files).reason =~ "would not be started again when it ends"

    assert {:error, %{reason: :refused}} =
             hot_patch(node, :apply, [patch.id, [restart: :rolling]])

    assert ask(node, :shop_server) == {1, {:v1, 0}}
    refute File.exists?(Path.join(made.old, "releases/1.1.0"))

    # A way back from where nobody is, and first nodes of one that has none.
    assert {:error, %{reason: :not_applied} = error} =
             hot_patch(node, :rollback, [patch.id, [restart: :rolling]])

    assert Exception.message(error) =~ "runs shop 1.1.0, there is nothing to go back from"
    wrong = hot_patch(node, :rollback, [patch.id, [canary: 1]])
    assert {:error, %{reason: :invalid_option, details: %{option: :canary}}} = wrong

    if Disks.available?() do
      lib = Path.join(made.old, "lib")
      Disks.read_only(lib)
      on_exit(fn -> System.cmd("umount", [lib], stderr_to_stdout: true) end)
      assert {:ok, report} = hot_patch(node, :check, [patch.id])
      assert hd(hd(report.nodes).files).reason =~ "Deliver an image of the new release"
      Disks.writable(lib)
    end
  end

  test "of the releases on disk so many stay as are to be kept, and what runs", %{made: made} do
    {node, _peer} = NextRelease.boot(made.old)
    folder = &Path.join([made.old, "releases", &1])

    for {version, hours} <- [{"0.9.0", 1}, {"0.8.0", 2}, {"0.7.0", 3}, {"0.6.0", 4}] do
      File.cp_r!(folder.("1.0.0"), folder.(version))
      rel = Path.join(folder.(version), "shop.rel")

      File.write!(
        rel,
        rel |> File.read!() |> String.replace(~s("1.0.0"}), ~s("#{version}"}), global: false)
      )

      File.touch!(
        Path.join(folder.(version), "start.boot"),
        System.os_time(:second) - hours * 3600
      )
    end

    # What runs is the oldest of all, and stays beside the last three.
    File.touch!(Path.join(folder.("1.0.0"), "start.boot"), System.os_time(:second) - 50 * 3600)
    :ok = Cluster.call(node, Application, :put_env, [:hot_patch, :kept_releases, 3])
    :ok = Cluster.call(node, HotPatch.Host.Config, :reload, [])
    assert {:ok, _releases} = hot_patch(node, :make_permanent, ["1.0.0"])
    there = for one <- File.ls!(Path.join(made.old, "releases")), File.dir?(folder.(one)), do: one
    assert Enum.sort(there) == ["0.7.0", "0.8.0", "0.9.0", "1.0.0"]
    # What it shares with the others is theirs, too.
    assert File.exists?(Path.join(made.old, "lib/shop-1.0.0"))
  end
end
