defmodule HotPatch.Swap.OwnersTest do
  # Processes that run or own something of a module without being its servers: Tasks, pools, Agents that
  # hibernate. What cannot be converted is named beforehand, with how many they are.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.NodeAgent.PlanBuilder
  alias HotPatch.Plan.Risk
  alias HotPatch.Swap
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  @module :hot_patch_test_owned
  @pool :hot_patch_test_owning_pool
  @waits :hot_patch_test_owned_waits

  setup do
    on_exit(fn -> Enum.each([@module, @pool, @waits], &unload/1) end)
  end

  describe "a Task" do
    setup do
      waits = """
      -module(#{@waits}).
      -export([go/0, nest/1]).
      go() -> receive go -> ok end.
      nest(0) -> go();
      nest(N) -> {ok, nest(N - 1)}.
      """

      load(@waits, Builds.erlang(waits))
      [v1, v2, v3] = Enum.map([:v1, :v2, :v3], &tasks/1)
      load(@module, v1)
      {:ok, supervisor} = Task.Supervisor.start_link()
      %{v1: v1, v2: v2, v3: v3, supervisor: supervisor}
    end

    # It waits in a long loop of its own, deep within another module's function, or in that with the fun in hand.
    defp tasks(version) do
      Builds.erlang("""
      -module(#{@module}).
      -vsn(#{version}).
      -export([long/0, deep/0, fun_of/0]).
      long() -> receive go -> #{version}; {ask, From} -> From ! #{version}, long() end.
      deep() -> _ = #{@waits}:nest(12), #{version}.
      fun_of() -> fun() -> #{@waits}:go() end.
      """)
    end

    defp start(supervisor, what) do
      task = Task.Supervisor.async_nolink(supervisor, what)
      on_exit(fn -> kill([task.pid]) end)
      until(fn -> Process.info(task.pid, :status) == {:status, :waiting} end, "it waits")
      task
    end

    for what <- [:long, :deep] do
      test "that runs #{what} is named beforehand, goes on, and is in the way of the next",
           context do
        %{supervisor: supervisor, v1: v1, v2: v2, v3: v3} = context
        task = start(supervisor, fn -> apply(@module, unquote(what), []) end)
        other = start(supervisor, fn -> apply(@waits, :go, []) end)
        job = job([{@module, v1, v2}])
        assert %{targets: [], silent: []} = Swap.find(job.changes)
        running = Swap.running(job.changes, [])
        assert [{task.pid, @module}] == Swap.bare(running, job.changes)
        assert [] == Swap.running([], [])

        assert [risk] = PlanBuilder.bare(job.changes, running)
        assert risk.processes == [inspect(task.pid)]
        assert risk.message =~ "1 process without system messages, 1 of them a Task"
        assert risk.message =~ "nor the patch can be taken back"
        assert risk.message =~ "purge: :force, which kills them"

        assert {:ok, %{suspended: 0}} = run(job)
        assert [task.pid] == Enum.uniq(for %{pid: pid} <- Swap.stragglers([@module], []), do: pid)

        for next <- [v1, v3] do
          assert {:error, %{reason: :old_code, text: text}} = run(job([{@module, v2, next}]))
          assert text =~ inspect(task.pid)
        end

        send(task.pid, :go)
        assert Task.await(task) == :v1
        assert Swap.stragglers([@module], []) == []
        assert {:ok, _done} = run(job([{@module, v2, v3}]))
        send(other.pid, :go)
        assert Task.await(other) == :ok
      end

      test "that runs #{what} is ended where the operator says so", context do
        %{supervisor: supervisor, v1: v1, v2: v2, v3: v3} = context
        task = start(supervisor, fn -> apply(@module, unquote(what), []) end)
        assert {:ok, _done} = run(job([{@module, v1, v2}]))
        assert {:ok, %{killed: [killed]}} = run(job([{@module, v2, v3}], purge: :force))
        assert inspect(killed) =~ inspect(task.pid)
        refute Process.alive?(task.pid)
      end
    end

    test "whose fun is the module's is named as who holds it", context do
      %{supervisor: supervisor, v1: v1, v2: v2, v3: v3} = context
      task = start(supervisor, apply(@module, :fun_of, []))
      job = job([{@module, v1, v2}])
      assert Enum.any?(Swap.fun_lines(job.changes, [], :soft), &(&1 =~ inspect(task.pid)))
      assert {:ok, %{suspended: 0}} = run(job)
      assert [%{pid: pid, kind: :holds_fun}] = Swap.stragglers([@module], [])
      assert pid == task.pid
      assert {:error, %{reason: :old_code, text: text}} = run(job([{@module, v2, v3}]))
      assert text =~ inspect(task.pid)
      send(task.pid, :go)
      assert Task.await(task) == :ok
      assert {:ok, _done} = run(job([{@module, v2, v3}]))
    end
  end

  describe "a pool" do
    # As NimblePool: the states of its workers are in its own, and their module is its callback module.
    test "that keeps states of the module within its own is named, with how many", _context do
      load(@pool, pool())
      [v1, v2] = Enum.map([:v1, :v2], &worker(&1, @pool))
      load(@module, v1)
      pools = for _ <- 1..2, do: :gen_server.start(@pool, @module, []) |> elem(1)
      other = :gen_server.start(@pool, @waits, []) |> elem(1)
      on_exit(fn -> kill([other | pools]) end)
      assert :gen_server.call(hd(pools), :checkout) == {:v1, {:v1, 1}}

      job = job([{@module, v1, v2}])
      assert %{targets: []} = Swap.find(job.changes)

      assert [%Risk{message: message, about: about, processes: named}] =
               Swap.state_keepers(job.changes, [])

      assert about == inspect(@module)
      assert Enum.sort(named) == Enum.sort(Enum.map(pools, &inspect/1))
      assert message =~ "2 processes of #{inspect(@pool)}: at work for #{inspect(@module)}"
      assert message =~ "nobody converts it"
      assert message =~ "wrappers: [{#{inspect(@pool)},"

      assert {:ok, %{suspended: 0}} = run(job)
      assert :gen_server.call(hd(pools), :checkout) == {:v2, {:v1, 2}}
    end

    # As poolboy: it keeps the workers' processes, which are servers of their module.
    test "whose workers are servers keeps nothing of theirs, and they are converted", _context do
      [v1, v2] = Enum.map(["v1", "v2"], &server(@module, &1))
      load(@module, v1)
      load(@pool, pool())
      workers = for n <- 1..3, do: :gen_server.start(@module, n, []) |> elem(1)
      owner = :gen_server.start(@pool, {@module, workers}, []) |> elem(1)
      on_exit(fn -> kill([owner | workers]) end)
      job = job([{@module, v1, v2}])
      assert %{targets: targets} = Swap.find(job.changes)
      assert Swap.state_keepers(job.changes, targets) == []
      assert {:ok, %{suspended: 3}} = run(job)

      for {pid, n} <- Enum.with_index(workers, 1),
          do: assert(:gen_server.call(pid, :get) == {:v2, n})
    end

    test "of which the way to the module is named is converted with it, else that is a danger",
         _context do
      [v1, v2] = Enum.map([:v1, :v2], &worker(&1, @pool, true))
      load(@pool, pool())
      load(@module, v1)
      pool = :gen_server.start(@pool, @module, []) |> elem(1)
      on_exit(fn -> kill([pool]) end)
      job = job([{@module, v1, v2}])
      assert %{targets: []} = Swap.find(job.changes)
      assert [%Risk{message: message}] = Swap.state_keepers(job.changes, [])
      assert message =~ "danger: 1 process of #{inspect(@pool)}: at work for #{inspect(@module)}"
      assert message =~ "wrappers: [{#{inspect(@pool)},"

      configure_wrapper()
      assert %{targets: [%{pid: ^pool, kind: :wrapper}] = targets} = Swap.find(job.changes)
      assert Swap.state_keepers(job.changes, targets) == []
      assert {:ok, %{suspended: 1}} = run(job)
      assert :gen_server.call(pool, :checkout) == {:v2, {:v2, 1}}
    end

    # As DBConnection: the behaviour is another module of the library than the server that keeps the state. One that has
    # the name of a server, to start it, keeps nothing of it.
    test "of another module of the library may be, unless the module is a server itself",
         _context do
      library = :hot_patch_test_owning_library
      load(@pool, pool())
      load(library, Builds.erlang("-module(#{library}).\n-export([run/0]).\nrun() -> ok."))
      application = [vsn: ~c"1", modules: [library, @pool], applications: [:kernel]]
      :ok = :application.load({:application, library, application})

      on_exit(fn ->
        :application.unload(library)
        unload(library)
      end)

      [v1, v2] = Enum.map([:v1, :v2], &worker(&1, library))
      load(@module, v1)
      pool = :gen_server.start(@pool, @module, []) |> elem(1)
      on_exit(fn -> kill([pool]) end)
      job = job([{@module, v1, v2}])
      assert [%Risk{message: message}] = Swap.state_keepers(job.changes, [])
      assert message =~ "1 process of #{inspect(@pool)}: with the name in what they keep"

      server =
        "-module(#{@module}).\n-behaviour(#{library}).\n-export([handle_call/3]).\nhandle_call(_, _, S) -> {reply, S, S}."

      load(@module, Builds.erlang(server))
      assert [] == Swap.state_keepers(job.changes, [])
    end

    # As cowboy: the process begins in one module of the library, and is in the loop of another, which speaks the
    # system messages, calls the handler, and no code_change. A connection that only knows the route is none.
    test "that is a web server: a connection in the handler's loop is named, and serves on",
         _context do
      web = :hot_patch_test_owning_web
      load(web, web(web))
      load(@pool, connection(web))

      :ok =
        :application.load(
          {:application, web, [vsn: ~c"1", modules: [web, @pool], applications: [:kernel]]}
        )

      on_exit(fn ->
        :application.unload(web)
        unload(web)
      end)

      [v1, v2] = Enum.map([:v1, :v2], &worker(&1, web))
      load(@module, v1)
      routes = [{"/", @module}]
      [pid, other] = for how <- [:upgrade, :wait], do: apply(@pool, :start, [how, routes])
      on_exit(fn -> kill([pid, other]) end)
      assert ask(pid) == {:v1, {:v1, 1}}

      job = job([{@module, v1, v2}])
      assert %{targets: [], silent: []} = Swap.find(job.changes)
      assert [%Risk{message: message, processes: named}] = Swap.state_keepers(job.changes, [])
      assert named == [inspect(pid)]
      assert message =~ "1 process of #{inspect(@pool)}: at work for #{inspect(@module)}"
      refute message =~ "wrappers"
      assert {:ok, %{suspended: 0}} = run(job)
      assert ask(pid) == {:v2, {:v1, 2}}
    end

    defp ask(pid) do
      send(pid, {:frame, self()})
      assert_receive {^pid, answer}
      answer
    end

    defp connection(web) do
      Builds.erlang("""
      -module(#{@pool}).
      -export([start/2, connection/2, loop/1]).
      start(How, Routes) -> proc_lib:spawn(#{@pool}, connection, [How, Routes]).
      connection(wait, Routes) -> loop(Routes);
      connection(upgrade, [{_, Handler}] = Routes) -> #{web}:loop({state, self(), Handler, Routes}, Handler:init_worker(1)).
      loop(Routes) -> receive stop -> Routes end.
      """)
    end

    defp web(web) do
      Builds.erlang("""
      -module(#{web}).
      -export([loop/2, system_continue/3, system_terminate/4, system_code_change/4]).
      loop({state, Parent, Handler, _} = State, HandlerState) ->
          receive
              {system, From, Request} -> sys:handle_system_msg(Request, From, Parent, #{web}, [], {State, HandlerState});
              {frame, From} ->
                  {Reply, New} = Handler:handle_checkout(HandlerState), From ! {self(), {Reply, HandlerState}}, loop(State, New)
          end.
      system_continue(_, _, {State, HandlerState}) -> loop(State, HandlerState).
      system_terminate(Reason, _, _, _) -> exit(Reason).
      system_code_change(Misc, _, _, _) -> {ok, Misc}.
      """)
    end

    defp configure_wrapper,
      do: HotPatch.Test.Settings.configure(:wrappers, [{@pool, [:worker]}])

    defp pool do
      Builds.erlang("""
      -module(#{@pool}).
      -behaviour(gen_server).
      -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
      init({M, Workers}) -> {ok, \#{worker => M, resources => Workers}};
      init(M) ->
          Resources = case erlang:function_exported(M, init_worker, 1) of true -> [M:init_worker(1)]; false -> [] end,
          {ok, \#{worker => M, resources => Resources}}.
      handle_call(checkout, _, \#{worker := M, resources := [S]} = State) ->
          {Reply, New} = M:handle_checkout(S), {reply, {Reply, S}, State\#{resources := [New]}}.
      handle_cast(_, State) -> {noreply, State}.
      code_change(Old, \#{worker := M, resources := [S]} = State, Extra) ->
          {ok, New} = M:code_change(Old, S, Extra), {ok, State\#{resources := [New]}}.
      """)
    end

    defp worker(version, behaviour, converts? \\ false) do
      convert =
        if converts?,
          do: "-export([code_change/3]).\ncode_change(_, {_, N}, _) -> {ok, {#{version}, N}}."

      Builds.erlang("""
      -module(#{@module}).
      -vsn(#{version}).
      -behaviour(#{behaviour}).
      -export([init_worker/1, handle_checkout/1]).
      #{convert}
      init_worker(N) -> {#{version}, N}.
      handle_checkout({V, N}) -> {#{version}, {V, N + 1}}.
      """)
    end
  end

  # As GenStage's ConsumerSupervisor: a gen_server of the library's that takes the name of a supervisor for its initial
  # call, with the module and its argument deep in its state; its code_change asks the module's init.
  describe "a supervisor that is a library's" do
    setup do
      library = """
      -module(#{@pool}).
      -behaviour(gen_server).
      -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
      init(Arg) ->
          put('$initial_call', {supervisor, #{@module}, 1}),
          {ok, Specs, _} = #{@module}:init(Arg), {ok, \#{stage => \#{mod => #{@module}, args => Arg, specs => Specs}}}.
      handle_call(specs, _, \#{stage := \#{specs := Specs}} = S) -> {reply, Specs, S}.
      handle_cast(_, S) -> {noreply, S}.
      code_change(_, \#{stage := \#{mod := M, args := Arg} = Stage} = S, _) ->
          {ok, Specs, _} = M:init(Arg), {ok, S\#{stage := Stage\#{specs := Specs}}}.
      """

      load(@pool, Builds.erlang(library))
      [v1, v2] = for v <- [:v1, :v2], do: supervisor(v)
      load(@module, v1)
      {:ok, pid} = :gen_server.start(@pool, 7, [])
      on_exit(fn -> kill([pid]) end)
      %{v1: v1, v2: v2, pid: pid}
    end

    defp supervisor(version, trial \\ "ok") do
      Builds.erlang("""
      -module(#{@module}).
      -vsn(#{version}).
      -export([init/1]).
      init(N) -> #{trial}, {ok, [{#{version}, N}], []}.
      """)
    end

    test "takes over what the new init says, after the load", %{v1: v1, v2: v2, pid: pid} do
      job = job([{@module, v1, v2}])
      assert %{targets: [%{pid: ^pid, kind: :supervisor}]} = Swap.find(job.changes)
      assert {:ok, %{suspended: 1}} = run(job)
      assert :gen_server.call(pid, :specs) == [v2: 7]
    end

    test "is not tried by a rehearsal, which says so", %{v1: v1, v2: v2} do
      assert {:ok, %{modules: [one]}} = rehearse(job([{@module, v1, v2}]))
      assert %{tried: 0, forms: [], left_out: [%{why: :unasked, count: 1}]} = one
    end

    test "goes back with all where that fails", %{v1: v1, pid: pid} do
      on_disk(@module, v1)

      assert {:error, %{reason: :taken_back}} =
               run(job([{@module, v1, supervisor(:v2, "error(no)")}]))

      assert :gen_server.call(pid, :specs) == [v1: 7]
      assert @module.module_info(:attributes)[:vsn] == [:v1]
    end
  end

  describe "an Agent that hibernates" do
    defp agent(version) do
      Builds.erlang("""
      -module(#{@module}).
      -vsn("#{version}").
      -export([start/2, code_change/3]).
      start(N, Options) -> 'Elixir.Agent':start(fun() -> {#{version}, N} end, Options).
      code_change(_Old, {_, N}, _Extra) -> {ok, {#{version}, N}}.
      """)
    end

    # From OTP 28 on it keeps its stack, and is found; before it is named.
    test "is found, or named with how many they are" do
      [v1, v2] = Enum.map(["v1", "v2"], &agent/1)
      load(@module, v1)
      pids = for n <- 1..2, do: @module |> apply(:start, [n, [hibernate_after: 1]]) |> elem(1)
      awake = @module |> apply(:start, [3, []]) |> elem(1)
      on_exit(fn -> kill([awake | pids]) end)
      at = fn pid -> pid |> Process.info(:current_function) |> elem(1) |> elem(1) end

      until(
        fn -> Enum.all?(pids, &(at.(&1) in [:hibernate, :loop_hibernate])) end,
        "they hibernate"
      )

      job = job([{@module, v1, v2}])
      %{targets: targets, silent: silent} = Swap.find(job.changes)
      lines = Swap.uncertain(job.changes, Swap.running(job.changes, targets), silent)

      case at.(hd(pids)) do
        :loop_hibernate ->
          assert Enum.sort(Enum.map(targets, & &1.pid)) == Enum.sort([awake | pids])
          assert lines == []

        :hibernate ->
          assert [%{pid: ^awake, kind: :agent}] = targets
          assert [line] = lines
          assert line =~ "danger: #{inspect(@module)} converts states, and of 2 processes"
          assert line =~ "2 that began in a function of it and hibernate"
      end
    end
  end

  # From the operator's calls to the report.
  @tag :starts_nodes
  test "check, plan and report of a node say it" do
    [a] = Cluster.start(1)

    owned = fn version ->
      Builds.erlang("""
      -module(#{@module}).
      -vsn(#{version}).
      -behaviour(#{@pool}).
      -export([init_worker/1, handle_checkout/1, code_change/3, long/0]).
      init_worker(N) -> {#{version}, N}.
      handle_checkout({V, N}) -> {#{version}, {V, N + 1}}.
      code_change(_, {_, N}, _) -> {ok, {#{version}, N}}.
      long() -> receive go -> #{version} end.
      """)
    end

    put(a, @pool, pool())
    put(a, @module, owned.(:v1))
    {:ok, pool} = Cluster.call(a, :gen_server, :start, [@pool, @module, []])
    {:ok, task} = Cluster.call(a, Task, :start, [@module, :long, []])
    waiting? = fn -> Cluster.call(a, Process, :info, [task, :status]) == {:status, :waiting} end
    until(waiting?, "it waits")
    id = upload!(a, [{"exchange-1.0.0/ebin/#{@module}.beam", owned.(:v2)}]).id

    keeps = "danger: 1 process of #{inspect(@pool)}: at work for #{inspect(@module)}"
    {:ok, %{nodes: [%{warnings: warnings}]}} = hot_patch(a, :check, [id])
    assert Enum.any?(warnings, &(&1 =~ keeps))
    {:ok, %{nodes: [%{risks: risks}]}} = hot_patch(a, :plan, [id])
    lines = Enum.map(risks, &to_string/1)
    assert Enum.any?(lines, &(&1 =~ keeps))

    assert Enum.any?(
             lines,
             &(&1 =~ "1 of them a Task" and &1 =~ "nor the patch can be taken back")
           )

    assert {:ok, %{nodes: [%{warnings: [warning]}]}} = hot_patch(a, :apply, [id])
    assert warning =~ "danger: its name is in the state of 1 process of #{inspect(@pool)}"
    assert Cluster.call(a, :gen_server, :call, [pool, :checkout]) == {:v2, {:v1, 1}}
    assert {:error, %{reason: :refused, message: message}} = hot_patch(a, :rollback, [id])
    assert message =~ "old code" and message =~ "Task.Supervised"
    send(task, :go)
    until(fn -> not Cluster.call(a, Process, :alive?, [task]) end, "it has ended")
    assert {:ok, _report} = hot_patch(a, :rollback, [id])
    assert Cluster.call(a, :gen_server, :call, [pool, :checkout]) == {:v1, {:v1, 2}}
  end

  defp put(node, module, bytes) do
    File.write!(Path.join(Cluster.exchange(node), "ebin/#{module}.beam"), bytes)
    {:module, ^module} = Cluster.call(node, :code, :load_file, [module])
  end
end
