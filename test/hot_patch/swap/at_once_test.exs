defmodule HotPatch.Swap.AtOnceTest do
  # States that are converted in the same turn in which their processes come to stand still: which
  # code may do so, and that it keeps every promise among more processes than one sender has.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  alias HotPatch.Swap

  @module :hot_patch_test_at_once
  @count 600

  setup do
    v1 = server(@module, "1")
    load(@module, v1)
    on_exit(fn -> unload(@module) end)
    %{v1: v1}
  end

  # A module that would do so with this code_change, as the native core judges it.
  defp effect(v1, code_change) do
    [shadow] = job([{@module, v1, server(@module, "2", code_change)}]).shadows
    shadow.effect
  end

  test "code without effects is known", %{v1: v1} do
    for pure <- [
          "{ok, {VERSION, lists:sum([Count, 1])}}",
          "{ok, {VERSION, lists:map(fun(N) -> N + 1 end, [Count])}}",
          "{ok, {VERSION, \#{count => Count, at => erlang:monotonic_time()}}}",
          "try {ok, {VERSION, binary_to_integer(Count)}} catch error:_ -> {ok, {VERSION, 0}} end",
          "{ok, {VERSION, maps:fold(fun(_, N, Sum) -> N + Sum end, 0, Count)}}",
          "case Count of 0 -> error(none); _ -> {ok, {VERSION, Count}} end",
          "{ok, {VERSION, <<Count:32>>}}",
          # What it leads to is found when it runs.
          "M = Count, {ok, {VERSION, M:f()}}"
        ],
        do: assert(effect(v1, pure) == nil, pure)
  end

  test "what has an effect, or may have one, is named", %{v1: v1} do
    for {code, effect} <- [
          {"put(seen, Count), {ok, {VERSION, Count}}", ":erlang.put/2"},
          {"{ok, {VERSION, get(seen)}}", ":erlang.get/1"},
          {"{ok, {VERSION, ets:lookup(table, Count)}}", ":ets.lookup/2"},
          {"{ok, {VERSION, rand:uniform(Count)}}", ":rand.uniform/1"},
          {"self() ! Count, {ok, {VERSION, Count}}", "a message that it sends"},
          {"receive N -> {ok, {VERSION, N}} after 0 -> {ok, {VERSION, Count}} end", "receive"},
          {"{ok, {VERSION, Count()}}", "a fun that it is given"},
          {"{ok, {VERSION, lists:map(Count, [1])}}", ":lists.map/2 with a fun that it is given"},
          {"{ok, {VERSION, lists:map(fun(N) -> put(n, N) end, Count)}}", ":erlang.put/2"},
          {"{ok, {VERSION, lists:map(fun erlang:put/1, Count)}}", ":erlang.put/1"}
        ],
        do: assert(effect(v1, code) == effect, code)
  end

  defp start, do: for(n <- 1..@count, do: elem(:gen_server.start(@module, n, []), 1))

  defp swap(v1, code_change, options \\ [], held \\ fn _engine -> :ok end) do
    pids = start()
    on_exit(fn -> kill(pids) end)
    {pids, run(job([{@module, v1, server(@module, "2", code_change)}], options), held)}
  end

  defp states(pids), do: Enum.map(pids, &:gen_server.call(&1, :get))

  test "many are converted at once, and others in the round in between", %{v1: v1} do
    for code <- [
          "{ok, {VERSION, Count * 2}}",
          # Not known to be pure; and known only when it runs.
          "erase(nothing), {ok, {VERSION, Count * 2}}",
          "M = list_to_existing_atom(\"erlang\"), {ok, {VERSION, M:'*'(Count, 2)}}"
        ] do
      load(@module, v1)
      {pids, result} = swap(v1, code)
      assert {:ok, %{suspended: @count}} = result
      assert states(pids) == for(n <- 1..@count, do: {2, n * 2}), code
      kill(pids)
    end
  end

  test "one that fails has all keep the state that they had", %{v1: v1} do
    code = "case Count of 555 -> error(refused); _ -> {ok, {VERSION, Count}} end"
    {pids, result} = swap(v1, code)
    assert {:error, %{reason: :taken_back, text: text}} = result
    assert text =~ "refused"
    assert states(pids) == for(n <- 1..@count, do: {1, n})
  end

  test "one that does not end is named, and all go on", %{v1: v1} do
    code = "case Count of 555 -> (fun Loop() -> Loop() end)(); _ -> {ok, {VERSION, Count}} end"
    {pids, result} = swap(v1, code, pause_timeout: 300)
    assert {:error, %{reason: :taken_back, text: text}} = result
    assert text =~ "code_change of #{inspect(@module)} took too long"
    {[stuck], others} = Enum.split_with(pids, &(&1 == Enum.at(pids, 554)))
    kill([stuck])
    assert states(others) == for(n <- 1..@count, n != 555, do: {1, n})
  end

  test "all go on when the engine dies while they hold", %{v1: v1} do
    code = "{ok, {VERSION, Count + 1}}"
    {pids, result} = swap(v1, code, [hold_timeout: 60_000], &Process.exit(&1, :kill))
    assert {:error, %{reason: :engine_died}} = result
    assert states(pids) == for(n <- 1..@count, do: {1, n})
  end

  test "what is taken back leaves the very state", %{v1: v1} do
    code = "{ok, {VERSION, Count + 1}}"
    held = &Swap.decide(&1, {:take_back, "another node"})
    {pids, result} = swap(v1, code, [hold_timeout: 60_000], held)
    assert {:error, %{text: "another node"}} = result
    assert states(pids) == for(n <- 1..@count, do: {1, n})
  end

  test "one that dies while they hold is not waited for", %{v1: v1} do
    pids = start()
    on_exit(fn -> kill(pids) end)

    job =
      job([{@module, v1, server(@module, "2", "{ok, {VERSION, Count}}")}], hold_timeout: 60_000)

    held = fn engine ->
      kill([hd(pids)])
      Swap.decide(engine, :finish)
    end

    assert {:ok, _done} = run(job, held)
    assert states(tl(pids)) == for(n <- 2..@count, do: {2, n})
  end
end
