defmodule HotPatch.LateAnswerTest do
  # A code_change that takes too long, and nodes whose answer comes when the coordinator waits for it no
  # longer: the report says which process it was, in which module, and what each node has come to.
  use ExUnit.Case, async: false

  @moduletag :starts_nodes

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Report
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag timeout: 120_000
  @ebin "exchange-1.0.0/ebin/"

  # Milliseconds. The coordinator waits for a second longer than the pause may last.
  @pause 1_500
  @too_long 4_500

  setup_all do
    %{nodes: Cluster.start(2)}
  end

  # Whose code_change takes its time where the state says so, or for ever, and has the whole node stand
  # still before that.
  defp server(module, vsn) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{vsn}).
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
    init(S) -> {ok, S}.
    handle_call(vsn, _, S) -> {reply, {#{vsn}, S}, S}.
    handle_cast(S, _) -> {noreply, S}.
    handle_info({never, sent}, S) -> {noreply, S}.
    code_change(_, {hang, Ms}, _) ->
        case Ms of
            0 -> ok;
            _ -> 'Elixir.HotPatch.Test.Faults.Strike':suspend(Ms)
        end,
        receive go -> {ok, changed} end;
    code_change(_, {slow, Ms}, _) -> receive never -> ok after Ms -> {ok, changed} end;
    code_change(_, _, _) -> {ok, changed}.
    """)
  end

  # A patch for a server that runs once on each node; the state of the second's is given.
  defp world([a, b], state) do
    module = :"hot_patch_test_late_#{System.unique_integer([:positive])}"
    one = upload!(a, [{@ebin <> "#{module}.beam", server(module, 1)}], "one")
    {:ok, _report} = hot_patch(a, :apply, [one.id])
    patch = upload!(a, [{@ebin <> "#{module}.beam", server(module, 2)}], "#{module}")
    pids = for {node, state} <- [{a, :calm}, {b, state}], do: start(node, module, state)
    %{module: module, patch: patch, pids: pids, hangs: List.last(pids), nodes: [a, b]}
  end

  defp start(node, module, state) do
    {:ok, pid} = Cluster.call(node, :gen_server, :start, [module, state, []])
    on_exit(fn -> Process.exit(pid, :kill) end)
    pid
  end

  # How the node itself calls the process.
  defp name(pid), do: Cluster.call(node(pid), Kernel, :inspect, [pid])

  defp vsns(%{pids: pids}), do: for(pid <- pids, do: :gen_server.call(pid, :vsn))

  defp took_too_long(world),
    do: "code_change of #{inspect(world.module)} took too long in #{name(world.hangs)}"

  defp node_of(%Error{report: %Report{nodes: nodes}}, node),
    do: Enum.find(nodes, &(&1.node == node))

  defp applied(nodes), do: for(info <- hot_patch(hd(nodes), :nodes, []), do: info.applied)

  # It has told its end, as all nodes do that are known.
  defp known!(error, node, text) do
    told = node_of(error, node)
    assert told.error =~ text
    assert [%{status: :error, reason: reason}] = told.files
    assert reason =~ text
    assert told.strategy != nil
    refute told.error =~ "did not answer"
    refute Exception.message(error) =~ "not known"
  end

  for {how, state} <- [{"in time", {:hang, 0}}, {"after its time", {:hang, @too_long}}] do
    describe "a code_change that takes too long, with the answer #{how}," do
      test "is named, and all nodes are as they were", %{nodes: [a, b] = nodes} do
        world = world(nodes, unquote(Macro.escape(state)))
        before = applied(nodes)

        assert {:error, %Error{reason: :failed} = error} =
                 hot_patch(a, :apply, [world.patch.id, [pause_timeout: @pause]])

        message = Exception.message(error)
        assert message =~ "the commit failed on #{b}: #{took_too_long(world)}"
        assert message =~ "nothing was changed on any node"
        known!(error, b, took_too_long(world))
        send(world.hangs, :go)
        assert vsns(world) == [{1, :calm}, {1, unquote(Macro.escape(state))}]
        Cluster.free(nodes)
        assert applied(nodes) == before
      end

      test "is named by a rollback too, and the patch stays", %{nodes: [a, b] = nodes} do
        world = world(nodes, :calm)
        assert {:ok, _report} = hot_patch(a, :apply, [world.patch.id])
        :gen_server.cast(world.hangs, unquote(Macro.escape(state)))
        before = applied(nodes)

        assert {:error, %Error{reason: :failed} = error} =
                 hot_patch(a, :rollback, [world.patch.id, [pause_timeout: @pause]])

        assert Exception.message(error) =~ took_too_long(world)
        known!(error, b, took_too_long(world))
        send(world.hangs, :go)
        assert vsns(world) == [{2, :changed}, {2, unquote(Macro.escape(state))}]
        Cluster.free(nodes)
        assert applied(nodes) == before
      end

      test "is named where the others keep the patch, and the node is behind", context do
        %{nodes: [a, b] = nodes} = context
        world = world(nodes, unquote(Macro.escape(state)))
        options = [pause_timeout: @pause, on_failure: :keep]

        assert {:error, %Error{reason: :failed} = error} =
                 hot_patch(a, :apply, [world.patch.id, options])

        assert Exception.message(error) =~ "the commit failed on #{b}: #{took_too_long(world)}"
        known!(error, b, took_too_long(world))
        assert %{error: nil, status: :ok} = node_of(error, a)
        assert {2, :changed} = :gen_server.call(hd(world.pids), :vsn)

        # It tries by itself until it is as the others.
        send(world.hangs, :go)
        :gen_server.cast(world.hangs, :calm)
        until(fn -> vsns(world) == [{2, :changed}, {2, :changed}] end, "it catches up")
        Cluster.free(nodes)
      end
    end
  end

  describe "a node that is ready after its time" do
    # Its engine comes to hold after a while, and its agent hears of that later still: when the
    # coordinator waits no longer, and before the engine gives up.
    defp late(%{nodes: [a, b] = nodes}, options) do
      world = world(nodes, {:slow, 2_500})
      :ok = Cluster.call(b, FaultPoint, :arm, [:held, 1, {:timer, :sleep, [4_200]}])
      on_exit(fn -> Cluster.call(b, FaultPoint, :disarm, []) end)
      {world, hot_patch(a, :apply, [world.patch.id, [pause_timeout: 4_000] ++ options])}
    end

    test "goes back with all others, and that is why", %{nodes: [_a, b] = nodes} = context do
      {world, result} = late(context, [])
      assert {:error, %Error{reason: :failed} = error} = result
      assert Exception.message(error) =~ "the commit failed on #{b}: it was not ready in time"
      assert Exception.message(error) =~ "nothing was changed on any node"
      known!(error, b, "the commit failed on #{b}")
      assert vsns(world) == [{1, :calm}, {1, {:slow, 2_500}}]
      Cluster.free(nodes)
    end

    test "goes on with them where they keep the patch", %{nodes: nodes} = context do
      {world, result} = late(context, on_failure: :keep)
      assert {:ok, %Report{status: :ok} = report} = result
      assert Enum.map(report.nodes, & &1.error) == [nil, nil]
      assert vsns(world) == [{2, :changed}, {2, :changed}]
      Cluster.free(nodes)
    end

    test "is not known where it is silent for longer, and is known as soon as it speaks",
         context do
      %{nodes: [_a, b] = nodes} = context
      {world, result} = late(context, timeout: 500)
      assert {:error, %Error{reason: :failed} = error} = result
      assert Exception.message(error) =~ "nothing was changed but on #{b}, where it is not known"
      Cluster.free(nodes)
      assert vsns(world) == [{1, :calm}, {1, {:slow, 2_500}}]
      assert [ids, ids] = applied(nodes)
      refute world.patch.id in ids
    end
  end
end
