defmodule HotPatch.SwapTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @module :hot_patch_test_server

  setup do
    v1 = server(@module, "v1")
    load(@module, v1)
    on_exit(fn -> unload(@module) end)
    %{v1: v1, v2: server(@module, "v2")}
  end

  defp start(count) do
    pids = for n <- 1..count, do: elem(:gen_server.start(@module, n, []), 1)
    on_exit(fn -> kill(pids) end)
    pids
  end

  # A server inside a callback, until it is let go.
  defp block(pid) do
    test = self()

    caller = spawn(fn -> :gen_server.call(pid, {:block, test}, :infinity) end)
    assert_receive {:blocked, ^pid}
    on_exit(fn -> kill([caller]) end)
    pid
  end

  defp version(module), do: module.module_info(:attributes)[:vsn]

  describe "a swap" do
    test "changes the state of every process with the old vsn and loses none", %{v1: v1, v2: v2} do
      pids = start(3_000)
      assert {:ok, done} = run(job([{@module, v1, v2}]))
      assert done.suspended == 3_000
      assert done.pause_us > 0

      for {pid, n} <- Enum.zip(pids, 1..3_000) do
        assert :gen_server.call(pid, :get) == {:v2, n}
        assert goes_on?(pid)
        {:dictionary, dictionary} = Process.info(pid, :dictionary)
        assert Keyword.keys(dictionary) -- [:"$initial_call", :"$ancestors"] == []
      end

      assert Swap.stragglers([@module], []) == []
    end

    test "gives code_change the vsn of the running module, not in a list", %{v1: v1} do
      [pid] = start(1)
      v2 = server(@module, "v2", "{ok, {VERSION, {OldVsn, Extra, Count}}}")
      assert {:ok, _} = run(job([{@module, v1, v2}]))
      assert :gen_server.call(pid, :get) == {:v2, {~c"v1", [], 1}}
    end

    test "answers calls that wait in mailboxes with the new code", %{v1: v1, v2: v2} do
      pids = start(50)
      test = self()
      job = job([{@module, v1, v2}], hold_timeout: 60_000)

      # They come while everybody stands still.
      hold = fn engine ->
        send(test, {:refs, for(pid <- pids, do: :gen_server.send_request(pid, :add))})
        Swap.decide(engine, :finish)
      end

      assert {:ok, _} = run(job, hold)
      assert_received {:refs, refs}

      for {ref, n} <- Enum.zip(refs, 1..50) do
        assert :gen_server.receive_response(ref, 5_000) == {:reply, n + 1}
        assert {:v2, _} = :gen_server.call(Enum.at(pids, n - 1), :get)
      end
    end

    test "leaves suspended who was suspended by somebody else, with the new state", %{
      v1: v1,
      v2: v2
    } do
      pids = start(20)
      :ok = Enum.each(pids, &:sys.suspend/1)
      refs = for pid <- pids, do: :gen_server.send_request(pid, :add)
      assert {:ok, _} = run(job([{@module, v1, v2}]))

      for {pid, ref, n} <- Enum.zip([pids, refs, 1..20]) do
        assert suspended?(pid)
        assert :sys.get_state(pid) == {:v2, n}
        :ok = :sys.resume(pid)
        assert :gen_server.receive_response(ref, 5_000) == {:reply, n + 1}
      end
    end

    test "leaves no call unanswered under load", %{v1: v1, v2: v2} do
      pids = start(200)
      test = self()

      callers =
        for _ <- 1..4 do
          spawn_link(fn -> call_until_stopped(test, pids, 0) end)
        end

      # Held long enough for every caller to run into a process that stands still.
      job = job([{@module, v1, v2}], hold_timeout: 60_000)

      assert {:ok, _} =
               run(job, fn engine ->
                 until(fn -> Enum.all?(callers, &waits?/1) end, "all callers wait")
                 Swap.decide(engine, :finish)
               end)

      Enum.each(callers, &send(&1, :stop))

      added = for caller <- callers, do: receive(do: ({^caller, count} -> count))
      assert Enum.min(added) > 0
      total = for pid <- pids, do: elem(:gen_server.call(pid, :get), 1)
      assert Enum.sum(total) == Enum.sum(1..200) + Enum.sum(added)
    end

    test "loads several modules in one step, among them new ones", %{v1: v1, v2: v2} do
      added = :hot_patch_test_added
      on_exit(fn -> unload(added) end)
      start(3)
      job = job([{@module, v1, v2}, {added, nil, server(added, "v1")}])
      assert {:ok, %{suspended: 3}} = run(job)
      assert version(@module) == ~c"v2"
      assert :erlang.module_loaded(added)
    end

    test "without any process concerned has no pause", %{v1: v1, v2: v2} do
      assert {:ok, %{pause_us: 0, suspended: 0}} = run(job([{@module, v1, v2}]))
      assert version(@module) == ~c"v2"
    end

    test "goes on when a process dies in between", %{v1: v1, v2: v2} do
      pids = start(20)
      # While it stands still, and of something else.
      killed = fn engine ->
        kill([Enum.at(pids, 6)])
        Swap.decide(engine, :finish)
      end

      assert {:ok, _} = run(job([{@module, v1, v2}], hold_timeout: 60_000), killed)
      refute Process.alive?(Enum.at(pids, 6))
      for pid <- List.delete_at(pids, 6), do: assert({:v2, _} = :gen_server.call(pid, :get))
    end
  end

  describe "processes that are started meanwhile" do
    # A supervisor whose children are servers under test, as any system has them.
    setup do
      %{supervisor: start_supervised!({DynamicSupervisor, strategy: :one_for_one})}
    end

    test "by a supervisor end up in the new code with the right state", %{
      v1: v1,
      v2: v2,
      supervisor: supervisor
    } do
      first = for n <- 1..200, do: start_child(supervisor, n)
      test = self()
      starter = spawn_link(fn -> start_until_stopped(test, supervisor, 201, []) end)

      until(
        fn -> length(DynamicSupervisor.which_children(supervisor)) > 250 end,
        "children are started"
      )

      assert {:ok, done} = run(job([{@module, v1, v2}]))
      assert done.suspended > 250
      send(starter, :stop)
      assert_receive {^starter, later}
      assert goes_on?(supervisor)

      for {pid, n} <- Enum.with_index(first ++ Enum.reverse(later), 1) do
        assert :gen_server.call(pid, :get) == {:v2, n}
      end
    end

    test "are found although nobody's supervisor stood still for them", %{v1: v1, v2: v2} do
      busy = block(hd(start(1)))
      test = self()

      spawn(fn ->
        send(test, {:result, run(job([{@module, v1, v2}], pause_timeout: 60_000))})
      end)

      until(
        fn -> engine() && Process.info(busy, :message_queue_len) != {:message_queue_len, 0} end,
        "the suspend is sent"
      )

      # After the scan, before the load.
      late = start(50)
      send(busy, :go)
      assert_receive {:result, {:ok, %{suspended: 51}}}
      for {pid, n} <- Enum.zip(late, 1..50), do: assert(:gen_server.call(pid, :get) == {:v2, n})
    end

    defp start_child(supervisor, n) do
      {:ok, pid} =
        DynamicSupervisor.start_child(supervisor, %{
          id: n,
          start: {:gen_server, :start_link, [@module, n, []]}
        })

      pid
    end

    # As many as a slow machine can still suspend in time.
    @most_started 20_000

    defp start_until_stopped(test, supervisor, n, pids) do
      receive do
        :stop -> send(test, {self(), pids})
      after
        if(n > @most_started, do: :infinity, else: 0) ->
          start_until_stopped(test, supervisor, n + 1, [start_child(supervisor, n) | pids])
      end
    end
  end

  describe "processes that call each other" do
    # A server that calls others inside its callbacks, in two versions.
    defp caller(version) do
      Builds.erlang("""
      -module(hot_patch_test_caller).
      -vsn("#{version}").
      -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
      init(N) -> {ok, {#{version}, N, 0}}.
      handle_call(get, _From, {#{version}, _, _} = S) -> {reply, S, S};
      handle_call(ping, _From, S) -> {reply, pong, S}.
      handle_cast({ask, Pids}, {#{version}, N, Asked}) ->
          [pong = gen_server:call(P, ping, infinity) || P <- Pids],
          {noreply, {#{version}, N, Asked + length(Pids)}}.
      handle_info({then_ask, Test, Pids}, {#{version}, N, Asked}) ->
          Test ! {in_callback, self()}, receive go -> ok end,
          [pong = gen_server:call(P, ping, infinity) || P <- Pids],
          {noreply, {#{version}, N, Asked + length(Pids)}}.
      code_change(_, {_, N, Asked}, _) -> {ok, {#{version}, N, Asked}}.
      """)
    end

    setup do
      module = :hot_patch_test_caller
      old = caller("v1")
      load(module, old)
      on_exit(fn -> unload(module) end)
      %{swap: {module, old, caller("v2")}, module: module}
    end

    defp start_callers(module, count) do
      pids = for n <- 1..count, do: elem(:gen_server.start(module, n, []), 1)
      on_exit(fn -> kill(pids) end)
      pids
    end

    test "are suspended although one waits for another that is suspended", %{
      swap: swap,
      module: module
    } do
      [a, b, c] = start_callers(module, 3)
      # Two in a row: a waits for b, b for c, and c stands still before b asks.
      send(b, {:then_ask, self(), [c]})
      assert_receive {:in_callback, ^b}
      send(a, {:then_ask, self(), [b]})
      assert_receive {:in_callback, ^a}
      test = self()
      # On a busy machine all of it takes its time, and none of it is about time.
      spawn(fn -> send(test, {:result, run(job([swap], pause_timeout: 60_000))}) end)
      until(fn -> suspended?(c) end, "the last is suspended")
      send(b, :go)
      send(a, :go)

      assert_receive {:result, {:ok, %{suspended: 3, releases: releases}}}
      assert releases > 0
      assert :gen_server.call(a, :get) == {:v2, 1, 1}
      assert :gen_server.call(b, :get) == {:v2, 2, 1}
    end

    test "a mesh of 400 is swapped without an abort, again and again", %{
      swap: {module, old, new},
      module: module
    } do
      pids = start_callers(module, 400)
      # Only to higher ones: a mesh that asks in circles would deadlock by itself.
      indexed = pids |> Enum.with_index() |> Map.new(fn {pid, index} -> {index, pid} end)
      test = self()

      driver =
        spawn_link(fn ->
          :rand.seed(:exsss, 7)
          mesh(test, indexed)
        end)

      for _ <- 1..3, {from, to} <- [{old, new}, {new, old}] do
        assert {:ok, %{suspended: 400}} = run(job([{module, from, to}]))
      end

      send(driver, {:stop, test})
      assert_receive {:asked, total}
      assert pids |> Enum.map(&elem(:gen_server.call(&1, :get, 10_000), 2)) |> Enum.sum() == total
      assert Enum.all?(pids, &goes_on?/1)
    end

    defp mesh(test, indexed, total \\ 0) do
      receive do
        {:stop, ^test} -> send(test, {:asked, total})
      after
        1 ->
          n = Enum.random(0..398)
          others = for _ <- 1..3, uniq: true, do: indexed[Enum.random((n + 1)..399)]
          :gen_server.cast(indexed[n], {:ask, others})
          mesh(test, indexed, total + length(others))
      end
    end

    test "also where one asks its own supervisor", %{v1: v1, v2: v2} do
      supervisor = start_supervised!({DynamicSupervisor, strategy: :one_for_one})
      # Its init waits until it is told, and then its supervisor for it.
      spec = %{id: 1, start: {:gen_server, :start_link, [@module, 1, []]}}
      {:ok, pid} = DynamicSupervisor.start_child(supervisor, spec)
      test = self()
      :sys.replace_state(pid, fn state -> state end)
      spawn(fn -> :gen_server.call(pid, {:block, test}, :infinity) end)
      assert_receive {:blocked, ^pid}
      spawn(fn -> send(test, {:result, run(job([{@module, v1, v2}]))}) end)
      until(fn -> suspended?(supervisor) end, "the supervisor stands still")
      send(pid, :go)
      assert_receive {:result, {:ok, %{suspended: 1}}}
      assert :gen_server.call(pid, :get) == {:v2, 1}
    end
  end

  describe "a swap that is held" do
    test "changes nothing until it is decided, and nothing if it is taken back", %{v1: v1, v2: v2} do
      pids = start(50)
      test = self()
      job = job([{@module, v1, v2}], hold_timeout: 60_000)

      spawn(fn -> send(test, {:result, run(job, &send(test, {:held, &1}))}) end)
      assert_receive {:held, engine}
      assert version(@module) == ~c"v1"
      Swap.decide(engine, {:take_back, "another node failed"})

      assert_receive {:result,
                      {:error,
                       %{reason: :taken_back, text: "another node failed", loaded?: false}}}

      for {pid, n} <- Enum.zip(pids, 1..50), do: assert(:gen_server.call(pid, :get) == {:v1, n})

      spawn(fn -> send(test, {:result, run(job, &send(test, {:held, &1}))}) end)
      assert_receive {:held, engine}
      # Started while everybody waits.
      [late] = start(1)
      Swap.decide(engine, :finish)
      assert_receive {:result, {:ok, %{suspended: 51, unsure: []}}}
      for {pid, n} <- Enum.zip(pids, 1..50), do: assert(:gen_server.call(pid, :get) == {:v2, n})
      assert :gen_server.call(late, :get) == {:v2, 1}
    end

    test "converts those anew that had to go on for one that was started meanwhile", %{
      v1: v1,
      v2: v2
    } do
      module = :hot_patch_test_asking

      asking = fn version ->
        Builds.erlang("""
        -module(#{module}).
        -vsn("#{version}").
        -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
        init(X) -> {ok, {#{version}, X}}.
        handle_call(get, _, {#{version}, _} = S) -> {reply, S, S}.
        handle_cast({add_at, Pid}, {#{version}, _}) -> {noreply, {#{version}, gen_server:call(Pid, add)}}.
        code_change(_, {_, X}, _) -> {ok, {#{version}, X}}.
        """)
      end

      load(module, old = asking.("v1"))
      on_exit(fn -> unload(module) end)
      pids = start(3)
      versions = [{@module, v1, v2}, {module, old, asking.("v2")}]
      test = self()

      held = fn engine ->
        {:ok, late} = :gen_server.start(module, nil, [])
        # It waits for one that stands still and has its new state already.
        for pid <- pids, do: :gen_server.cast(late, {:add_at, pid})
        until(fn -> waits?(late) end, "it waits")
        send(test, {:late, late})
        Swap.decide(engine, :finish)
      end

      assert {:ok, %{suspended: 4, releases: releases}} =
               run(job(versions, hold_timeout: 60_000), held)

      assert releases > 0
      assert_received {:late, late}
      assert :gen_server.call(late, :get) == {:v2, 4}

      for {pid, n} <- Enum.zip(pids, 1..3),
          do: assert(:gen_server.call(pid, :get) == {:v2, n + 1})

      kill([late])
    end

    test "ends by itself when no decision comes", %{v1: v1, v2: v2} do
      [pid] = start(1)
      assert {:error, %{reason: :taken_back}} = run(job([{@module, v1, v2}], hold_timeout: 50))
      assert :gen_server.call(pid, :get) == {:v1, 1}
      assert version(@module) == ~c"v1"
    end

    test "is ended by the guard when the engine is killed: dropped before the load", %{
      v1: v1,
      v2: v2
    } do
      pids = start(50)
      job = job([{@module, v1, v2}], hold_timeout: 60_000)

      assert {:error, %{reason: :engine_died, loaded?: false}} =
               run(job, &Process.exit(&1, :kill))

      for {pid, n} <- Enum.zip(pids, 1..50), do: assert(:gen_server.call(pid, :get) == {:v1, n})
    end

    test "is ended by the guard when the engine is killed: finished after the load", %{
      v1: v1,
      v2: v2
    } do
      pids = start(50)
      # The engine dies right after the load.
      die = fn -> Process.exit(self(), :kill) end
      job = job([{@module, v1, v2}], hold_timeout: 60_000, after_load: die)
      result = run(job, &Swap.decide(&1, :finish))
      assert {:error, %{reason: :engine_died, loaded?: true}} = result
      for {pid, n} <- Enum.zip(pids, 1..50), do: assert(:gen_server.call(pid, :get) == {:v2, n})
    end
  end

  describe "a transition without a pause" do
    # Takes both formats, as whoever declares a transition compatible promises.
    defp both_formats(code_change \\ "{ok, {v2, Count}}") do
      Builds.erlang("""
      -module(#{@module}).
      -vsn("v2").
      -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
      init(Count) -> {ok, {v2, Count}}.
      handle_call(get, _From, State) -> {reply, State, State};
      handle_call(add, _From, {V, Count}) -> {reply, Count + 1, {V, Count + 1}};
      handle_call({block, Pid}, _From, State) ->
          Pid ! {blocked, self()}, receive go -> ok end, {reply, ok, State}.
      handle_cast(_, State) -> {noreply, State}.
      handle_info(_, State) -> {noreply, State}.
      code_change(_, {v1, Count}, _) -> #{code_change}.
      """)
    end

    test "changes each process in its turn, and waits for none to let others go on", %{v1: v1} do
      pids = start(500)
      busy = block(hd(pids))
      test = self()
      job = job([{@module, v1, both_formats()}], transition: :compatible, hold_timeout: 60_000)
      spawn(fn -> send(test, {:result, run(job, &Swap.decide(&1, :finish))}) end)

      # The conversion is tried in every process first: the busy one gets to it later.
      for pid <- tl(pids), do: assert({:v1, _} = :gen_server.call(pid, :get))
      refute_received {:result, _}
      send(busy, :go)
      assert_receive {:result, {:ok, %{suspended: 0, pause_us: 0}}}
      for {pid, n} <- Enum.zip(pids, 1..500), do: assert(:gen_server.call(pid, :get) == {:v2, n})
    end

    test "loads nothing when a process cannot convert its state", %{v1: v1} do
      pids = start(100)
      new = both_formats("case Count of 50 -> error(unknown); _ -> {ok, {v2, Count}} end")
      job = job([{@module, v1, new}], transition: :compatible)
      assert {:error, %{reason: :taken_back, loaded?: false, text: text}} = run(job)
      assert text =~ inspect(Enum.at(pids, 49))
      assert version(@module) == ~c"v1"
      for {pid, n} <- Enum.zip(pids, 1..100), do: assert(:gen_server.call(pid, :get) == {:v1, n})
    end

    # The new code knows its own format only: the declaration is a lie.
    defp untrue(code_change) do
      Builds.erlang("""
      -module(#{@module}).
      -vsn("v2").
      -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
      init(Count) -> {ok, {v2, Count}}.
      handle_call(get, _From, {v2, _} = State) -> {reply, State, State}.
      handle_cast(_, State) -> {noreply, State}.
      handle_info(_, State) -> {noreply, State}.
      #{code_change}
      """)
    end

    test "goes back when a process dies of its old state before its turn", %{v1: v1} do
      pids = start(200)
      victim = Enum.at(pids, 99)
      new = untrue("code_change(\"v1\", {v1, Count}, _) -> {ok, {v2, Count}}.")
      crash = fn -> catch_exit(:gen_server.call(victim, :get)) end
      on_disk(@module, v1)

      job = job([{@module, v1, new}], transition: :compatible, after_load: crash)
      assert {:error, %{reason: :taken_back, loaded?: false, text: text}} = run(job)
      assert text =~ "#{inspect(victim)} died"
      assert version(@module) == ~c"v1"

      for {pid, n} <- Enum.zip(pids, 1..200), pid != victim do
        assert :gen_server.call(pid, :get) == {:v1, n}

        refute Keyword.has_key?(
                 elem(Process.info(pid, :dictionary), 1),
                 :"$hot_patch_state_before"
               )
      end
    end

    # Fails in one process, once, after the load; by then all have counted on.
    defp counted_on(down) do
      both_formats("""
      {ok, begin
        case {Count, get(tried), persistent_term:get(#{@module}, none)} of
          {100, undefined, Pids} when is_list(Pids) ->
            put(tried, true),
            [gen_server:call(Pid, add) || Pid <- Pids, Pid =/= self()],
            error(not_after_all);
          _ -> {v2, Count}
        end
      end}#{down}
      """)
    end

    defp run_counted_on(v1, pids, new) do
      on_disk(@module, v1)
      :persistent_term.put(@module, :none)
      on_exit(fn -> :persistent_term.erase(@module) end)
      ready = fn -> :persistent_term.put(@module, pids) end
      run(job([{@module, v1, new}], transition: :compatible, after_load: ready))
    end

    test "goes back by code_change({down, Vsn}, ...) where states have changed since", %{v1: v1} do
      pids = start(200)
      down = "; code_change({down, \"v1\"}, {v2, Count}, _) -> {ok, {v1, Count}}"
      assert {:error, %{loaded?: false, text: text}} = run_counted_on(v1, pids, counted_on(down))
      assert text =~ "not_after_all"
      assert version(@module) == ~c"v1"

      for {pid, n} <- Enum.zip(pids, 1..200) do
        assert :gen_server.call(pid, :get) == {:v1, if(n == 100, do: n, else: n + 1)}
      end
    end

    test "goes forward with all where going back would lose what changed since", %{v1: v1} do
      pids = start(200)
      assert {:error, %{loaded?: true, text: text}} = run_counted_on(v1, pids, counted_on(""))
      assert text =~ "could not be taken back"
      assert version(@module) == ~c"v2"

      for {pid, n} <- Enum.zip(pids, 1..200) do
        assert :gen_server.call(pid, :get) == {:v2, if(n == 100, do: n, else: n + 1)}
      end
    end

    test "leaves state alone where its format does not change", %{v1: v1} do
      pids = start(100)
      busy = block(hd(pids))
      job = job([{@module, v1, both_formats()}], transition: :none)
      assert {:ok, %{suspended: 0, pause_us: 0}} = run(job)
      assert version(@module) == ~c"v2"
      send(busy, :go)
      for {pid, n} <- Enum.zip(pids, 1..100), do: assert(:gen_server.call(pid, :get) == {:v1, n})
    end
  end

  describe "funs of the old code" do
    test "go on working after the swap, and a state that gets a new one is converted all the same",
         %{v1: v1} do
      [pid] = start(1)
      v2 = server(@module, "v2", "{ok, {VERSION, fun() -> {from_new, Count} end}}")
      assert {:ok, _} = run(job([{@module, v1, v2}]))
      assert {:v2, fun} = :gen_server.call(pid, :get)
      assert fun.() == {:from_new, 1}

      v3 = server(@module, "v3")
      assert {:ok, _} = run(job([{@module, v2, v3}]))
      # Its code is old now, and is kept until the next change.
      assert fun.() == {:from_new, 1}
    end
  end

  describe "a swap that cannot suspend everyone" do
    test "loads nothing, names the busy one, and resumes all, that one too", %{v1: v1, v2: v2} do
      pids = start(100)
      busy = block(Enum.at(pids, 50))

      assert {:error, failure} = run(job([{@module, v1, v2}], pause_timeout: 100))
      assert failure.reason == :busy
      assert failure.text =~ inspect(busy)
      assert failure.text =~ "#{@module}.handle_call/3"
      assert version(@module) == ~c"v1"

      for pid <- List.delete(pids, busy), do: assert(goes_on?(pid))

      # Its suspend comes due only now.
      send(busy, :go)
      assert :gen_server.call(busy, :get) == {:v1, 51}
      assert goes_on?(busy)
    end

    test "resumes everyone when the engine is killed", %{v1: v1, v2: v2} do
      pids = start(100)
      busy = block(hd(pids))
      test = self()

      spawn(fn ->
        send(test, {:result, run(job([{@module, v1, v2}], pause_timeout: 60_000))})
      end)

      engine = until(fn -> engine() end, "the engine runs")
      until(fn -> suspended?(List.last(pids)) end, "the others are suspended")
      Process.exit(engine, :kill)

      assert_receive {:result, {:error, %{reason: :engine_died}}}
      for pid <- tl(pids), do: until(fn -> goes_on?(pid) end, "#{inspect(pid)} is resumed")

      send(busy, :go)
      until(fn -> goes_on?(busy) end, "the busy one is resumed")
      assert :gen_server.call(busy, :get) == {:v1, 1}
      assert version(@module) == ~c"v1"
    end

    test "loads nothing when its caller died meanwhile", %{v1: v1, v2: v2} do
      pids = start(20)
      busy = block(hd(pids))
      caller = spawn(fn -> run(job([{@module, v1, v2}], pause_timeout: 60_000)) end)
      engine = until(fn -> engine() end, "the engine runs")
      monitor = Process.monitor(engine)
      Process.exit(caller, :kill)
      send(busy, :go)

      assert_receive {:DOWN, ^monitor, :process, ^engine, :normal}
      for pid <- pids, do: assert(goes_on?(pid))
      assert version(@module) == ~c"v1"
    end
  end

  describe "a code_change that fails" do
    test "takes back code and state of all", %{v1: v1} do
      pids = start(500)

      v2 =
        server(
          @module,
          "v2",
          "case Count of 250 -> error(no_such_format); _ -> {ok, {VERSION, -Count}} end"
        )

      assert {:error, failure} = run(job([{@module, v1, v2}]))
      assert failure.reason == :taken_back
      assert failure.text =~ inspect(Enum.at(pids, 249))
      assert failure.text =~ "no_such_format"
      assert version(@module) == ~c"v1"
      for {pid, n} <- Enum.zip(pids, 1..500), do: assert(:gen_server.call(pid, :get) == {:v1, n})
    end

    test "is what an endless one is taken for", %{v1: v1} do
      pids = start(10)

      v2 =
        server(
          @module,
          "v2",
          "case Count of 5 -> receive go -> {ok, {VERSION, -1}} end; _ -> {ok, {VERSION, Count}} end"
        )

      assert {:error, failure} = run(job([{@module, v1, v2}], pause_timeout: 200))
      slow = Enum.at(pids, 4)

      assert failure.text =~
               "code_change of #{inspect(@module)} took too long in #{inspect(slow)} in"

      # Nobody waits for it.
      for pid <- List.delete(pids, slow), do: assert({:v1, _} = :gen_server.call(pid, :get))
      send(slow, :go)
      for {pid, n} <- Enum.zip(pids, 1..10), do: assert(:gen_server.call(pid, :get) == {:v1, n})
      assert goes_on?(slow)
    end
  end

  describe "what is told of a failure" do
    test "has its inner cause", %{v1: v1} do
      [pid] = start(1)
      :ets.new(:hot_patch_test_taken, [:named_table])
      v2 = server(@module, "v2", "ets:new(hot_patch_test_taken, [named_table]), {ok, Count}")
      assert {:error, %{text: text}} = run(job([{@module, v1, v2}]))
      assert text =~ "code_change of #{inspect(@module)} failed"
      assert text =~ inspect(pid) and text =~ "1st argument: table name already exists"

      v3 = server(@module, "v3", "exit({shutdown, Count})")
      assert {:error, %{text: text}} = run(job([{@module, v1, v3}]))
      assert text =~ "exit {:shutdown, 1}"
    end

    test "says of a process that is held from outside who holds it", %{v1: v1, v2: v2} do
      [pid] = start(1)
      :erlang.suspend_process(pid)

      assert {:error, %{reason: :busy, text: text}} =
               run(job([{@module, v1, v2}], pause_timeout: 100))

      assert text =~ "#{inspect(pid)} in"
      assert text =~ "held by :erlang.suspend_process/1 of #{inspect(self())}"
      refute text =~ "busy"
      :erlang.resume_process(pid)
      assert :gen_server.call(pid, :get) == {:v1, 1}
    end

    test "names the init of a supervisor that takes too long" do
      module = :hot_patch_test_slow_sup

      beam = fn version, code ->
        Builds.erlang("""
        -module(#{module}).
        -vsn("#{version}").
        -export([init/1]).
        init(_) -> #{code}, {ok, {{one_for_one, 1, 5}, []}}.
        """)
      end

      load(module, old = beam.("v1", "ok"))
      on_exit(fn -> unload(module) end)
      {:ok, pid} = :supervisor.start_link(module, [])
      Process.unlink(pid)
      on_exit(fn -> kill([pid]) end)

      new = beam.("v2", "receive go -> ok end")
      assert {:error, failure} = run(job([{module, old, new}], pause_timeout: 200))
      assert failure.text =~ "init of #{inspect(module)} took too long in #{inspect(pid)}"
      send(pid, :go)
      until(fn -> goes_on?(pid) end, "it goes on")
    end
  end

  describe "old code" do
    test "held by a process is named, and nothing is done", %{v1: v1, v2: v2} do
      looping = spawn(@module, :spin, [])
      on_exit(fn -> kill([looping]) end)
      # The loop calls itself locally: it stays in the version it began in.
      assert {:ok, _} = run(job([{@module, v1, v2}]))
      assert [%{pid: ^looping, module: @module, stack: [_ | _]}] = Swap.stragglers([@module], [])

      v3 = server(@module, "v3")
      assert {:error, %{reason: :old_code} = failure} = run(job([{@module, v2, v3}]))
      assert failure.text =~ inspect(@module)
      assert version(@module) == ~c"v2"
      assert Process.alive?(looping)

      send(looping, :stop)
      until(fn -> not Process.alive?(looping) end, "the loop ends")
      assert {:ok, _} = run(job([{@module, v2, v3}]))
    end
  end

  defp waits?(pid) do
    match?({:current_function, {:gen, :do_call, 4}}, Process.info(pid, :current_function)) and
      Process.info(pid, :status) == {:status, :waiting}
  end

  # The engine is known by what it executes.
  defp engine do
    Enum.find(Process.list(), fn pid ->
      Process.info(pid, :initial_call) == {:initial_call, {Swap.Engine, :init, 2}}
    end)
  end

  defp call_until_stopped(test, pids, count) do
    receive do
      :stop -> send(test, {self(), count})
    after
      0 ->
        :gen_server.call(Enum.at(pids, rem(count, length(pids))), :add)
        call_until_stopped(test, pids, count + 1)
    end
  end
end
