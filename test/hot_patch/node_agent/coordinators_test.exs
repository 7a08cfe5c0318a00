defmodule HotPatch.NodeAgent.CoordinatorsTest do
  # The table of what is led from a node.
  use ExUnit.Case, async: true

  import HotPatch.Test.Until

  alias HotPatch.NodeAgent.Coordinators

  defp order(by), do: %{by: by, reason: nil, from: nil, keep?: false}

  defp enter(id, fun) do
    test = self()

    pid =
      spawn(fn ->
        facts = %{id: id, kind: :apply, patch: "fix", by: "x", started_at: DateTime.utc_now()}
        :ok = Coordinators.enter(facts)
        send(test, {:entered, self()})
        fun.()
      end)

    assert_receive {:entered, ^pid}
    pid
  end

  test "has what lives, and tells who waits how it ended" do
    id = "one-#{System.unique_integer([:positive])}"

    pid =
      enter(id, fn ->
        receive(do: (:end -> :ok))
        Coordinators.leave(&{:left, &1.by})
      end)

    assert Enum.any?(Coordinators.list(), &(&1.id == id))
    assert Coordinators.asked(pid) == nil
    first = Task.async(fn -> Coordinators.cancel(id, order("bob"), 10_000) end)
    until(fn -> Coordinators.asked(pid) end, "it is told")
    second = Task.async(fn -> Coordinators.cancel(id, order("carol"), 10_000) end)
    assert Coordinators.cancel(id, order("dave"), 0) == :ending
    assert Coordinators.asked(pid).by == "bob"
    send(pid, :end)

    assert Task.await_many([first, second]) == [
             {:ended, {:left, "bob"}},
             {:ended, {:left, "bob"}}
           ]

    refute Enum.any?(Coordinators.list(), &(&1.id == id))
    assert Coordinators.cancel(id, order("bob"), 1_000) == :unknown
  end

  test "tells of one that is killed that it has left nothing" do
    id = "two-#{System.unique_integer([:positive])}"
    pid = enter(id, fn -> receive(do: (:never -> :ok)) end)
    waits = Task.async(fn -> Coordinators.cancel(id, order("bob"), 10_000) end)
    until(fn -> Coordinators.asked(pid) end, "it is told")
    Process.exit(pid, :kill)
    assert Task.await(waits) == {:ended, nil}
  end

  test "forgets one that nobody has told anything" do
    id = "three-#{System.unique_integer([:positive])}"
    pid = enter(id, fn -> Coordinators.leave(fn _order -> flunk("nobody waits") end) end)
    until(fn -> not Process.alive?(pid) end, "it has ended")
    assert :ets.lookup(Coordinators, pid) == []
  end
end
