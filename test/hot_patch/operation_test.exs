defmodule HotPatch.OperationTest do
  use ExUnit.Case, async: true

  alias HotPatch.NodeAgent.Coordinators
  alias HotPatch.Operation

  defp operation(more \\ []) do
    Operation.new([id: "o1", kind: :apply, patch: "p-1", by: "alice", seq: 3] ++ more)
  end

  test "belongs to the process that makes it, and is a whole of its own unless it is a step of one" do
    me = self()
    assert %{coordinator: ^me, course: "o1", ref: ref, origin: :operator} = operation()
    assert is_reference(ref) and ref != operation().ref
    assert operation(course: "o0").course == "o0"
    assert_raise KeyError, fn -> operation(catching_up: :missed) end
    assert_raise ArgumentError, fn -> Operation.new(id: "o1", kind: :apply, patch: "p-1") end
  end

  describe "what a node does by itself to catch up" do
    test "is told by the origin; what follows of it stays this node's own affair" do
      for origin <- [{:missed, nil}, {:missed, "o0"}, {:make_room, nil}, {:make_room, "o0"}] do
        assert Operation.catching_up?(operation(origin: origin))
        assert Operation.undoing(origin) == origin
      end

      for origin <- [:operator, :undo, :abandoned] do
        refute Operation.catching_up?(operation(origin: origin))
        assert Operation.undoing(origin) == :undo
      end
    end

    test "counts as brought by the operation that it stands for" do
      assert Operation.brought_by(operation(origin: {:missed, "o0"})) == "o0"
      assert Operation.brought_by(operation(origin: {:make_room, "o0"})) == "o0"
      assert Operation.brought_by(operation(origin: {:missed, nil})) == "o1"
      assert Operation.brought_by(operation()) == "o1"
    end
  end

  describe "what is remembered" do
    test "is a plain map with a version, and without a process" do
      record = Operation.to_record(operation(tried_by: {node(), "o0"}))

      assert %{v: 1, id: "o1", seq: 3, tried_by: {_node, "o0"}, scope: :all, at: %DateTime{}} =
               record

      refute is_struct(record)
      for {_key, value} <- record, do: refute(is_pid(value) or is_reference(value))
      assert record |> :erlang.term_to_binary() |> :erlang.binary_to_term([:safe]) == record
      assert Operation.from_record(record) == record
    end

    test "by a version that named the process that tried it, keeps its node" do
      record = Operation.to_record(operation())
      before = record |> Map.drop([:v, :disk, :roster, :undoes]) |> Map.put(:tried_by, self())
      assert Operation.from_record(before) == %{record | tried_by: {node(), nil}}
      # Once is enough.
      once = Operation.from_record(before)
      assert Operation.from_record(once) == once
    end

    test "by a later version is not guessed at" do
      record = Map.put(Operation.to_record(operation()), :v, 2)

      assert_raise RuntimeError, ~r/newer HotPatch \(format 2, this one knows 1\)/, fn ->
        Operation.from_record(record)
      end
    end
  end

  describe "who leads it" do
    test "is found by its id, also where the table of all that is led has been made anew" do
      id = "led-#{System.unique_integer([:positive])}"
      refute Coordinators.leads?(id)
      test = self()

      coordinator =
        spawn(fn ->
          facts = %{id: id, kind: :apply, patch: "p-1", by: "a", started_at: DateTime.utc_now()}
          :ok = Coordinators.enter(facts)
          send(test, :entered)
          receive do: (:leave -> Coordinators.leave(fn _order -> nil end))
          send(test, :left)
          receive do: (:stop -> :ok)
        end)

      assert_receive :entered
      assert Coordinators.leads?(id)
      refute Coordinators.leads?("another")

      :ets.delete(Coordinators, coordinator)
      assert Coordinators.list() |> Enum.filter(&(&1.id == id)) == []
      assert Coordinators.leads?(id)

      send(coordinator, :leave)
      assert_receive :left
      refute Coordinators.leads?(id)
      Process.exit(coordinator, :kill)
    end
  end
end
