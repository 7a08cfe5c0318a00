defmodule HotPatch.FunsTest do
  # The same as test/hot_patch/swap/funs_test.exs, by way of patches on a node.
  use ExUnit.Case, async: false
  @moduletag :starts_nodes

  import HotPatch.Test.Operator

  alias HotPatch.Error
  alias HotPatch.Report
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @module "hot_patch_test_fun_patched"
  @path "exchange-1.0.0/ebin/#{@module}.beam"
  @many 1_000

  defp beam(version, options \\ []) do
    extra = Keyword.get(options, :extra, "none")
    body = Keyword.get(options, :code_change, "{ok, S}")

    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{version}").
    -behaviour(gen_server).
    -export([extra/1, init/1, handle_call/3, handle_cast/2, code_change/3]).
    extra(X) -> _ = X, #{extra}.
    init(N) -> {ok, \#{f => fun() -> {#{version}, N} end}}.
    handle_call(ask, _From, \#{f := F} = S) -> {reply, F(), S};
    handle_call(fun_of, _From, \#{f := F} = S) -> {reply, F, S}.
    handle_cast(_, S) -> {noreply, S}.
    code_change(_, S, _) -> #{body}.
    """)
  end

  defp all(node, pids, version) do
    for {pid, n} <- Enum.with_index(pids, 1),
        do: assert(Cluster.call(node, :gen_server, :call, [pid, :ask]) == {version, n})
  end

  test "#{@many} servers with a fun: patches on patches, refused ones, failed ones, rollbacks" do
    [node] = Cluster.start(1)
    module = String.to_atom(@module)
    first = upload!(node, [{@path, beam(:v1)}])
    assert {:ok, %Report{}} = hot_patch(node, :apply, [first.id])

    pids =
      for n <- 1..@many do
        {:ok, pid} = Cluster.call(node, :gen_server, :start, [module, n, []])
        pid
      end

    all(node, pids, :v1)
    second = upload!(node, [{@path, beam(:v2, extra: "fun() -> {X} end")}])
    third = upload!(node, [{@path, beam(:v3)}])
    failing = upload!(node, [{@path, beam(:v4, code_change: "error(S)")}])

    assert {:ok, %{nodes: [%{suspended: @many}]}} = hot_patch(node, :apply, [second.id])
    all(node, pids, :v2)
    assert {:error, %Error{reason: :failed}} = hot_patch(node, :apply, [failing.id])
    all(node, pids, :v2)
    assert {:ok, %Report{}} = hot_patch(node, :apply, [third.id])
    all(node, pids, :v3)
    assert {:error, %Error{}} = hot_patch(node, :apply, [failing.id])
    all(node, pids, :v3)
    assert {:ok, %Report{}} = hot_patch(node, :rollback, [third.id])
    all(node, pids, :v2)
    assert {:ok, %Report{}} = hot_patch(node, :rollback, [second.id])
    all(node, pids, :v1)
    assert {:ok, %{items: []}} = hot_patch(node, :stragglers, [[]])
  end

  test "a fun in a table is named by the plan, by the stragglers, and refuses the next change" do
    [node] = Cluster.start(1)
    module = String.to_atom(@module)
    first = upload!(node, [{@path, beam(:v1)}])
    assert {:ok, %Report{}} = hot_patch(node, :apply, [first.id])
    {:ok, pid} = Cluster.call(node, :gen_server, :start, [module, 1, []])
    second = upload!(node, [{@path, beam(:v2, extra: "fun() -> {X} end")}])
    third = upload!(node, [{@path, beam(:v3)}])

    # An application's environment is a table, too.
    fun = Cluster.call(node, :gen_server, :call, [pid, :fun_of])
    :ok = Cluster.call(node, :application, :set_env, [:kernel, :hot_patch_test, [fun]])

    assert {:ok, plan} = hot_patch(node, :plan, [second.id])

    assert risk?(hd(plan.nodes), ["hold a fun of :#{@module}", "ac_tab"])

    assert {:ok, %{nodes: [%{stragglers: [straggler]}]}} = hot_patch(node, :apply, [second.id])
    assert %{kind: :holds_fun, module: ^module} = straggler
    assert {:ok, %{items: [%{kind: :holds_fun}]}} = hot_patch(node, :stragglers, [[]])

    assert {:ok, %{nodes: [%{files: [%{status: :not_updated, reason: reason}]}]}} =
             hot_patch(node, :check, [third.id])

    assert reason =~ "ac_tab"
    assert {:error, %Error{}} = hot_patch(node, :apply, [third.id])
    assert Cluster.call(node, :gen_server, :call, [pid, :ask]) == {:v2, 1}

    assert {:ok, plan} = hot_patch(node, :plan, [third.id, [purge: :force]])
    assert risk?(hd(plan.nodes), "purge: :force ends funs")

    :ok = Cluster.call(node, :application, :unset_env, [:kernel, :hot_patch_test])
    assert {:ok, %Report{}} = hot_patch(node, :apply, [third.id])
    assert Cluster.call(node, :gen_server, :call, [pid, :ask]) == {:v3, 1}
  end
end
