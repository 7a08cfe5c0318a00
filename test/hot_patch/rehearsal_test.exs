defmodule HotPatch.RehearsalTest do
  # A patch is tried on live nodes before it is applied.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.NodeAgent
  alias HotPatch.Rehearsal
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes
  @moduletag timeout: 180_000
  @ebin "exchange-1.0.0/ebin/"

  setup_all do
    [a, b] = nodes = Cluster.start(2)
    start_calls(a, 5)
    start_calls(b, 40)
    %{nodes: nodes, a: a, b: b}
  end

  defp module_of(rehearsal, node, name) do
    %{modules: modules} = Enum.find(rehearsal.nodes, &(&1.node == node))
    Enum.find(modules, &(&1.module == name))
  end

  # What holds a node, and what was loaded on it for a rehearsal.
  defp untouched(nodes, before) do
    for node <- nodes do
      assert Cluster.call(node, NodeAgent, :holder, []) == nil
      assert exchange_code(node) == before[node]

      for {module, _file} <- Cluster.call(node, :code, :all_loaded, []),
          do: refute(Atom.to_string(module) =~ "@hot_patch")
    end
  end

  defp server(module, vsn, code_change) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{vsn}).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
    init(S) -> {ok, S}.
    handle_call(wait, {From, _}, S) -> From ! {waits, self()}, receive go -> ok end, {reply, ok, S};
    handle_call(_, _, S) -> {reply, S, S}.
    handle_cast(_, S) -> {noreply, S}.
    code_change(_, S, _) -> #{code_change}.
    """)
  end

  # A server of its own with one process, and a patch for it.
  defp served(node, code_change) do
    module = :"hot_patch_test_rehearsal_#{System.unique_integer([:positive])}"
    file = fn vsn, body -> [{@ebin <> "#{module}.beam", server(module, vsn, body)}] end
    first = upload!(node, file.(1, "{ok, S}"), "#{module}_1")
    {:ok, _report} = hot_patch(node, :apply, [first.id, [nodes: [node]]])
    {:ok, pid} = Cluster.call(node, :gen_server, :start, [module, 1, []])
    {pid, upload!(node, file.(2, code_change), "#{module}_2")}
  end

  test "what fails is found on the node where it is, before anything is changed", context do
    %{a: a, b: b, nodes: nodes} = context
    before = Map.new(nodes, &{&1, exchange_code(&1)})

    good = upload!(a, Builds.changed("patched"), "good")
    assert {:ok, %Rehearsal{} = rehearsal} = hot_patch(a, :rehearse, [good.id])
    assert rehearsal.effective == []
    assert rehearsal.outcome == :ok

    for {node, count} <- [{a, 5}, {b, 40}] do
      assert %{processes: ^count, tried: ^count} =
               call = module_of(rehearsal, node, "Exchange.Call")

      assert call.forms == [
               %{
                 from: "{_, _, _, _, _}",
                 to: "%{from, id, requests, talked_ms, to, zone}",
                 count: count
               }
             ]

      assert %{kind: :statem, tried: 3} = module_of(rehearsal, node, "Exchange.Trunk")
    end

    assert [%{suspended: fewer}, %{suspended: more}] = rehearsal.nodes
    assert more - fewer == 35
    assert to_string(rehearsal) =~ "{_, _, _, _, _} -> %{from, id"
    assert {:ok, json} = hot_patch(a, :to_json, [rehearsal])
    assert json =~ ~s("outcome":"ok")
    untouched(nodes, before)

    # The journal has it, and no value of any call.
    assert {:ok, %{items: [entry | _]}} = hot_patch(b, :journal, [[patch: good.id]])
    assert %{what: :rehearse, outcome: :ok} = entry

    # One process of forty is spoilt.
    [call | _] = Cluster.call(b, HotPatch.Swap, :users, [Exchange.Call])
    distort(b, call)

    assert {:ok, %{outcome: :failed} = failed} = hot_patch(a, :rehearse, [good.id])
    assert module_of(failed, a, "Exchange.Call").failures == []
    assert [failure] = module_of(failed, b, "Exchange.Call").failures
    assert %{count: 1, reason: "no clause of the function takes it"} = failure
    assert failure.processes == [Cluster.call(b, Kernel, :inspect, [call])]
    assert failure.place =~ "Exchange.Call.code_change/3"
    refute to_string(failed) =~ ~r/distorted|0301234|7654321/

    assert {:error, %Error{reason: :refused, report: %Rehearsal{}} = error} =
             hot_patch(a, :apply, [good.id, [rehearse: true]])

    assert error.message =~ "it was rehearsed, and the new code of Exchange.Call failed"
    untouched(nodes, before)
    mend(b, call)

    assert {:ok, %{outcome: :ok}} = hot_patch(a, :rehearse, [good.id, [sample: 1]])
    assert {:ok, _report} = hot_patch(a, :apply, [good.id, [rehearse: true]])
    # The meter leaves its former code within a second.
    until(
      fn -> match?({:ok, _report}, hot_patch(a, :rollback, [good.id])) end,
      "it is taken back"
    )
  end

  defp talks(node, calls, requests) do
    receive do
      :enough -> requests
    after
      1 ->
        for call <- calls do
          assert %{} = Cluster.call(node, :gen_server, :call, [call, {:talk, 0}])
          assert 0 = Cluster.call(node, :gen_server, :call, [call, :charge])
          assert %{} = Cluster.call(node, :gen_server, :call, [call, :info])
        end

        talks(node, calls, requests + 3)
    end
  end

  test "a crash and other answers are found in what is really asked, before anything is applied",
       context do
    %{a: a, b: b} = context

    files =
      Enum.map(
        Builds.changed("patched"),
        &if(elem(&1, 0) =~ "Exchange.Call.", do: Builds.planted(&1), else: &1)
      )

    patch = upload!(a, files, "planted")
    before = Map.new([a, b], &{&1, exchange_code(&1)})

    # Nothing else finds it.
    assert {:ok, %{nodes: [_a, _b]} = check} = hot_patch(a, :check, [patch.id])
    refute HotPatch.Status.refuses?(check.status)
    # The meter may be in code of an earlier test still.
    silent = fn ->
      match?({:ok, %{outcome: :ok}}, hot_patch(a, :rehearse, [patch.id, [nodes: [a]]]))
    end

    until(silent, "the states are converted")

    calls = Cluster.call(a, HotPatch.Swap, :users, [Exchange.Call])

    requests = fn ->
      for call <- calls, do: Cluster.call(a, :gen_server, :call, [call, :info]).requests
    end

    for call <- calls, do: Cluster.call(a, :gen_server, :call, [call, {:talk, 30}])
    had = requests.()
    talk = Task.async(fn -> talks(a, calls, 0) end)
    options = [nodes: [a], replay: 3, show: :values, by: "ada"]
    assert {:ok, %Rehearsal{} = found} = hot_patch(a, :rehearse, [patch.id, options])
    silent = [nodes: [a], replay: 1, sample: 2]
    assert {:ok, %{outcome: :failed} = silent} = hot_patch(a, :rehearse, [patch.id, silent])
    send(talk.pid, :enough)
    asked = Task.await(talk, 120_000)

    assert found.outcome == :failed
    assert [%{replays: replays}] = found.nodes
    assert %{crashes: [crash]} = call = Enum.find(replays, &(&1.module == "Exchange.Call"))
    assert %{message: "call :info", reason: "badarg"} = crash
    assert crash.place =~ "Exchange.Call.serve/2"
    assert call.processes == length(calls)

    # A minute that has begun costs: that is what the patch is for.
    assert %{values: [_ | _] = values} =
             Enum.find(call.differences, &(&1.what == :reply and &1.message == "call :charge"))

    assert Enum.all?(
             values,
             &(&1.message == ":charge" and &1.from == "0" and &1.to in ["3", "10", "45"])
           )

    # What a meter is told is the same.
    refute Enum.any?(call.differences, &(&1.what == :sent))

    # Each call has had the requests that it was sent, and the two looks, and no other.
    assert requests.() == Enum.map(had, &(&1 + asked + 1))
    untouched([a, b], before)

    text = to_string(found)
    assert text =~ "crashes in the new code"
    assert text =~ "0 became "
    assert {:ok, json} = hot_patch(a, :to_json, [found])
    assert json =~ ~s("message":"call :info")
    assert {:ok, %{items: items}} = hot_patch(a, :journal, [[patch: patch.id]])
    assert Enum.any?(items, &match?(%{what: :rehearse, outcome: :failed, by: "ada"}, &1))
    for item <- items, do: refute(inspect(Map.from_struct(item)) =~ ~r/became|1234567|0044123/)

    for text <- [to_string(silent), inspect(Map.from_struct(silent), limit: :infinity)],
        do: refute(text =~ ~r/became|1234567|talked_ms: /)
  end

  test "a callback that has effects is named, and run only when it is said", %{a: a} do
    {pid, patch} = served(a, "persistent_term:put(hot_patch_test_ran, S), {ok, [S]}")
    ran = fn -> Cluster.call(a, :persistent_term, :get, [:hot_patch_test_ran, nil]) end

    assert {:ok, rehearsal} = hot_patch(a, :rehearse, [patch.id, [nodes: [a]]])
    assert rehearsal.outcome == :incomplete
    assert [%{function: "code_change/3", calls: calls}] = rehearsal.effective
    assert calls == ["calls :persistent_term.put/2"]
    assert ran.() == nil

    options = [nodes: [a], effects: :run]
    assert {:ok, %{outcome: :ok}} = hot_patch(a, :rehearse, [patch.id, options])
    assert ran.() == 1
    assert Cluster.call(a, :gen_server, :call, [pid, :get]) == 1
  end

  test "it is cancelled like an apply, holds the nodes until then, and leaves them", context do
    %{a: a, b: b, nodes: nodes} = context
    {pid, patch} = served(a, "{ok, S}")
    before = Map.new(nodes, &{&1, exchange_code(&1)})
    caller = spawn(fn -> Cluster.call(a, :gen_server, :call, [pid, :wait, :infinity]) end)
    on_exit(fn -> Process.exit(caller, :kill) end)
    until(fn -> busy?(a, pid) end, "the server is busy")

    running =
      Task.async(fn ->
        hot_patch(b, :rehearse, [patch.id, [nodes: [a], pause_timeout: 120_000]])
      end)

    until(
      fn ->
        Enum.any?(hot_patch(a, :progress, []), &(&1.kind == :rehearse and &1.phase == :rehearse))
      end,
      "it is under way"
    )

    assert {:error, %Error{reason: :busy}} = hot_patch(a, :apply, [patch.id, [nodes: [a]]])
    assert {:ok, cancellation} = hot_patch(a, :cancel, [patch.id, [by: "bob"]])
    assert %{kind: :rehearse, outcome: :nothing_changed} = cancellation
    assert {:error, %Error{reason: :cancelled}} = Task.await(running, 120_000)
    untouched(nodes, before)
  end

  defp busy?(node, pid) do
    {:current_function, {_module, function, _arity}} =
      Cluster.call(node, Process, :info, [pid, :current_function])

    function == :handle_call
  end
end
