defmodule HotPatch.Swap.ReplayTest do
  # Messages that processes really get are played by old and new code: what differs is found, nobody notices, and
  # nothing of it gets out.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  alias HotPatch.Rehearsal.Replay
  alias HotPatch.Test.Builds

  @module :hot_patch_test_replayed

  setup do
    on_exit(fn -> unload(@module) end)
  end

  defp beam(version, body) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{version}").
    -behaviour(gen_server).
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3, handle_continue/2]).
    -compile([nowarn_unused_function]).
    #{body}
    """)
  end

  @v1 """
  init(Count) -> {ok, {v1, Count}}.
  handle_call({charge, Amount}, _From, {v1, Count}) -> {reply, {charged, Amount, Count + 1}, {v1, Count + 1}};
  handle_call({refund, Amount}, _From, {v1, Count}) -> {reply, {refunded, Amount}, {v1, Count - 1}};
  handle_call(count, _From, {v1, Count} = State) -> {reply, Count, State}.
  handle_cast({tell, Pid}, {v1, _} = State) -> Pid ! told, {noreply, State}.
  handle_info(tick, {v1, Count}) -> {noreply, {v1, Count}, {continue, Count}}.
  handle_continue(Count, {v1, Count}) -> {noreply, {v1, Count + 1}}.
  code_change(_, State, _) -> {ok, State}.
  """

  @v2 """
  init(Count) -> {ok, \#{version => v2, count => Count}}.
  handle_call({charge, 13}, _From, \#{count := _} = State) -> {reply, 13 / maps:get(zero, State, 0), State};
  handle_call({charge, Amount}, _From, \#{count := Count} = State) ->
      {reply, {charged, Amount + (Amount div 100), Count + 1}, State\#{count := Count + 1}};
  handle_call({refund, Amount}, _From, \#{count := Count} = State) -> {reply, {refunded, Amount}, State\#{count := Count - 1}};
  handle_call(count, _From, \#{count := Count} = State) -> {reply, Count, State}.
  handle_cast({tell, Pid}, State) -> Pid ! {told, maps:size(State)}, {noreply, State}.
  handle_info(tick, \#{count := Count} = State) -> {noreply, State, {continue, Count}}.
  handle_continue(Count, \#{count := Count} = State) -> {noreply, State\#{count := Count + 1}}.
  code_change(_, {v1, Count}, _) -> {ok, \#{version => v2, count => Count}}.
  """

  # Callers that go on for as long as the replay takes.
  defp under(load, fun) do
    task = Task.async(fn -> keep(load, 0) end)
    result = fun.()
    send(task.pid, :enough)
    {result, Task.await(task, 60_000)}
  end

  defp keep(load, count) do
    receive do
      :enough -> count
    after
      1 -> load.(count) && keep(load, count + 1)
    end
  end

  defp replay!(old, new, options \\ []) do
    versions = [{@module, old, new}]
    how = replay(versions, 1, options)
    assert {:ok, found} = rehearse(job(versions), replay: how)
    assert [%Replay{} = one] = found.replays
    one
  end

  test "a crash and wrong answers of the new code are found, and the process goes on as it was" do
    {old, new} = {beam("1", @v1), beam("2", @v2)}
    load(@module, old)
    {:ok, pid} = :gen_server.start(@module, 0, [])
    on_exit(fn -> kill([pid]) end)

    {one, count} =
      under(
        fn n ->
          amount = if rem(n, 10) == 3, do: 13, else: n
          assert {:charged, ^amount, _count} = :gen_server.call(pid, {:charge, amount})
          {:refunded, 5} = :gen_server.call(pid, {:refund, 5})
          send(pid, :tick)
        end,
        fn -> replay!(old, new) end
      )

    assert :gen_server.call(pid, :count) == count

    assert [%{reason: "badarith", message: "call {:charge, integer}", count: crashes} = crash] =
             one.crashes

    assert crashes >= 1
    assert crash.place =~ "handle_call/3"
    assert crash.values == []

    assert [%{what: :reply, from: same, to: same, message: "call {:charge, integer}"} | _] =
             one.differences

    assert one.messages > 20
    assert one.left_aside == []
    assert Replay.outcome(one) == :failed
  end
end
