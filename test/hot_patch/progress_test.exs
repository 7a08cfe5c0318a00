defmodule HotPatch.ProgressTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives

  alias HotPatch.Cluster.Progress
  alias HotPatch.Event
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes

  # What a node tells of an operation, up to its end.
  defp heard_on(node) do
    test = self()
    listener = spawn_link(fn -> pass_on(node, test) end)
    :ok = Cluster.call(node, GenServer, :call, [Progress, {:subscribe, listener}])
  end

  defp pass_on(node, test) do
    receive do
      {HotPatch, event} -> send(test, {node, event})
    end

    pass_on(node, test)
  end

  defp until_end(node, events \\ []) do
    assert_receive {^node, %Event{} = event}

    if event.phase == :ended,
      do: Enum.reverse([event | events]),
      else: until_end(node, [event | events])
  end

  test "every node hears of every phase on every node, and how it ended, once" do
    [a, _b] = nodes = Cluster.start(2)
    Enum.each(nodes, &heard_on/1)

    archive = [zip(Builds.changed("patched")), [name: "fix"]]
    {:ok, patch} = Cluster.call(a, HotPatch, :upload, archive)
    assert {:ok, _report} = Cluster.call(a, HotPatch, :apply, [patch.id])

    for node <- nodes do
      events = until_end(node)
      assert %Event{phase: :ended, state: :done, node: nil} = List.last(events)
      assert [patch.id] == events |> Enum.map(& &1.patch) |> Enum.uniq()

      for about <- nodes do
        phases = for %{node: ^about, phase: phase} <- events, do: phase
        assert Enum.dedup(phases) == [:reserve, :send, :prepare, :commit, :decide]
        assert %{done: total, total: total} = Enum.find(events, &match?(%{phase: :send}, &1))
      end
    end

    # Longer than it takes to find that a coordinator is gone.
    refute_receive {_node, %Event{}}, 1_500
    for node <- nodes, do: assert([] == Cluster.call(node, HotPatch, :progress, []))
  end
end
