defmodule HotPatch.StrategyTest do
  # A patch goes back as it came: with the transition and the on_load of its apply.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Strategy
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @moduletag timeout: 120_000
  @ebin "exchange-1.0.0/ebin/"

  # Its state is a number in both versions. Where code_change is called all the same, version 2 makes
  # something else of it, as a tolerant one would.
  defp server(module, vsn) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{vsn}).
    -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
    init(N) -> {ok, N}.
    handle_call(vsn, _, S) -> {reply, #{vsn}, S};
    handle_call(state, _, S) -> {reply, S, S}.
    handle_cast(_, S) -> {noreply, S}.
    code_change({down, _}, S, _) -> {ok, {down, S}};
    code_change(_, S, _) -> {ok, {up, S}}.
    """)
  end

  defp loading(module, vsn) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{vsn}).
    -on_load(loaded/0).
    -export([vsn/0]).
    loaded() -> ok.
    vsn() -> #{vsn}.
    """)
  end

  defp name, do: :"hot_patch_test_strategy_#{System.unique_integer([:positive])}"

  defp patch!(node, module, bytes, name),
    do: upload!(node, [{@ebin <> "#{module}.beam", bytes}], name)

  defp applied!(node, patch, options \\ []) do
    assert {:ok, report} = hot_patch(node, :apply, [patch.id, options])
    report
  end

  defp start!(node, module) do
    {:ok, pid} = Cluster.call(node, :gen_server, :start, [module, 1, []])
    pid
  end

  defp ask(pid, what), do: Cluster.call(node(pid), :gen_server, :call, [pid, what])

  # Version 1 in force everywhere with a server on each node, and version 2 ready.
  defp servers(nodes) do
    [a | _] = nodes
    module = name()
    applied!(a, patch!(a, module, server(module, 1), "one"))
    pids = for node <- nodes, do: start!(node, module)
    {module, patch!(a, module, server(module, 2), "two"), pids}
  end

  describe "transition: :none" do
    @tag :starts_nodes
    test "is the way back too, as check, plan and report say" do
      [a, b] = nodes = Cluster.start(2)
      {_module, two, pids} = servers(nodes)
      report = applied!(a, two, transition: :none)

      for node <- report.nodes,
          do: assert(node.strategy == %{transition: :none, on_load: :restart})

      assert Enum.map(pids, &ask(&1, :vsn)) == [2, 2]
      assert Enum.map(pids, &ask(&1, :state)) == [1, 1]

      assert {:ok, check} = hot_patch(b, :check, [two.id, [operation: :rollback]])
      for node <- check.nodes, do: assert(node.strategy.transition == :none)
      assert to_string(check) =~ "transition none"
      assert {:ok, plan} = hot_patch(b, :plan, [two.id, [operation: :rollback]])
      for node <- plan.nodes, do: assert({node.strategy.transition, node.suspended} == {:none, 0})
      assert to_string(plan) =~ "0 processes to pause"

      assert {:ok, report} = hot_patch(b, :rollback, [two.id])
      for node <- report.nodes, do: assert({node.status, node.suspended} == {:ok, 0})
      assert Enum.map(pids, &ask(&1, :vsn)) == [1, 1]
      assert Enum.map(pids, &ask(&1, :state)) == [1, 1]
    end

    @tag :starts_nodes
    test "is not, where the operator says otherwise, and the plan names it" do
      [a] = nodes = Cluster.start(1)
      {_module, two, [pid]} = servers(nodes)
      applied!(a, two, transition: :none)
      options = [operation: :rollback, transition: :suspend]
      assert {:ok, plan} = hot_patch(a, :plan, [two.id, options])
      assert [%{suspended: 1, strategy: %{transition: :suspend}}] = plan.nodes
      assert to_string(plan) =~ "the patch came with transition none"
      assert {:ok, _} = hot_patch(a, :rollback, [two.id, [transition: :suspend]])
      assert ask(pid, :state) == {:down, 1}
    end

    @tag :starts_nodes
    test "stays so when the patch is applied once more, which changes nothing" do
      [a] = nodes = Cluster.start(1)
      {_module, two, [pid]} = servers(nodes)
      applied!(a, two, transition: :none)
      assert %{status: :not_changed} = applied!(a, two)
      assert {:ok, _} = hot_patch(a, :rollback, [two.id])
      assert ask(pid, :state) == 1
    end

    @tag :starts_nodes
    test "is the way of a node that catches up, there and back" do
      [a] = Cluster.start(1)
      {module, two, [pid]} = servers([a])
      applied!(a, two, transition: :none)

      [b] = Cluster.start(1)
      Cluster.connect([a, b])

      Cluster.caught_up(b, [two.id])

      other = start!(b, module)
      assert {:ok, report} = hot_patch(a, :rollback, [two.id])
      for node <- report.nodes, do: assert({node.status, node.suspended} == {:ok, 0})
      assert Enum.map([pid, other], &ask(&1, :vsn)) == [1, 1]
      assert Enum.map([pid, other], &ask(&1, :state)) == [1, 1]
    end

    @tag :starts_nodes
    test "of the exchange's own modules goes back so under a cumulative patch" do
      [a] = Cluster.start(1)
      [call] = start_calls(a, 1)
      before = Cluster.call(a, :sys, :get_state, [call])
      {path, bytes} = Builds.changed("patched", "Call")
      two = upload!(a, [{path, bytes}, Builds.changed("patched", "Tariff")], "two")
      applied!(a, two, transition: :none)
      assert Cluster.call(a, :sys, :get_state, [call]) == before

      other = name()
      all = patch!(a, other, Builds.versioned(other, 1), "all")
      assert %{status: :ok} = applied!(a, all, cumulative: true)
      assert Cluster.call(a, :sys, :get_state, [call]) == before
      assert {:ok, _} = hot_patch(a, :rollback, [all.id])
      assert Cluster.call(a, :sys, :get_state, [call]) == before
      assert {:ok, _} = hot_patch(a, :rollback, [two.id])
      assert Cluster.call(a, :sys, :get_state, [call]) == before
    end

    @tag :starts_nodes
    test "is what the reverse of a patch has to be applied with" do
      [a] = nodes = Cluster.start(1)
      {_module, two, [pid]} = servers(nodes)
      applied!(a, two, transition: :none)
      assert {:ok, back} = hot_patch(a, :export_antipatch, [two.id])
      # What it holds was in force before, as the patch `one`: it is the older of the two.
      assert back.apply_with == [transition: :none, on_load: :restart, again: true]
      assert {:ok, patch} = hot_patch(a, :upload, [back.zip, [name: "back"]])
      applied!(a, patch, back.apply_with)
      assert {ask(pid, :vsn), ask(pid, :state)} == {1, 1}
    end
  end

  describe "on_load: :load" do
    @tag :starts_nodes
    test "is the way back too, also on a node that came later" do
      [a] = Cluster.start(1)
      module = name()
      applied!(a, patch!(a, module, loading(module, 1), "one"), on_load: :load)
      two = patch!(a, module, loading(module, 2), "two")
      applied!(a, two, on_load: :load)

      [b] = Cluster.start(1)
      Cluster.connect([a, b])

      Cluster.caught_up(b, Cluster.call(a, HotPatch.NodeAgent, :info, []).applied)

      assert for(node <- [a, b], do: Cluster.call(node, module, :vsn, [])) == [2, 2]
      assert {:ok, check} = hot_patch(a, :check, [two.id, [operation: :rollback]])
      assert check.status == :ok
      assert to_string(check) =~ "on_load load"
      assert {:ok, %{status: :ok}} = hot_patch(b, :rollback, [two.id])
      assert for(node <- [a, b], do: Cluster.call(node, module, :vsn, [])) == [1, 1]
      for info <- hot_patch(a, :nodes, []), do: assert(info.restart_needed == [])
    end
  end

  @tag :starts_nodes
  test "a rollback cannot be told to be compatible, nor a check of one" do
    [a] = Cluster.start(1)

    for {call, options} <- [
          rollback: [transition: :compatible],
          check: [operation: :rollback, transition: :compatible]
        ] do
      assert {:error, %Error{reason: :invalid_option} = error} =
               hot_patch(a, call, ["fix", options])

      assert error.details.option == :transition
    end
  end

  describe "the strategy" do
    test "of a rollback is that of the record, unless something is told" do
      none = %{transition: :none, on_load: :load}

      for {told, came, strategy} <- [
            {%{}, %{transition: :suspend, on_load: :restart}, {:suspend, :restart}},
            {%{}, none, {:none, :load}},
            {%{}, %{transition: :compatible, on_load: :load}, {:suspend, :load}},
            {%{transition: :suspend}, none, {:suspend, :load}},
            {%{on_load: :restart}, none, {:none, :restart}},
            {%{}, nil, {:suspend, :restart}}
          ] do
        payload = Map.merge(%{kind: :rollback, transition: nil, on_load: nil}, told)
        got = Strategy.of(payload, came && %{strategy: came})
        assert {got.transition, got.on_load} == strategy
      end
    end

    test "of an apply is what it is told, whatever the record says" do
      payload = %{kind: :apply, transition: :suspend, on_load: :restart}
      record = %{strategy: %{transition: :none, on_load: :load}}
      assert Strategy.of(payload, record) == %{transition: :suspend, on_load: :restart}
    end
  end
end
