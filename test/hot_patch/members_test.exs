defmodule HotPatch.MembersTest do
  # Who has not answered is named, and so is who belongs to the system and is away.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Answers
  alias HotPatch.Error
  alias HotPatch.NodeInfo
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes
  @moduletag timeout: 120_000
  @ebin "exchange-1.0.0/ebin/"

  defp patch!(node, name, module \\ nil) do
    module = module || :"hot_patch_test_members_#{System.unique_integer([:positive])}"
    upload!(node, [{@ebin <> "#{module}.beam", Builds.versioned(module, 1)}], name)
  end

  defp away(nodes, gone) do
    :erpc.cast(gone, :erlang, :halt, [0, [flush: false]])

    until(
      fn -> Enum.all?(nodes, &(gone not in Cluster.call(&1, Node, :list, []))) end,
      "#{gone} is gone"
    )
  end

  defp info(node, of), do: Enum.find(hot_patch(node, :nodes, []), &(&1.node == of))

  describe "a node that does not answer in time" do
    setup do
      [a, b] = Cluster.start(2)
      patch = patch!(a, "fix")
      assert {:ok, _} = hot_patch(a, :apply, [patch.id])
      %{a: a, b: b, patch: patch}
    end

    # Whoever asks it for what its agent knows waits in vain; it is connected all the same.
    defp silent(node) do
      holder =
        Cluster.hold(node, Cluster.call(node, Process, :whereis, [HotPatch.NodeAgent.Server]))

      fn -> send(holder, :resume) end
    end

    test "is named in drift, stragglers, and journal, beside what the others have said",
         context do
      %{a: a, b: b} = context
      resume = silent(b)

      # Each waits for it in vain, all at the same time.
      calls =
        for call <- [:drift, :stragglers, :releases, :journal], do: {call, [timeout: 10_000]}

      answers =
        calls
        |> Enum.map(fn {call, options} -> Task.async(fn -> hot_patch(a, call, [options]) end) end)
        |> Task.await_many(120_000)

      for answer <- answers do
        assert {:ok, %Answers{nodes: [^a], failed: [%{node: ^b, problem: problem}]} = answers} =
                 answer

        assert problem =~ "did not answer in time"
        refute Answers.complete?(answers)
        assert to_string(answers) =~ "#{b} did not answer in time"
        assert inspect(answers) =~ "#{b} did not answer in time"
        assert {:ok, json} = hot_patch(a, :to_json, [answers])
        assert json =~ ~s("failed":[{)

        if answers.of == :journal,
          do: assert([%{what: :apply, nodes: [%{node: ^a}]} | _] = answers.items)
      end

      resume.()
      until(fn -> match?({:ok, %{failed: []}}, hot_patch(a, :drift, [])) end, "#{b} answers")
    end

    test "is named where a patch is looked for, or an archive deleted", %{a: a, b: b} do
      other = patch!(b, "other")
      mine = patch!(a, "mine")
      resume = silent(b)
      list = Task.async(fn -> hot_patch(a, :list, []) end)

      assert {:error, %Error{reason: :unknown_patch} = error} =
               hot_patch(a, :composition, [other.id])

      assert error.message =~ "#{b} did not answer in time"
      assert %Answers{failed: [%{node: ^b}], nodes: [^a]} = list = Task.await(list, 120_000)
      assert Enum.map(list, & &1.id) |> Enum.member?(mine.id)

      # Whether it keeps the archive too is not known.
      assert {:error, %Error{reason: :unreachable} = error} = hot_patch(a, :delete, [mine.id])
      assert error.message =~ "is deleted on #{a}; whether others keep it is not known: #{b}"
      resume.()
      until(fn -> hot_patch(a, :list, []).failed == [] end, "#{b} answers")
      assert {:ok, _} = hot_patch(a, :composition, [other.id])
    end
  end

  describe "a node that is away" do
    test "is named by all, from its part in earlier operations", %{} do
      [a, b, c] = nodes = Cluster.start(3)
      first = patch!(a, "first")
      assert {:ok, %{missing: []}} = hot_patch(a, :apply, [first.id])
      until(fn -> Enum.all?(nodes, &(info(a, &1).applied == [first.id])) end, "all have it")
      away([a, b], c)

      assert %NodeInfo{managed?: false, problem_kind: :missing} = gone = info(b, c)
      assert to_string(gone) =~ "took part in an operation"
      assert hot_patch(a, :list, []).missing == [c]

      for call <- [:drift, :stragglers, :releases, :journal] do
        assert {:ok, %Answers{missing: [^c], nodes: [^a, ^b]} = answers} = hot_patch(a, call, [])
        assert to_string(answers) =~ "#{c} is away"
      end

      second = patch!(a, "second")
      assert {:ok, %{missing: [^c]} = plan} = hot_patch(a, :plan, [second.id])
      assert to_string(plan) =~ "2 of 3 nodes"
      assert to_string(plan) =~ "away, and not asked: #{c}"
      assert {:ok, %{missing: [^c]}} = hot_patch(a, :check, [second.id])
      assert {:ok, %{missing: [^c], status: :ok} = report} = hot_patch(b, :apply, [second.id])
      assert to_string(report) =~ "ok, 2 of 3 nodes"
      assert to_string(report) =~ "away: #{c}"
      assert {:ok, %{items: [entry | _]}} = hot_patch(a, :journal, [[last: 1]])
      assert entry.missing == [c]
      assert to_string(entry) =~ "#{c} away"

      # Those that were named are all that is meant.
      third = patch!(a, "third")
      assert {:ok, %{missing: []}} = hot_patch(a, :apply, [third.id, [nodes: [a, b]]])

      # Gone for good.
      assert {:error, %Error{reason: :refused}} = hot_patch(a, :dismiss, [b])
      assert :ok = hot_patch(a, :dismiss, [c, [by: "alice", reason: "scaled down"]])
      assert info(b, c) == nil
      assert {:ok, %{missing: []}} = hot_patch(b, :drift, [])
      assert {:ok, %{items: [entry | _]}} = hot_patch(b, :journal, [[last: 1]])
      assert %{what: :dismiss, by: "alice", reason: "scaled down"} = entry
    end

    test "is named where a configuration names it as a peer" do
      peers = [~c"-hot_patch", ~c"peers", ~c"['nobody@127.0.0.1']"]
      [a, b] = Cluster.start(2, args: peers)
      nobody = :"nobody@127.0.0.1"
      assert to_string(info(a, nobody)) =~ "the configuration of #{a}, #{b} names it"
      assert {:ok, report} = hot_patch(a, :apply, [patch!(a, "fix").id])
      assert report.missing == [nobody]
      assert {:error, %Error{reason: :refused} = error} = hot_patch(a, :dismiss, [nobody])
      assert error.message =~ "take it out there"
    end
  end
end
