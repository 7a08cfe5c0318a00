defmodule HotPatch.Swap.AgentsTest do
  use ExUnit.Case, async: false

  # Agents: the loop is Elixir's, the state a module's of the user.

  import HotPatch.Test.Servers

  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @module :hot_patch_test_agent

  setup do
    on_exit(fn -> unload(@module) end)
    v1 = agent("v1")
    load(@module, v1)

    pids =
      for {how, n} <- Enum.with_index([:start_fun, :start_mfa, :start_fun], 1) do
        {:ok, pid} = apply(@module, how, [n])
        pid
      end

    on_exit(fn -> kill(pids) end)
    %{v1: v1, pids: pids}
  end

  test "are found and converted, again and back", %{v1: v1, pids: pids} do
    v2 = agent("v2")
    job = job([{@module, v1, v2}])
    assert %{targets: targets, unpaused: []} = Swap.find(job.changes)
    assert Enum.sort(Enum.map(targets, & &1.pid)) == Enum.sort(pids)
    assert Enum.all?(targets, &match?(%{kind: :agent, rule: :agent}, &1))
    assert {:ok, %{suspended: 3}} = run(job)
    assert shown(pids) == [v2: 1, v2: 2, v2: 3]

    failing = agent("v3", "case N of 2 -> error(refused); _ -> {ok, {v3, N}} end")
    assert {:error, %{reason: :taken_back}} = run(job([{@module, v2, failing}]))
    assert shown(pids) == [v2: 1, v2: 2, v2: 3]

    v4 = agent("v4")
    assert {:ok, _} = run(job([{@module, v2, v4}], transition: :compatible))
    assert shown(pids) == [v4: 1, v4: 2, v4: 3]
  end

  test "that cannot be tried change after the load, or all go back", %{v1: v1, pids: pids} do
    on_disk(@module, v1)
    failing = agent("v2", "case N of 2 -> error(refused); _ -> {ok, {v2, N}} end")
    job = job([{@module, v1, failing}], shadows: false)
    assert {:error, %{reason: :taken_back}} = run(job)
    assert shown(pids) == [v1: 1, v1: 2, v1: 3]
    assert {:ok, _} = run(job([{@module, v1, agent("v2")}], shadows: false))
    assert shown(pids) == [v2: 1, v2: 2, v2: 3]
  end

  test "of a module that is a server, too, keep their state", %{pids: pids} do
    v1 = server(@module, "v1")
    load(@module, v1)
    job = job([{@module, v1, server(@module, "v2")}])
    assert %{targets: [], unpaused: unpaused} = Swap.find(job.changes)
    assert Enum.sort(Enum.map(unpaused, & &1.pid)) == Enum.sort(pids)
    assert {:ok, %{suspended: 0}} = run(job)
    assert shown(pids) == [v1: 1, v1: 2, v1: 3]
  end

  defp shown(pids), do: Enum.map(pids, &:sys.get_state/1)

  defp agent(v, code_change \\ "{ok, {VERSION, N}}") do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{v}").
    -export([start_fun/1, start_mfa/1, made/1, code_change/3]).
    start_fun(N) -> 'Elixir.Agent':start(fun() -> {#{v}, N} end).
    start_mfa(N) -> 'Elixir.Agent':start(#{@module}, made, [N]).
    made(N) -> {#{v}, N}.
    code_change(_Old, {_, N}, _Extra) -> _ = N, #{String.replace(code_change, "VERSION", v)}.
    """)
  end
end
