defmodule HotPatch.PlanTest do
  # What a plan says of a patch, compared with what runs on each node.
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives
  import HotPatch.Test.Operator

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag :starts_nodes

  defp plan!(node, id, options \\ []) do
    {:ok, plan} = hot_patch(node, :plan, [id, options])
    plan
  end

  @tag skip: System.otp_release() < "29"
  test "says where a code_change cannot be tried beforehand, because of native records" do
    [a] = Cluster.start(1)
    name = :hot_patch_test_records

    module = fn vsn ->
      Builds.erlang("""
      -module(#{name}).
      -vsn(#{vsn}).
      -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
      -record #state{vsn = #{vsn}}.
      init(_) -> {ok, #state{}}.
      handle_call(get, _From, #state{vsn = Vsn} = State) -> {reply, Vsn, State}.
      handle_cast(_, State) -> {noreply, State}.
      code_change(_Old, State, _Extra) -> {ok, State#state{vsn = #{vsn}}}.
      """)
    end

    path = "exchange-1.0.0/ebin/#{name}.beam"
    {:ok, first} = hot_patch(a, :upload, [zip([{path, module.(1)}]), [name: "first"]])
    {:ok, second} = hot_patch(a, :upload, [zip([{path, module.(2)}]), [name: "second"]])
    assert {:ok, _} = hot_patch(a, :apply, [first.id])
    {:ok, pid} = Cluster.call(a, :gen_server, :start, [name, [], []])

    assert [node_plan] = plan!(a, second.id).nodes
    assert risk?(node_plan, "#{inspect(name)} defines native records")
    assert {:ok, _} = hot_patch(a, :apply, [second.id])
    assert Cluster.call(a, :gen_server, :call, [pid, :get]) == 2
  end

  test "has the analysis of every node, also of one without the native library" do
    # Two releases: the nodes of the second run nothing of the exchange.
    [a] = Cluster.start(1)
    [b] = Cluster.start(1, native: false)
    [c] = Cluster.start(1, exchange: false)
    Cluster.connect([a, b, c])
    start_calls(a, 3)
    start_calls(b, 5)

    {:ok, patch} = hot_patch(a, :upload, [zip(Builds.changed("patched")), [name: "fix"]])
    plan = plan!(a, patch.id)
    by_node = Map.new(plan.nodes, &{&1.node, &1})

    for node <- [a, b] do
      assert %{analysis: analysis, order: order} = by_node[node]
      assert length(analysis.modules) == 6
      refute analysis.stateless?

      place = fn name ->
        Enum.find_index(order, fn {_, module} -> module == "Exchange." <> name end)
      end

      assert place.("Tariff") < place.("Billing") and place.("Billing") < place.("Call")
    end

    assert by_node[c].analysis.modules == []

    # A code_change is missing: the plan says for how many processes.
    {path, call} = Builds.changed("patched", "Call")

    broken =
      List.keystore(Builds.changed("patched"), path, 0, {path, Builds.without_code_change(call)})

    {:ok, broken} = hot_patch(a, :upload, [zip(broken), [name: "broken"]])
    plan = plan!(a, broken.id)

    for {node, count} <- [{a, 3}, {b, 5}] do
      %{analysis: %{findings: findings}} = Enum.find(plan.nodes, &(&1.node == node))
      assert [%{name: :state_changed_without_code_change} = finding] = findings
      assert %{severity: :danger, module: "Elixir.Exchange.Call", processes: ^count} = finding
      assert finding.items == ["{_, _, _, _, _}", "%{from, id, requests, talked_ms, to, zone}"]
    end

    assert to_string(plan) =~ "state_changed_without_code_change"
    assert {:ok, json} = hot_patch(a, :to_json, [plan])
    assert json =~ ~s("name":"state_changed_without_code_change")
  end

  test "of a rollback compares with what a node had before" do
    [a, b] = Cluster.start(2)
    {:ok, patch} = hot_patch(a, :upload, [zip(Builds.changed("patched")), [name: "fix"]])
    assert {:ok, _report} = hot_patch(a, :apply, [patch.id])

    for %{analysis: analysis, node: node} <- plan!(a, patch.id, operation: :rollback).nodes do
      assert node in [a, b]
      assert "Elixir.Exchange.Tariff" in List.last(analysis.order)
      assert for(%{severity: :danger} = finding <- analysis.findings, do: finding) == []

      assert Enum.find(analysis.modules, &(&1.module == "Elixir.Exchange.Cdr")).code_change ==
               :touched
    end

    # What runs now is what the patch has: nothing is left to compare.
    assert [%{analysis: %{modules: []}} | _] = plan!(a, patch.id).nodes
  end

  test "compares each module alone as if the whole system were looked at" do
    [a] = Cluster.start(1)
    shipped = for path <- Path.wildcard(Builds.ebin("shipped") <> "/*.beam"), do: File.read!(path)

    for {path, bytes} = file <- Builds.changed("patched") do
      patch = upload!(a, [file], "fix")
      {:ok, whole} = HotPatch.Analysis.run(shipped, [bytes])
      assert [%{analysis: analysis} = node_plan] = plan!(a, patch.id).nodes
      found = for finding <- analysis.findings, do: %{finding | processes: nil}
      # Some of them call Exchange.Tariff, which is not there: that is found either way.
      assert {path, %{analysis | findings: found}} == {path, whole}
      refute risk?(node_plan, "compared")
    end
  end

  test "says what it could not compare" do
    [a] = Cluster.start(1)
    {path, bytes} = Builds.changed("patched", "Billing")
    patch = upload!(a, [{path, bytes}], "fix")
    assert [%{risks: []}] = plan!(a, patch.id).nodes

    # Of what calls it, the file is gone.
    File.rm!(Path.join(Cluster.exchange(a), "ebin/Elixir.Exchange.Billing.beam"))
    assert [node_plan] = plan!(a, patch.id).nodes
    assert risk?(node_plan, ~r/compared without 1 module .*: Elixir.Exchange.Billing/)
  end
end
