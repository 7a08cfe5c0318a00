defmodule HotPatch.RollingRestartTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.NextRelease, only: [ask: 2]
  import HotPatch.Test.Until

  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease

  @moduletag :starts_nodes
  @moduletag :slow
  @moduletag timeout: 240_000

  # An upgrade that comes by a restart of one node after the other, on a system that heart starts again.

  setup do
    %{made: NextRelease.make()}
  end

  defp hot_patch(node, function, args), do: Cluster.call(node, HotPatch, function, args)

  # Two nodes with a copy of the former release each, of which the first is the one to be called.
  defp two(made, flags) do
    nodes =
      for {part, own} <- [{"a", []}, {"b", flags}] do
        root = Path.join(Path.dirname(made.old), part)
        {_, 0} = System.cmd("cp", ["-a", made.old, root])
        name = :"#{part}_#{System.unique_integer([:positive])}_#{System.pid()}"
        {NextRelease.start_with_heart(root, name, own), root}
      end

    [{a, _}, {b, _}] = nodes
    true = Cluster.call(a, Node, :connect, [b])
    {:ok, patch} = hot_patch(a, :upload, [made.zip])
    {nodes, patch}
  end

  defp os_pid(node), do: Cluster.call(node, System, :pid, [])

  defp version(node) do
    {release, state} = Cluster.call(node, HotPatch.NodeAgent, :restarted, ["1.1.0"])
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

  test "it goes from node to node, also to the one that was called", %{made: made} do
    {[{a, root_a}, {b, root_b}], patch} = two(made, [])
    pids = Enum.map([a, b], &os_pid/1)

    assert {:ok, %{status: :ok}} = hot_patch(a, :check, [patch.id, [restart: :rolling]])
    assert {:ok, plan} = hot_patch(a, :plan, [patch.id, [restart: :rolling]])
    assert to_string(plan) =~ "started again by heart"

    # Who leads is restarted too, so that nobody is there for an answer.
    caller =
      Task.async(fn ->
        catch_error(hot_patch(a, :apply, [patch.id, [restart: :rolling] ++ @quick]))
      end)

    assert {:erpc, :noconnection} = Task.await(caller, 120_000)

    for node <- [a, b],
        do: until(fn -> version(node) == {"1.1.0", :served} end, "#{node} serves", 60_000)

    for {node, root} <- [{a, root_a}, {b, root_b}] do
      assert ask(node, :shop_server) == {2, %{sold: 0}}
      assert [_erts, "1.1.0"] = String.split(boots(root))
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
  end

  test "it stops at the first that does not serve, which goes back", %{made: made} do
    {[{a, root_a}, {b, root_b}], patch} = two(made, ["-rates", "broken", "true"])
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
  end
end
