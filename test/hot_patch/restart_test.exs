defmodule HotPatch.RestartTest do
  use ExUnit.Case, async: false

  alias HotPatch.Error
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Hosts

  import HotPatch.Test.Until

  @moduletag :starts_nodes

  defp restart(from, node, options \\ []),
    do: Cluster.call(from, HotPatch, :restart, [node, options])

  defp booted(node), do: Cluster.call(node, Process, :whereis, [HotPatch.Supervisor])

  test "a node is restarted and comes back, and the journal says who did it" do
    [a, b] = Hosts.start(2, [], 0)
    boot = booted(b.node)
    known_as = Cluster.call(b.node, HotPatch.Store.Applied, :boot, [])
    assert known_as == Cluster.call(b.node, HotPatch.Store.Applied, :boot, [])

    assert {:ok, %{managed?: true, node: node}} =
             restart(a.node, b.node, by: "alice", from: "192.0.2.1", reason: "a NIF")

    assert node == b.node
    assert booted(b.node) != boot
    # What waits for a restart waits no more.
    assert known_as != Cluster.call(b.node, HotPatch.Store.Applied, :boot, [])

    assert {:ok, %{items: [entry | _]}} = Cluster.call(a.node, HotPatch, :journal, [[]])
    assert %{what: :restart, by: "alice", from: "192.0.2.1", reason: "a NIF"} = entry
    assert Enum.map(entry.nodes, & &1.node) == [b.node]

    # Nothing is held any more.
    assert Enum.all?(Cluster.call(a.node, HotPatch, :nodes, []), &(&1.operation == nil))
  end

  test "the last node of a release is restarted only by force, and one that restarts itself by another" do
    [a, b] = Hosts.start(2, [], 0)
    Hosts.kill(b)
    until(fn -> Cluster.call(a.node, Node, :list, []) == [] end, "the other is gone")
    assert {:error, %Error{reason: :refused, message: message}} = restart(a.node, a.node)
    assert message =~ "last node that serves exchange 1.0.0"

    boot = booted(a.node)
    assert {:ok, _info} = restart(a.node, a.node, force: true)
    until(fn -> back?(a.node) and booted(a.node) != boot end, "it is back")
  end

  test "while one restarts, nothing else is done; and a node that is taken is not restarted" do
    [a, b, c] = Hosts.start(3, [], 0)
    first = Task.async(fn -> restart(a.node, b.node) end)

    until(
      fn ->
        Enum.any?(
          Cluster.call(a.node, HotPatch, :nodes, []),
          &match?(%{kind: :restart}, &1.operation)
        )
      end,
      "the restart has begun"
    )

    assert {:error, %Error{reason: :busy, message: message}} = restart(a.node, c.node)
    assert message =~ "restart of #{b.node}"
    assert {:ok, _info} = Task.await(first, 120_000)
  end

  # While it ends, and while it starts, it answers in many ways.
  defp back?(node) do
    Node.connect(node) == true and
      List.keymember?(Cluster.call(node, Application, :started_applications, []), :hot_patch, 0)
  catch
    _kind, _reason -> false
  end
end
