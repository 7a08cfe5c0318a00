defmodule HotPatch.Swap.EndedTest do
  # A code_change may end its own process, which then cannot tell that it has failed: by an exit signal of
  # what it has linked itself to, by its max_heap_size. That is a failure like any other.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  alias HotPatch.Test.Builds

  @module :hot_patch_test_ended
  # Words; a state that grows for a moment is enough.
  @heap %{size: 20_000, kill: true, error_logger: false}
  @kills "exit(self(), kill), receive never -> ok end"

  setup do
    load(@module, v1 = server(@module, "v1"))
    on_exit(fn -> unload(@module) end)
    %{v1: v1}
  end

  defp start(count, options \\ []) do
    pids =
      for n <- 1..count do
        {:ok, pid} = :gen_server.start(@module, n, options)
        pid
      end

    on_exit(fn -> kill(pids) end)
    pids
  end

  for {how, options, code} <- [
        {"of its own exit signal", [], @kills},
        {"of what it is linked to", [],
         "spawn_link(fun() -> exit(gone) end), receive never -> ok end"},
        {"of its max_heap_size", [spawn_opt: [max_heap_size: @heap]],
         "{ok, {VERSION, length(lists:seq(1, 200000))}}"}
      ] do
    test "who dies #{how} takes the change back", %{v1: v1} do
      pids = start(20, unquote(Macro.escape(options)))
      code = "case Count of 7 -> #{unquote(code)}; _ -> {ok, {VERSION, Count}} end"
      assert {:error, failure} = run(job([{@module, v1, server(@module, "v2", code)}]))
      refuse(failure, Enum.at(pids, 6))
      all_as_before(pids, Enum.at(pids, 6))
    end
  end

  test "and so does who dies in its turn", %{v1: v1} do
    pids = start(20)

    both =
      Builds.erlang("""
      -module(#{@module}).
      -vsn("v2").
      -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
      init(Count) -> {ok, {v2, Count}}.
      handle_call(get, _From, State) -> {reply, State, State}.
      handle_cast(_, State) -> {noreply, State}.
      code_change(_, {v1, 7}, _) -> #{@kills};
      code_change(_, {v1, Count}, _) -> {ok, {v2, Count}}.
      """)

    assert {:error, failure} = run(job([{@module, v1, both}], transition: :compatible))
    refuse(failure, Enum.at(pids, 6))
    all_as_before(pids, Enum.at(pids, 6))
  end

  test "and an event manager that dies with one of its handlers" do
    load(@module, v1 = handler(@module, "v1"))

    [victim, other] =
      for n <- 1..2 do
        {:ok, pid} = :gen_event.start()
        :ok = :gen_event.add_handler(pid, @module, n)
        pid
      end

    on_exit(fn -> kill([victim, other]) end)
    v2 = handler(@module, "v2", "case N of 1 -> #{@kills}; _ -> {ok, {v2, N}} end")
    assert {:error, failure} = run(job([{@module, v1, v2}]))
    refuse(failure, victim)
    assert :gen_event.call(other, @module, :get) == {:v1, 2}
  end

  # A state that holds a fun of the new code is converted by the module itself, when that is current.
  test "and who dies of it after the load: the former code is current again", %{v1: v1} do
    pids = start(20)
    on_disk(@module, v1)
    on_exit(fn -> :persistent_term.erase(@module) end)

    code = """
    case {Count, persistent_term:get(hot_patch_test_ended, first)} of
      {7, first} -> persistent_term:put(hot_patch_test_ended, second), {ok, {VERSION, fun() -> Count end}};
      {7, second} -> #{@kills};
      _ -> {ok, {VERSION, Count}}
    end
    """

    assert {:error, failure} = run(job([{@module, v1, server(@module, "v2", code)}]))
    refuse(failure, Enum.at(pids, 6))
    all_as_before(pids, Enum.at(pids, 6))
  end

  defp refuse(failure, pid) do
    assert %{reason: :taken_back, loaded?: false} = failure

    assert failure.text =~
             "code_change of #{inspect(@module)} ended #{inspect(pid)}: the process died while it ran"

    assert @module.module_info(:attributes)[:vsn] == ~c"v1"
  end

  defp all_as_before(pids, dead) do
    refute Process.alive?(dead)

    for {pid, n} <- Enum.zip(pids, 1..20),
        pid != dead,
        do: assert(:gen_server.call(pid, :get) == {:v1, n})
  end
end
