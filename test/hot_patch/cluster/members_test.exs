defmodule HotPatch.Cluster.MembersTest do
  # Who belongs to the system, and what is made of what its members have answered.
  use ExUnit.Case, async: true

  alias HotPatch.Answers
  alias HotPatch.Cluster.Members
  alias HotPatch.NodeAgent.KnownNodes
  alias HotPatch.NodeInfo

  describe "who is awaited" do
    test "is who is known, unless dismissed since" do
      early = ~U[2026-01-01 00:00:00Z]
      late = ~U[2026-01-02 00:00:00Z]

      for {known, dismissed, awaited?} <- [
            {[], [], false},
            {[%{}], [%{n: late}], false},
            {[%{n: early}], [], true},
            {[%{n: early}], [%{n: late}], false},
            {[%{n: early}, %{n: late}], [%{n: early}], true},
            {[%{n: late}], [%{n: late}], false},
            {[%{n: :peers}], [%{n: late}], true},
            {[%{n: early}, %{n: :peers}], [%{n: late}], true}
          ] do
        assert KnownNodes.awaited?(:n, known, dismissed) == awaited?
      end
    end

    test "is not who is connected, nor twice who is known to several" do
      infos =
        for node <- [:a, :b],
            do: %NodeInfo{node: node, managed?: true, known: %{b: :peers, c: :peers, d: :peers}}

      assert [{:c, how}, {:e, _}] = Members.missing(infos, [:e], [:a, :b, :d])
      assert how =~ "a, b"
    end

    test "took part in what is in force, or in the latest operation" do
      at = ~U[2026-01-01 00:00:00Z]
      op = &%{id: &1, seq: &1, kind: &2, patch: &3, roster: &4, at: at}
      ops = [op.(1, :apply, "a", [:x]), op.(2, :apply, "b", [:y]), op.(3, :rollback, "b", [:z])]
      known = KnownNodes.known(%{ops: ops, stack: [%{id: "a"}]})
      assert known == %{x: at, z: at}
    end
  end

  test "a question to several gives who answered, and who did not and why" do
    nobody = :"nobody@127.0.0.1"
    {answers, failed} = HotPatch.Cluster.survey([node(), nobody], :protocol, [], 5_000)
    assert answers == [{node(), HotPatch.NodeAgent.protocol()}]
    assert [%{node: ^nobody, problem: "is not reachable"}] = failed
  end

  test "answers are enumerated as what was found" do
    answers = %Answers{of: :drift, items: [1, 2, 3], nodes: [:a]}
    assert for(n <- answers, do: n * 2) == [2, 4, 6]
    assert {Enum.count(answers), Enum.member?(answers, 2), Enum.at(answers, 1)} == {3, true, 2}
    assert Enum.slice(answers, 1, 2) == [2, 3]
    assert Answers.complete?(answers)
    assert to_string(%{answers | items: []}) == "nothing, on 1 node"
  end
end
