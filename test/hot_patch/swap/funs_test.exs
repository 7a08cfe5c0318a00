defmodule HotPatch.Swap.FunsTest do
  # Processes whose state holds a fun of a module that changes, and changes again, and back.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Swap.OldCode.FunPlaces
  alias HotPatch.Test.Builds

  @server :hot_patch_test_fun_server
  @helper :hot_patch_test_fun_helper
  @many 1_000

  setup do
    on_exit(fn -> Enum.each([@server, @helper], &unload/1) end)
  end

  # Its state has a fun of its own, one of a module that it works with, and one that only its
  # dictionary has. `extra` comes first, so that all others have other numbers.
  defp fun_server(version, options) do
    convert = Keyword.get(options, :code_change, "")
    extra = Keyword.get(options, :extra, "")

    Builds.erlang("""
    -module(#{@server}).
    -vsn("#{version}").
    -behaviour(gen_server).
    -export([extra/0, init/1, handle_call/3, handle_cast/2#{if convert != "", do: ", code_change/3"}]).
    extra() -> #{if extra == "", do: "none", else: extra}.
    init(N) ->
        put(held, fun() -> {#{version}, dictionary, N} end),
        Own = fun(X) -> {#{version}, N, X} end,
        Nested = #{@helper}:wrap(fun() -> {#{version}, nested, N} end),
        {ok, \#{own => Own, nested => Nested, helper => #{@helper}:made(N), list => [1, {Own} | Own]}}.
    handle_call(ask, _From, \#{own := Own, nested := Nested, helper := Helper, list := [_, {A} | B]} = S) ->
        {reply, {Own(1), Nested(), Helper(), A(2), B(3), (get(held))()}, S};
    handle_call({keep, F}, _From, S) -> {reply, ok, S\#{kept => F}};
    handle_call(kept, _From, \#{kept := F} = S) -> {reply, F(), S}.
    handle_cast(_, S) -> {noreply, S}.
    #{convert}
    """)
  end

  defp helper(version, extra \\ "none") do
    Builds.erlang("""
    -module(#{@helper}).
    -vsn("#{version}").
    -export([extra/0, made/1, wrap/1]).
    extra() -> #{extra}.
    made(N) -> fun() -> {#{version}, helper, N} end.
    wrap(F) -> fun() -> {#{version}, F()} end.
    """)
  end

  defp answer(version, helper, n) do
    {{version, n, 1}, {helper, {version, :nested, n}}, {helper, :helper, n}, {version, n, 2},
     {version, n, 3}, {version, :dictionary, n}}
  end

  defp start(count) do
    pids =
      for n <- 1..count do
        {:ok, pid} = :gen_server.start(@server, n, [])
        pid
      end

    on_exit(fn -> kill(pids) end)
    pids
  end

  defp all(pids, version, helper) do
    for {pid, n} <- Enum.with_index(pids, 1),
        do: assert(:gen_server.call(pid, :ask) == answer(version, helper, n))
  end

  @code_change "code_change(_, S, _) -> {ok, S}."

  for {how, code_change} <- [{"held", ""}, {"converted", @code_change}] do
    test "#{@many} whose state is #{how}: changed, changed again, refused, failed, and back twice" do
      v1 = fun_server(:v1, code_change: unquote(code_change))
      v2 = fun_server(:v2, code_change: unquote(code_change), extra: "fun(X) -> {X} end")
      v3 = fun_server(:v3, code_change: unquote(code_change))
      [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
      load(@helper, h1)
      load(@server, v1)
      pids = start(@many)
      all(pids, :v1, :h1)

      assert {:ok, %{suspended: @many}} = run(job([{@server, v1, v2}, {@helper, h1, h2}]))
      all(pids, :v2, :h2)

      # Refused at its preparation, and taken back when all have tried it.
      refused = %{
        job([{@server, v2, v3}])
        | shadows: [%{module: @server, name: :x, bytes: "", lambdas?: false}]
      }

      assert {:error, %{reason: :shadow}} = Swap.prepare(refused)
      all(pids, :v2, :h2)
      job = job([{@server, v2, v3}, {@helper, h2, h3}], hold_timeout: 5_000)
      assert {:error, %{loaded?: false}} = run(job, &Swap.decide(&1, {:take_back, "no"}))
      all(pids, :v2, :h2)
      assert :erlang.check_old_code(@server)

      assert {:ok, _done} = run(job([{@server, v2, v3}, {@helper, h2, h3}]))
      all(pids, :v3, :h3)
      assert {:ok, _done} = run(job([{@server, v3, v2}, {@helper, h3, h2}]))
      all(pids, :v2, :h2)
      assert {:ok, _done} = run(job([{@server, v2, v1}, {@helper, h2, h1}]))
      all(pids, :v1, :h1)
      assert [] == Swap.stragglers([@server, @helper], [])
    end
  end

  for {transition, code_change} <- [none: "", none: @code_change, compatible: @code_change] do
    test "by the transition #{transition} with #{inspect(code_change)}: each in its turn" do
      v1 = fun_server(:v1, code_change: unquote(code_change))
      v2 = fun_server(:v2, code_change: unquote(code_change), extra: "fun(X) -> {X} end")
      v3 = fun_server(:v3, code_change: unquote(code_change))
      [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
      load(@helper, h1)
      load(@server, v1)
      pids = start(100)
      {:ok, agent} = Agent.start(fn -> apply(@helper, :made, [7]) end)
      on_exit(fn -> kill([agent]) end)
      how = [transition: unquote(transition)]

      for {{from, to}, {h_from, h_to}, {version, helper}} <- [
            {{v1, v2}, {h1, h2}, {:v2, :h2}},
            {{v2, v3}, {h2, h3}, {:v3, :h3}},
            {{v3, v2}, {h3, h2}, {:v2, :h2}},
            {{v2, v1}, {h2, h1}, {:v1, :h1}}
          ] do
        assert {:ok, %{suspended: 0}} =
                 run(job([{@server, from, to}, {@helper, h_from, h_to}], how))

        all(pids, version, helper)
        assert Agent.get(agent, & &1.()) == {helper, :helper, 7}
      end
    end
  end

  test "one that cannot be changed takes all back, and nobody loses a fun" do
    v1 = fun_server(:v1, code_change: @code_change)

    v2 =
      fun_server(:v2,
        code_change:
          "code_change(_, \#{own := F} = S, _) -> case F(0) of {v1, 50, 0} -> error(no); _ -> {ok, S} end."
      )

    load(@helper, helper(:h1))
    load(@server, v1)
    on_disk(@server, v1)
    pids = start(100)
    assert {:error, %{loaded?: false}} = run(job([{@server, v1, v2}], transition: :compatible))
    all(pids, :v1, :h1)
    assert {:error, %{loaded?: false}} = run(job([{@server, v1, v2}]))
    all(pids, :v1, :h1)
  end

  describe "a process of another module" do
    test "that holds a fun of one that changes stands still for it" do
      [h1, h2] = [helper(:h1), helper(:h2, "fun() -> extra end")]
      load(@helper, h1)
      {:ok, agent} = Agent.start(fn -> %{f: apply(@helper, :made, [7])} end)
      {:ok, other} = Agent.start(fn -> %{f: :none} end)
      on_exit(fn -> kill([agent, other]) end)

      assert {:ok, %{suspended: 1}} = run(job([{@helper, h1, h2}]))
      assert Agent.get(agent, & &1.f.()) == {:h2, :helper, 7}
      assert {:ok, _done} = run(job([{@helper, h2, h1}]))
      assert Agent.get(agent, & &1.f.()) == {:h1, :helper, 7}
    end

    test "that holds one within a fun of a module that stays", _context do
      [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
      load(@helper, h1)
      made = apply(@helper, :made, [7])
      around = fn -> {:around, made.()} end
      {:ok, agent} = Agent.start(fn -> %{callback: around} end)
      {:ok, without} = Agent.start(fn -> %{callback: fn -> agent end} end)
      on_exit(fn -> kill([agent, without]) end)

      for {from, to, version} <- [{h1, h2, :h2}, {h2, h3, :h3}, {h3, h2, :h2}, {h2, h1, :h1}] do
        assert {:ok, %{suspended: 1}} = run(job([{@helper, from, to}]))
        assert Agent.get(agent, & &1.callback.()) == {:around, {version, :helper, 7}}
      end

      assert [] == Swap.stragglers([@helper], [])
    end

    test "a supervisor, whose child specs have one, starts its children with the new" do
      [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
      load(@helper, h1)
      made = apply(@helper, :made, [7])
      spec = %{id: :one, start: {Agent, :start_link, [made]}}
      {:ok, supervisor} = Supervisor.start_link([spec], strategy: :one_for_one)

      assert {:ok, _done} = run(job([{@helper, h1, h2}]))
      assert {:ok, _done} = run(job([{@helper, h2, h3}]))
      [{:one, child, _, _}] = Supervisor.which_children(supervisor)
      kill([child])

      until(
        fn ->
          match?(
            [{:one, new, _, _}] when is_pid(new) and new != child,
            Supervisor.which_children(supervisor)
          )
        end,
        "it is started again"
      )

      [{:one, child, _, _}] = Supervisor.which_children(supervisor)
      assert Agent.get(child, & &1) == {:h3, :helper, 7}
      Supervisor.stop(supervisor)
    end

    test "one that hibernates, and sleeps on" do
      [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
      load(@helper, h1)
      load(@server, fun_server(:v1, []))
      {:ok, pid} = :gen_server.start(@server, 7, hibernate_after: 1)
      on_exit(fn -> kill([pid]) end)

      # From OTP 28 on it keeps its stack.
      asleep? = fn ->
        {:current_function, at} = Process.info(pid, :current_function)
        at in [{:erlang, :hibernate, 3}, {:gen_server, :loop_hibernate, 4}]
      end

      for {from, to, version} <- [{h1, h2, :h2}, {h2, h3, :h3}, {h3, h2, :h2}] do
        until(asleep?, "it hibernates")
        assert {:ok, %{suspended: 1}} = run(job([{@helper, from, to}]))
        assert :gen_server.call(pid, :ask) == answer(:v1, version, 7)
      end
    end

    test "an event manager with handlers that hold some" do
      [h1, h2] = [helper(:h1), helper(:h2, "fun() -> extra end")]
      load(@helper, h1)
      handler = :hot_patch_test_fun_handler

      load(
        handler,
        Builds.erlang("""
        -module(#{handler}).
        -behaviour(gen_event).
        -export([init/1, handle_event/2, handle_call/2]).
        init(F) -> {ok, F}.
        handle_event(_, F) -> {ok, F}.
        handle_call(ask, F) -> {ok, F(), F}.
        """)
      )

      on_exit(fn -> unload(handler) end)
      {:ok, manager} = :gen_event.start()
      on_exit(fn -> kill([manager]) end)
      :ok = :gen_event.add_handler(manager, handler, apply(@helper, :made, [1]))
      :ok = :gen_event.add_handler(manager, {handler, 2}, apply(@helper, :made, [2]))
      assert {:ok, _done} = run(job([{@helper, h1, h2}]))
      assert :gen_event.call(manager, handler, :ask) == {:h2, :helper, 1}
      assert :gen_event.call(manager, {handler, 2}, :ask) == {:h2, :helper, 2}
    end
  end

  describe "what cannot be made anew" do
    # A bare process, a table, a persistent term.
    setup do
      [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
      load(@helper, h1)
      %{h1: h1, h2: h2, h3: h3}
    end

    defp changes_once_and_no_further(context, fun, who) do
      assert {:ok, _done} = run(job([{@helper, context.h1, context.h2}]))
      assert fun.() == {:h1, :helper, 7}
      lines = HotPatch.Straggler.lines(Swap.stragglers([@helper], []))
      assert Enum.any?(lines, &(&1 =~ who)), inspect(lines)

      assert {:error, %{reason: :old_code, text: text}} =
               Swap.prepare(job([{@helper, context.h2, context.h3}]))

      assert text =~ who
      assert text =~ "purge: :force"
      assert fun.() == {:h1, :helper, 7}

      # Back to the code that has made it there is a way: it comes to life with the load.
      assert {:ok, _done} = run(job([{@helper, context.h2, context.h1}]))
      assert fun.() == {:h1, :helper, 7}
      assert {:ok, _done} = run(job([{@helper, context.h1, context.h2}]))
    end

    test "in an ETS table is named, and refuses the next change", context do
      fun = apply(@helper, :made, [7])
      table = :ets.new(:hot_patch_test_funs, [:public])
      :ets.insert(table, {:a, [fun]})
      changes_once_and_no_further(context, fun, "hot_patch_test_funs")
      :ets.delete(table)
    end

    test "in a persistent term", context do
      fun = apply(@helper, :made, [7])
      :persistent_term.put(:hot_patch_test_funs, %{f: fun})
      on_exit(fn -> :persistent_term.erase(:hot_patch_test_funs) end)
      changes_once_and_no_further(context, fun, ":hot_patch_test_funs")
    end

    test "in a process of its own", context do
      fun = apply(@helper, :made, [7])
      pid = spawn(fn -> receive do: (:stop -> fun.()) end)
      on_exit(fn -> kill([pid]) end)
      changes_once_and_no_further(context, fun, inspect(pid))
    end

    test "in the environment of an application", context do
      fun = apply(@helper, :made, [7])
      Application.put_env(:hot_patch_test_funs, :callback, {:filter, [fun]})
      on_exit(fn -> Application.delete_env(:hot_patch_test_funs, :callback) end)
      changes_once_and_no_further(context, fun, "the environments of applications")
    end

    # As :telemetry keeps its handlers.
    test "in a table of handlers that a server owns and everybody reads", context do
      fun = apply(@helper, :made, [7])

      {:ok, owner} =
        Agent.start(fn ->
          table = :ets.new(:hot_patch_test_handlers, [:duplicate_bag, :protected, :named_table])
          :ets.insert(table, {:handler, "mine", [:one, :two], fun, %{}})
          table
        end)

      on_exit(fn -> kill([owner]) end)
      changes_once_and_no_further(context, fun, "hot_patch_test_handlers")
    end

    test "in a message that waits", context do
      fun = apply(@helper, :made, [7])

      pid =
        spawn(fn ->
          receive do: (:stop -> :ok)
        end)

      on_exit(fn -> kill([pid]) end)
      send(pid, {:call_this, [fun]})
      changes_once_and_no_further(context, fun, "in its mailbox")
      kill([pid])
      assert {:ok, _done} = run(job([{@helper, context.h2, context.h3}]))
    end

    # As a shell keeps the variables of its user.
    test "in the bindings of a shell", context do
      fun = apply(@helper, :made, [7])
      pid = spawn(fn -> shell([{:F, fun}, {:N, 1}], 1) end)
      on_exit(fn -> kill([pid]) end)
      changes_once_and_no_further(context, fun, inspect(pid))
    end

    defp shell(bindings, line) do
      receive do
        {:eval, from} ->
          send(from, {self(), bindings})
          shell(bindings, line + 1)
      end
    end

    test "in a worker in the middle of a list", context do
      fun = apply(@helper, :made, [7])
      test = self()

      # Its next element comes when it is told so.
      next = fn n ->
        send(test, {:at, n})
        receive(do: (:next -> fun.()))
      end

      pid = spawn(fn -> :lists.map(next, [1, 2]) end)
      on_exit(fn -> kill([pid]) end)
      assert_receive {:at, 1}

      # What the worker holds is within a fun of another module: it is only known that there may be something.
      assert {:ok, _done} = run(job([{@helper, context.h1, context.h2}]))
      {_holders, unseen} = FunPlaces.of_old([@helper])
      assert Enum.any?(unseen, &(&1 =~ "processes with funs of other modules"))
      send(pid, :next)
      assert_receive {:at, 2}
    end

    test "a worker that is in an old fun runs old code, and is in the way" do
      list = :hot_patch_test_fun_list

      load(
        list,
        Builds.erlang("""
        -module(#{list}).
        -export([waits/0]).
        waits() -> receive go -> ok end.
        """)
      )

      on_exit(fn -> unload(list) end)

      text = fn version ->
        Builds.erlang("""
        -module(#{@helper}).
        -vsn("#{version}").
        -export([work/1]).
        work(List) -> F = fun(X) -> #{list}:waits(), {#{version}, X} end, lists:map(F, List).
        """)
      end

      [v1, v2, v3] = Enum.map([:v1, :v2, :v3], text)
      unload(@helper)
      load(@helper, v1)
      pid = spawn(@helper, :work, [[1, 2]])
      on_exit(fn -> kill([pid]) end)
      until(fn -> Process.info(pid, :status) == {:status, :waiting} end, "it works")
      assert {:ok, _done} = run(job([{@helper, v1, v2}]))
      assert [%{pid: ^pid, module: @helper} = straggler] = Swap.stragglers([@helper], [])
      assert straggler.kind in [:in_loop, :holds_fun]
      assert {:error, %{reason: :old_code, text: text}} = Swap.prepare(job([{@helper, v2, v3}]))
      assert text =~ inspect(pid)
      # It goes on, and the second element is that of the same fun.
      send(pid, :go)
      send(pid, :go)
      until(fn -> not Process.alive?(pid) end, "it has finished")
      assert {:ok, _done} = run(job([{@helper, v2, v3}]))
    end

    test "by force it goes", context do
      fun = apply(@helper, :made, [7])
      table = :ets.new(:hot_patch_test_funs, [:public])
      :ets.insert(table, {:a, fun})
      assert {:ok, _done} = run(job([{@helper, context.h1, context.h2}]))
      forced = job([{@helper, context.h2, context.h3}], purge: :force)
      # The plan names it first.
      lines = Swap.fun_lines(forced.changes, [], :force)
      assert Enum.any?(lines, &(&1 =~ "purge: :force ends funs" and &1 =~ "hot_patch_test_funs"))
      assert {:ok, _done} = run(forced)
      assert_raise BadFunctionError, fn -> fun.() end
    end
  end

  test "what a gen_statem keeps beside its data is named, and in the way of the next change" do
    machine = fn version ->
      Builds.erlang("""
      -module(#{@server}).
      -vsn("#{version}").
      -export([init/1, callback_mode/0, handle_event/4, code_change/4]).
      init(N) -> {ok, on, {#{version}, own(N)}}.
      callback_mode() -> handle_event_function.
      handle_event({call, From}, later, on, {_, F}) ->
          {keep_state_and_data, [{{timeout, later}, 3600000, F}, {reply, From, ok}]};
      handle_event({call, From}, never, on, _) ->
          {keep_state_and_data, [{{timeout, later}, cancel}, {reply, From, ok}]};
      handle_event({call, From}, ask, on, {#{version}, F}) -> {keep_state_and_data, [{reply, From, F()}]}.
      code_change(_, on, {_, F}, _) -> {ok, on, {#{version}, F}}.
      own(N) -> fun() -> {#{version}, N} end.
      """)
    end

    [v1, v2, v3] = Enum.map([:v1, :v2, :v3], machine)
    load(@server, v1)
    {:ok, pid} = :gen_statem.start(@server, 7, [])
    on_exit(fn -> kill([pid]) end)
    :ok = :gen_statem.call(pid, :later)
    assert {:ok, %{suspended: 1}} = run(job([{@server, v1, v2}]))
    assert :gen_statem.call(pid, :ask) == {:v2, 7}
    assert [%{pid: ^pid, kind: :holds_fun}] = Swap.stragglers([@server], [])
    assert {:error, %{reason: :old_code, text: text}} = run(job([{@server, v2, v3}]))
    assert text =~ inspect(pid)
    :ok = :gen_statem.call(pid, :never)
    assert {:ok, %{suspended: 1}} = run(job([{@server, v2, v3}]))
    assert :gen_statem.call(pid, :ask) == {:v3, 7}
  end

  describe "what code_change writes into the dictionary" do
    defp writer(version, trial \\ "ok") do
      Builds.erlang("""
      -module(#{@server}).
      -vsn("#{version}").
      -behaviour(gen_server).
      -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
      init(N) -> put(goes, N), put(false, N), {ok, N}.
      handle_call(ask, _, N) ->
          Called = case get(written) of undefined -> none; F -> F() end,
          {reply, {#{version}, N, Called, get(goes), get(false)}, N}.
      handle_cast(_, N) -> {noreply, N}.
      code_change(_, N, _) ->
          put(written, own(N)), put(false, {#{version}, N}), erase(goes), _ = N, #{trial}, {ok, N}.
      own(N) -> fun() -> {#{version}, N} end.
      """)
    end

    setup do
      [v1, v2, v3] = Enum.map([:v1, :v2, :v3], &writer/1)
      load(@server, v1)
      pids = for n <- 1..3, do: :gen_server.start(@server, n, []) |> elem(1)
      on_exit(fn -> kill(pids) end)
      %{v1: v1, v2: v2, v3: v3, pids: pids}
    end

    defp dictionaries(pids), do: for(pid <- pids, do: :gen_server.call(pid, :ask))

    test "is there afterwards, and its funs live through the next changes", context do
      %{v1: v1, v2: v2, v3: v3, pids: pids} = context
      assert {:ok, %{suspended: 3}} = run(job([{@server, v1, v2}]))
      assert dictionaries(pids) == for(n <- 1..3, do: {:v2, n, {:v2, n}, :undefined, {:v2, n}})
      assert Swap.stragglers([@server], []) == []
      assert {:ok, %{suspended: 3}} = run(job([{@server, v2, v3}]))
      assert dictionaries(pids) == for(n <- 1..3, do: {:v3, n, {:v3, n}, :undefined, {:v3, n}})
      assert Swap.stragglers([@server], []) == []
    end

    test "is not where the change is taken back", context do
      %{v1: v1, v2: v2, pids: pids} = context
      before = for n <- 1..3, do: {:v1, n, :none, n, n}
      on_disk(@server, v1)
      failing = writer(:v2, "case N of 3 -> error(no); _ -> ok end")
      assert {:error, %{loaded?: false}} = run(job([{@server, v1, failing}]))
      assert dictionaries(pids) == before
      held = job([{@server, v1, v2}], hold_timeout: 60_000)
      assert {:error, %{loaded?: false}} = run(held, &Swap.decide(&1, {:take_back, "no"}))
      assert dictionaries(pids) == before
      assert {:ok, _done} = run(job([{@server, v1, v2}]))
      assert {:v2, 1, {:v2, 1}, :undefined, {:v2, 1}} = hd(dictionaries(pids))
    end
  end

  test "who is busy with something else for long is not waited for, and named" do
    [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
    load(@helper, h1)
    {:ok, agent} = Agent.start(fn -> apply(@helper, :made, [7]) end)
    on_exit(fn -> kill([agent]) end)
    test = self()

    Agent.cast(agent, fn fun ->
      send(test, :busy)
      receive do: (:go -> fun)
    end)

    assert_receive :busy
    assert {:ok, %{suspended: 0}} = run(job([{@helper, h1, h2}], pause_timeout: 500))
    assert [%{pid: ^agent, kind: :holds_fun}] = Swap.stragglers([@helper], [])
    assert {:error, %{reason: :old_code}} = Swap.prepare(job([{@helper, h2, h3}]))
    send(agent, :go)
    assert Agent.get(agent, & &1.()) == {:h1, :helper, 7}
  end

  test "a filter of :logger given as an external fun works on" do
    log = :hot_patch_test_fun_filter

    source = fn version ->
      Builds.erlang("""
      -module(#{log}).
      -vsn("#{version}").
      -export([filter/2]).
      filter(Event, Pid) -> Pid ! {#{version}, filtered}, Event.
      """)
    end

    [v1, v2, v3] = Enum.map([:v1, :v2, :v3], source)
    load(log, v1)
    on_exit(fn -> unload(log) end)
    :ok = :logger.add_primary_filter(log, {Function.capture(log, :filter, 2), self()})
    on_exit(fn -> :logger.remove_primary_filter(log) end)
    assert {:ok, _done} = run(job([{log, v1, v2}]))
    assert {:ok, _done} = run(job([{log, v2, v3}]))
    :logger.error(~c"x", %{domain: [:hot_patch_test]})
    assert_receive {:v3, :filtered}
    assert List.keymember?(:logger.get_primary_config().filters, log, 0)
  end

  test "a handler of :logger that holds a local one is named" do
    [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
    load(@helper, h1)
    config = %{config: %{on_start: apply(@helper, :made, [7])}}
    :ok = :logger.add_handler(@helper, :logger_std_h, %{config: %{type: :standard_error}})
    :ok = :logger.update_handler_config(@helper, :metadata, config)
    on_exit(fn -> :logger.remove_handler(@helper) end)
    assert {:ok, _done} = run(job([{@helper, h1, h2}]))
    assert {[_ | _] = holders, _unseen} = FunPlaces.of_old([@helper])
    assert Enum.any?(holders, fn {_pid, place, _module} -> to_string(place) =~ "logger" end)
    assert {:error, %{reason: :old_code}} = Swap.prepare(job([{@helper, h2, h3}]))
  end

  test "a local one is named, and in the way of the next change" do
    [h1, h2, h3] = [helper(:h1), helper(:h2, "fun() -> extra end"), helper(:h3)]
    load(@helper, h1)
    made = apply(@helper, :made, [7])
    filter = fn event, _ -> (made.() && event) || :ignore end
    :ok = :logger.add_primary_filter(@helper, {filter, []})
    on_exit(fn -> :logger.remove_primary_filter(@helper) end)
    assert {:ok, _done} = run(job([{@helper, h1, h2}]))
    assert {[_ | _] = holders, _unseen} = FunPlaces.of_old([@helper])
    assert Enum.any?(holders, fn {_pid, place, _module} -> place =~ "logger" end)
    assert {:error, %{reason: :old_code}} = Swap.prepare(job([{@helper, h2, h3}]))
    :logger.error(~c"x", %{domain: [:hot_patch_test]})
    assert List.keymember?(:logger.get_primary_config().filters, @helper, 0)
  end
end
