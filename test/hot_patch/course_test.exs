defmodule HotPatch.CourseTest do
  # The course of an apply over several nodes: in which groups, watched by what, told to whom,
  # and what becomes of it where something goes wrong on the way.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Settings, only: [configure_on: 2]
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Event
  alias HotPatch.NodeAgent.Inbox
  alias HotPatch.Report
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Strike
  alias HotPatch.Test.Listener

  @moduletag :starts_nodes
  @moduletag timeout: 120_000

  @ebin "exchange-1.0.0/ebin/"

  # Nothing but what a test is about shall be too much, on whatever machine it runs.
  @calm [baseline: 0, duration: 600, run_queue: 100_000, mailboxes: 1_000_000, errors: 100_000]

  setup_all do
    nodes = Cluster.start(3)

    # As a production system logs, but to nobody.
    for node <- nodes do
      :ok = Cluster.call(node, Logger, :configure, [[level: :error]])

      for id <- Cluster.call(node, :logger, :get_handler_ids, []),
          do: Cluster.call(node, :logger, :remove_handler, [id])
    end

    %{nodes: nodes}
  end

  # What one test has left is not for the next to bear.
  setup %{nodes: nodes} do
    on_exit(fn ->
      for node <- nodes, do: Cluster.call(node, Strike, :coordinator, [])

      Cluster.free(nodes)
    end)
  end

  # A module of its own for each test, in version 2 by the patch; where `first` is given, version 1 is
  # there before.
  defp new_patch(node, text \\ nil) do
    module = :"hot_patch_test_course_#{System.unique_integer([:positive])}"
    bytes = if text, do: Builds.erlang(text.(module)), else: Builds.versioned(module, 2)
    {module, upload!(node, [{@ebin <> "#{module}.beam", bytes}], "#{module}")}
  end

  defp has?(node, module), do: Cluster.call(node, :erlang, :module_loaded, [module])

  defp on_disk?(node, module),
    do: File.exists?(Path.join(Cluster.exchange(node), "ebin/#{module}.beam"))

  # In memory, on disk and in what they know, wherever they still have to come to it.
  defp all_have(nodes, module, patch, yes?) do
    until(
      fn ->
        Enum.all?(hot_patch(hd(nodes), :nodes, []), fn info ->
          info.node not in nodes or
            {has?(info.node, module), on_disk?(info.node, module), patch.id in info.applied,
             info.operation, info.behind} == {yes?, yes?, yes?, nil, nil}
        end) and nodes |> Enum.uniq_by(&ops(&1, patch)) |> length() == 1
      end,
      "#{module} is #{if yes?, do: "there", else: "gone"} on #{inspect(nodes)}"
    )
  end

  defp ops(node, patch) do
    %{ops: ops} = Cluster.call(node, HotPatch.NodeAgent, :history, [])
    for(op <- ops, op.patch == patch.id, do: {op.seq, op.id, op.kind}) |> Enum.sort()
  end

  # A node that has joined a moment ago is held while it is compared with the others.
  defp apply_later(node, patch, options) do
    Task.async(fn ->
      until(fn -> unless_busy(hot_patch(node, :apply, [patch.id, options])) end, "all are free")
    end)
  end

  defp unless_busy({:error, %Error{reason: :busy}}), do: nil
  defp unless_busy(result), do: result

  # An operation whose coordinator's node has died is listed for a while yet.
  defp watched(task, node, %{id: id}) do
    until(
      fn ->
        # It has ended before anybody was watched.
        if result = Task.yield(task, 0), do: flunk(inspect(result))
        watched?(node, id)
      end,
      "they are watched"
    )
  end

  defp watched?(node, id) do
    Enum.find(
      hot_patch(node, :progress, []),
      &match?(%Event{phase: :watch, state: :running, patch: ^id}, &1)
    )
  end

  describe "in groups" do
    for {options, sizes} <- [
          {[canary: 1], [1, 2]},
          {[canary: 0.5], [2, 1]},
          {[canary: 1, max_concurrency: 1], [1, 1, 1]},
          {[max_concurrency: 2], [2, 1]},
          {[one_per_host: true], [1, 1, 1]}
        ] do
      test "of #{inspect(sizes)} by #{inspect(options)}, and all have it afterwards", context do
        [a | _] = nodes = context.nodes
        {module, patch} = new_patch(a)
        listener = Listener.start(List.last(nodes))
        options = unquote(options) ++ [watch: @calm, by: "alice"]

        assert {:ok, %Report{status: :ok} = report} = hot_patch(a, :apply, [patch.id, options])
        assert Enum.map(report.nodes, & &1.node) == nodes
        assert report.watch.exceeded == nil
        assert report.watch.watched_ms >= 600

        groups = Listener.groups(Listener.until_end(listener, patch))
        assert Enum.map(groups, &length/1) == unquote(sizes)
        assert groups |> Enum.concat() |> Enum.sort() == nodes
        # The canary is not where the operator is.
        if unquote(options)[:canary], do: assert(a not in hd(groups))

        # The steps are in their order for everybody: nobody takes the first back when the last
        # has followed.
        all_have(nodes, module, patch, true)
        seqs = for {seq, _id, :apply} <- ops(a, patch), do: seq
        assert length(seqs) == length(unquote(sizes))
        assert seqs == Enum.uniq(seqs)
        assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
        all_have(nodes, module, patch, false)
      end
    end

    test "that are named first, unless the name is none of theirs", %{nodes: [a, b, _c] = nodes} do
      {module, patch} = new_patch(a)
      options = [canary: [a, b], watch: false]
      listener = Listener.start(b)
      assert {:ok, %Report{watch: nil}} = hot_patch(a, :apply, [patch.id, options])
      assert [[^a, ^b], [_c]] = Listener.groups(Listener.until_end(listener, patch))
      all_have(nodes, module, patch, true)

      assert {:error, %Error{reason: :invalid_option} = error} =
               hot_patch(a, :apply, [patch.id, [canary: [:"nobody@127.0.0.1"]]])

      assert error.details.option == :canary
      assert error.message =~ "nobody@127.0.0.1"
    end
  end

  describe "watched" do
    test "processes of the patch that crash take it back before the others have it", context do
      [a | _] = nodes = context.nodes
      {module, first} = new_patch(a, &"-module(#{&1}). -export([run/0]). run() -> ok.")
      assert {:ok, _} = hot_patch(a, :apply, [first.id])
      good = running(a, module)
      text = "-module(#{module}). -export([run/0]). run() -> error(broken)."
      patch = upload!(a, [{@ebin <> "#{module}.beam", Builds.erlang(text)}], "broken")
      listener = Listener.start(a)
      options = [canary: 1, watch: Keyword.merge(@calm, duration: 60_000, crashes: 5)]
      task = apply_later(a, patch, options)
      # What crashed before would be no wonder afterwards.
      %Event{node: canary} = watched(task, a, patch)
      caller = Node.spawn(canary, Strike, :call_often, [module, :run])
      assert {:error, %Error{reason: :rolled_back} = error} = Task.await(task, 120_000)
      Process.exit(caller, :kill)

      assert [[^canary] | _] = Listener.groups(Listener.until_end(listener, patch))
      assert %{sign: :crashes, node: ^canary, limit: 5} = error.report.watch.exceeded
      assert error.report.watch.exceeded.value > 5
      assert error.message =~ "crashes on #{canary}"
      assert %Report{operation: :rollback, nodes: [%{node: ^canary}]} = error.report.rollback
      assert Enum.map(error.report.nodes, & &1.node) == [canary]
      assert for(node <- nodes, do: running(node, module)) == [good, good, good]

      for info <- hot_patch(a, :nodes, []), do: assert(patch.id not in info.applied)

      # Written down, with its cause.
      {:ok, %{items: [entry | _]}} = hot_patch(a, :journal, [[patch: patch.id]])
      assert entry.what == :rollback
      assert entry.reason =~ "crashes on #{canary}"
    end

    # Each has its next tick waiting when it goes on: all have died, once and for all, before the
    # node can say that it has the patch.
    test "who crashes in the very moment of the change counts", %{nodes: [a, b, c] = nodes} do
      {module, first} = new_patch(a, &ticking(&1, "erlang:send_after(1, self(), tick)"))
      assert {:ok, _} = hot_patch(a, :apply, [first.id])
      good = running(a, module)
      for n <- 1..8, do: {:ok, _} = Cluster.call(c, :gen_server, :start, [module, n, []])
      broken = Builds.erlang(ticking(module, "error(broken)"))
      patch = upload!(a, [{@ebin <> "#{module}.beam", broken}], "broken")
      options = [canary: [c], watch: Keyword.merge(@calm, crashes: 7)]

      assert {:error, %Error{reason: :rolled_back} = error} =
               hot_patch(a, :apply, [patch.id, options])

      assert %{sign: :crashes, node: ^c, value: 8} = error.report.watch.exceeded
      assert for(node <- nodes, do: running(node, module)) == [good, good, good]
      assert b not in Enum.map(error.report.nodes, & &1.node)
    end

    defp ticking(module, tick) do
      """
      -module(#{module}).
      -behaviour(gen_server).
      -export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
      init(N) -> self() ! tick, {ok, N}.
      handle_call(_, _, N) -> {reply, N, N}.
      handle_cast(_, N) -> {noreply, N}.
      handle_info(tick, N) -> #{tick}, {noreply, N}.
      """
    end

    test "the host's own judgement takes it back everywhere", %{nodes: [a, b, _] = nodes} do
      {module, patch} = new_patch(a)
      health = {:persistent_term, :get, [:hot_patch_test_health, :ok]}
      options = [watch: Keyword.merge(@calm, duration: 60_000, health: health)]
      task = apply_later(a, patch, options)
      watched(task, b, patch)
      Cluster.call(b, :persistent_term, :put, [:hot_patch_test_health, {:ill, "no lines left"}])
      assert {:error, %Error{reason: :rolled_back} = error} = Task.await(task, 120_000)
      Cluster.call(b, :persistent_term, :erase, [:hot_patch_test_health])
      assert %{sign: :health, node: ^b, text: text} = error.report.watch.exceeded
      assert text =~ "no lines left"
      assert length(error.report.rollback.nodes) == 3
      all_have(nodes, module, patch, false)
    end

    test "a node that dies of it does not keep the others from going back", %{nodes: [a | _]} do
      [own] = Cluster.start(1)
      Cluster.connect([a, own])
      {module, patch} = new_patch(a)
      options = [nodes: [a, own], watch: Keyword.merge(@calm, duration: 60_000)]
      task = apply_later(a, patch, options)
      watched(task, a, patch)
      :erpc.cast(own, :erlang, :halt, [0, [flush: false]])
      assert {:error, %Error{reason: :rolled_back} = error} = Task.await(task, 120_000)
      assert %{sign: :gone, node: ^own} = error.report.watch.exceeded
      assert error.message =~ "rolled back on #{a}, and will be on #{own}"
      all_have([a], module, patch, false)
    end

    test "a coordinator that dies meanwhile leaves no canary behind", %{nodes: [a, b, _] = nodes} do
      {module, patch} = new_patch(a)
      task = apply_later(a, patch, canary: [b], watch: Keyword.merge(@calm, duration: 60_000))
      watched(task, b, patch)
      assert has?(b, module)
      :ok = Cluster.call(a, Strike, :coordinator, [])
      assert {:error, %Error{reason: :failed} = error} = Task.await(task, 120_000)
      assert error.message =~ "the coordinator died"
      all_have(nodes, module, patch, false)
      assert [{seq, _, :apply}, {seq, _, :rollback}] = ops(a, patch)
    end
  end

  describe "a node that fails when all is decided" do
    setup %{nodes: [_a, b, _]} do
      on_exit(fn -> Cluster.call(b, FaultPoint, :disarm, []) end)
      :ok = Cluster.call(b, FaultPoint, :arm, [:loaded, 1, {:erlang, :error, [:armed]}])
    end

    test "takes all others back", %{nodes: [a, b, _] = nodes} do
      {module, patch} = new_patch(a)
      assert {:error, %Error{reason: :failed} = error} = hot_patch(a, :apply, [patch.id])
      assert error.message =~ "the commit failed on #{b}"
      assert error.message =~ "it was rolled back on"
      assert %Report{operation: :rollback, status: status} = error.report.rollback
      assert status != :error
      all_have(nodes, module, patch, false)
    end

    test "does not where they are to keep it, and comes to it itself", %{nodes: [a, b, _] = nodes} do
      {module, patch} = new_patch(a)
      options = [on_failure: :keep]
      assert {:error, %Error{reason: :failed} = error} = hot_patch(a, :apply, [patch.id, options])
      assert error.message =~ "the commit failed on #{b}"
      assert error.report.rollback == nil
      all_have(nodes, module, patch, true)
    end
  end

  describe "a patch that was in force before" do
    # On some nodes, by an apply of its own.
    defp in_force(nodes) do
      [a | _] = nodes
      {module, patch} = new_patch(a)
      assert {:ok, _} = hot_patch(a, :apply, [patch.id, [nodes: nodes]])
      {module, patch}
    end

    # Applied once more on all, until the host says on a node that it is ill.
    defp trip(patch, nodes, on, more) do
      health = {:persistent_term, :get, [:hot_patch_test_health, :ok]}
      watch = Keyword.merge(@calm, duration: 60_000, health: health)
      task = apply_later(hd(nodes), patch, [watch: watch] ++ more)
      watched(task, on, patch)
      Cluster.call(on, :persistent_term, :put, [:hot_patch_test_health, {:ill, "no lines left"}])
      assert {:error, %Error{} = error} = Task.await(task, 120_000)
      Cluster.call(on, :persistent_term, :erase, [:hot_patch_test_health])
      error
    end

    defp have(nodes, module), do: Enum.map(nodes, &has?(&1, module))

    test "stays where a later apply of it is watched and taken back", %{nodes: nodes} do
      [a, b, c] = nodes
      {module, patch} = in_force(nodes)
      error = trip(patch, nodes, b, canary: [b])
      assert error.reason == :failed
      assert error.message =~ "it was in force on #{b} before"
      assert error.report.rollback == nil
      assert [%{node: ^b, already?: true, status: :not_changed}] = error.report.nodes
      assert have(nodes, module) == [true, true, true]

      # Where one of several did not have it, that one alone goes back.
      assert {:ok, _} = hot_patch(a, :rollback, [patch.id, [nodes: [c]]])
      error = trip(patch, nodes, a, [])
      assert error.reason == :rolled_back
      assert error.message =~ "rolled back on #{c}; it was in force on #{a}, #{b} before"
      assert [%{node: ^c}] = error.report.rollback.nodes
      all_have([a, b], module, patch, true)
      all_have([c], module, patch, false)
      assert {:ok, %{items: []}} = hot_patch(a, :drift, [[nodes: [a, b]]])

      # What was kept goes when it is rolled back itself.
      assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
      all_have(nodes, module, patch, false)
    end

    test "stays when the coordinator dies that tries it once more", %{nodes: nodes} do
      [a, b, c] = nodes
      {module, patch} = in_force([a, b])
      options = [canary: [b, c], watch: Keyword.merge(@calm, duration: 60_000)]
      task = apply_later(a, patch, options)
      watched(task, b, patch)
      assert have(nodes, module) == [true, true, true]
      :ok = Cluster.call(a, Strike, :coordinator, [])
      assert {:error, %Error{reason: :failed}} = Task.await(task, 120_000)
      # That of the canary which did not have it is taken back, and nothing else.
      until(fn -> not has?(c, module) end, "#{c} takes it back")
      all_have([a, b], module, patch, true)
      all_have([c], module, patch, false)
      assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
    end

    test "stays when a node fails that it is brought to", %{nodes: [a, b, c] = nodes} do
      {module, patch} = in_force([a])
      on_exit(fn -> Cluster.call(b, FaultPoint, :disarm, []) end)
      :ok = Cluster.call(b, FaultPoint, :arm, [:loaded, 1, {:erlang, :error, [:armed]}])
      assert {:error, %Error{reason: :failed} = error} = hot_patch(a, :apply, [patch.id])
      assert error.message =~ "it was in force on #{a} before"
      all_have([a], module, patch, true)
      all_have([b, c], module, patch, false)
      assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
      all_have(nodes, module, patch, false)
    end
  end

  describe "the nodes of an operation" do
    test "are chosen by a role or a function; errors name what is wrong", %{nodes: [a, b, c]} do
      :ok = configure_on(b, roles: [:billing])
      {module, patch} = new_patch(a)
      assert {:ok, report} = hot_patch(a, :apply, [patch.id, [nodes: {:role, :billing}]])
      assert Enum.map(report.nodes, & &1.node) == [b]
      assert Enum.map([a, b, c], &has?(&1, module)) == [false, true, false]

      # A function that all nodes have.
      assert {:ok, report} =
               hot_patch(a, :check, [patch.id, [nodes: &HotPatch.Test.Listener.any?/1]])

      assert length(report.nodes) == 3

      for nodes <- [{:role, :none_has_it}, &HotPatch.Test.Listener.fails/1] do
        assert {:error, %Error{reason: :invalid_option} = error} =
                 hot_patch(a, :apply, [patch.id, [nodes: nodes]])

        assert error.details.option == :nodes
      end

      assert {:ok, _} = hot_patch(a, :rollback, [patch.id, [nodes: {:role, :billing}]])
    end

    test "are without remote shells", %{nodes: [a | _] = nodes} do
      [shell] = Cluster.start(1, hot_patch: false, exchange: false, args: [~c"-remsh", ~c"a@b"])
      [plain] = Cluster.start(1, hot_patch: false, exchange: false)
      Cluster.connect([a, shell])
      Cluster.connect([a, plain])
      {_module, patch} = new_patch(a)
      assert {:ok, report} = hot_patch(a, :check, [patch.id])
      assert Enum.map(report.nodes, & &1.node) == nodes
      assert report.unmanaged == [plain]
    end
  end

  describe "who wants to know" do
    test "is told all from the start to the end, once, also in the middle", %{nodes: [a, b, c]} do
      {_module, patch} = new_patch(a)
      listener = Listener.start(c)
      options = [canary: 1, watch: Keyword.put(@calm, :duration, 1_500), by: "alice"]
      task = apply_later(a, patch, options)

      seen = watched(task, b, patch)
      assert %Event{kind: :apply, by: "alice", total: 1_500, operation: id} = seen
      assert seen.patch == patch.id
      late = Listener.start(b)
      assert {:ok, _report} = Task.await(task, 120_000)

      events = Listener.until_end(listener, patch)
      assert Enum.uniq(Enum.map(events, & &1.operation)) == [id]

      for node <- [a, b, c], phase <- [:reserve, :send, :prepare, :commit, :decide, :watch] do
        assert Enum.any?(events, &(&1.node == node and &1.phase == phase)), "#{node} #{phase}"
      end

      assert %Event{node: nil, state: :done} = List.last(events)
      assert %Event{node: nil, state: :done} = List.last(Listener.until_end(late, patch))
      for node <- [a, b, c], do: assert(hot_patch(node, :progress, []) == [])
      refute_received {^listener, %Event{}}
      assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
    end
  end

  describe "what is sent" do
    # How many messages the inbox of a node got in between.
    defp messages_in(node) do
      {:ok, statistics} = Cluster.call(node, :sys, :statistics, [Inbox, :get])
      statistics[:messages_in]
    end

    test "is sent once, for check and apply and once more", %{nodes: [a, b, c] = nodes} do
      {module, patch} = new_patch(a)
      for node <- [b, c], do: :ok = Cluster.call(node, :sys, :statistics, [Inbox, true])
      assert {:ok, _} = hot_patch(a, :check, [patch.id])
      sent = for node <- [b, c], do: messages_in(node)
      assert Enum.all?(sent, &(&1 > 0))

      before_apply = sent
      assert {:ok, _} = hot_patch(a, :check, [patch.id])
      assert for(node <- [b, c], do: messages_in(node)) == before_apply
      assert {:ok, _} = hot_patch(a, :apply, [patch.id])
      all_have(nodes, module, patch, true)
      assert {:ok, _} = hot_patch(a, :rollback, [patch.id])

      with_shadows = for node <- [b, c], do: messages_in(node)
      assert {:ok, _} = hot_patch(b, :apply, [patch.id])
      assert for(node <- [b, c], do: messages_in(node)) == with_shadows
      assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
      for node <- [b, c], do: Cluster.call(node, :sys, :statistics, [Inbox, false])
    end

    test "is measured by its digest, and put together by whoever sends it", %{nodes: [a | _]} do
      bytes = :crypto.strong_rand_bytes(3_000)
      digest = :crypto.hash(:sha256, bytes)
      take = &Cluster.call(a, HotPatch.NodeAgent, :take_parts, [[&1]])
      lacking = fn -> Cluster.call(a, HotPatch.NodeAgent, :lacking, [[digest]]) end
      part = fn n -> {digest, n * 1_000, 3_000, binary_part(bytes, n * 1_000, 1_000)} end

      # One in the wrong place, or with a bit turned.
      assert {:error, text} = take.(part.(1))
      assert text =~ "does not follow"
      assert take.(part.(0)) == :ok
      assert take.(part.(1)) == :ok
      assert {:error, text} = take.({digest, 2_000, 3_000, :binary.copy(<<0>>, 1_000)})
      assert text =~ "digest"
      assert lacking.() == [digest]

      # Two senders at once.
      for n <- [0, 0, 1, 0, 1, 2, 1, 2], do: assert(take.(part.(n)) == :ok)
      assert lacking.() == []

      # Of nothing there is nothing to send but the end.
      nothing = :crypto.hash(:sha256, "")
      assert take.({nothing, 0, 0, ""}) == :ok
      assert Cluster.call(a, HotPatch.NodeAgent, :lacking, [[nothing]]) == []
    end
  end

  test "the skew between the loads of several nodes is told, of one there is none", context do
    [a | _] = context.nodes
    {_module, patch} = new_patch(a)
    assert {:ok, %Report{skew_us: skew} = report} = hot_patch(a, :apply, [patch.id])
    assert is_integer(skew) and skew >= 0
    assert to_string(report) =~ "apart"
    assert {:ok, _} = hot_patch(a, :rollback, [patch.id])
    {_module, patch} = new_patch(a)
    assert {:ok, %Report{skew_us: nil}} = hot_patch(a, :apply, [patch.id, [nodes: [a]]])
    assert {:ok, _} = hot_patch(a, :rollback, [patch.id, [nodes: [a]]])
  end

  test "between the steps of an apply nobody else comes, and is told who is there", context do
    [a, b, c] = nodes = context.nodes
    {module, patch} = new_patch(a)
    {other_module, other} = new_patch(b)
    options = [canary: [b], watch: Keyword.put(@calm, :duration, 1_500), by: "alice"]
    task = apply_later(a, patch, options)
    watched(task, c, patch)

    # Also on nodes that are not changed yet.
    assert {:error, %Error{reason: :busy} = error} =
             hot_patch(c, :apply, [other.id, [nodes: [c]]])

    assert error.details == %{node: c, holder: %{patch: patch.id, by: "alice", node: a}}
    assert error.message =~ "alice"
    assert {:ok, _} = Task.await(task, 120_000)

    assert {:ok, _} = hot_patch(c, :apply, [other.id])
    all_have(nodes, module, patch, true)
    all_have(nodes, other_module, other, true)
    for id <- [other.id, patch.id], do: assert({:ok, _} = hot_patch(a, :rollback, [id]))
  end
end
