defmodule HotPatch.Swap.StrictTest do
  # Processes that die of every message that is not theirs, of all kinds of behaviour, in swaps that
  # end in every way: in time and too late, decided either way, by the death of the engine, of its
  # guard, or of both. Busy processes, backlogs, children that are slow to start, conversions that
  # fail and such as take too long. Whatever happens, nobody dies, nobody sees a message of the
  # swap, and nobody stands still afterwards.
  #
  # A run is told by its seed: HOT_PATCH_SEED=n repeats its choices, HOT_PATCH_ROUNDS=n makes it longer.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers, only: [job: 2, kill: 1, load: 2, unload: 1]
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @server :hot_patch_test_strict_server
  @statem :hot_patch_test_strict_statem
  @event :hot_patch_test_strict_event
  @special :hot_patch_test_strict_special
  @supervisor :hot_patch_test_strict_supervisor
  @modules [@server, @statem, @event, @special, @supervisor]
  @rounds "HOT_PATCH_ROUNDS" |> System.get_env("60") |> String.to_integer()

  setup_all do
    beams = for v <- [1, 2], into: %{}, do: {v, for(m <- @modules, do: {m, beam(m, v)})}
    %{beams: beams}
  end

  setup %{beams: beams} do
    for {module, beam} <- beams[1], do: load(module, beam)
    on_exit(fn -> Enum.each(@modules, &unload/1) end)
    :ets.new(:hot_patch_test_strict, [:named_table, :public])
    :ok
  end

  @tag timeout: :infinity
  test "no message of a swap reaches the code of a process", %{beams: beams} do
    seed =
      "HOT_PATCH_SEED" |> System.get_env("#{System.os_time(:millisecond)}") |> String.to_integer()

    IO.puts("\nstrict servers: #{@rounds} rounds, HOT_PATCH_SEED=#{seed}")
    :rand.seed(:exsss, seed)
    ended = Enum.map_reduce(1..@rounds, 1, &round(&1, &2, beams, seed)) |> elem(0)
    IO.puts("ended: #{inspect(Enum.frequencies(ended))}")
    # It has to have met what it is about, where it is long enough for that.
    if @rounds >= 60, do: assert(:ok in ended and :busy in ended and :engine_died in ended)
  end

  defp round(n, version, beams, seed) do
    plan = plan()
    what = "seed #{seed}, round #{n}, from #{version}: #{inspect(plan)}"
    :ets.delete_all_objects(:hot_patch_test_strict)
    world = start(version)
    listener = listen(world)
    give_work(world, plan)

    result = swap(world, plan, {version, 3 - version}, beams)
    now = running()
    # With both dead nobody is left to resume those that are suspended by a message.
    alone = if plan.kill == :both, do: [world.supervisor | world.managers], else: []
    all = if alone == [], do: world.all ++ started(world), else: world.all -- alone
    for pid <- all, do: until(fn -> free?(pid) end, "#{what}: #{inspect(pid)} goes on")

    for pid <- world.all do
      assert Process.alive?(pid), "#{what}: #{inspect(pid)} died (#{inspect(result)})"
    end

    seen = seen(listener)
    assert seen == [], "#{inspect(seen)} in #{what} (#{inspect(result)})"

    # Who changes in its turn has all of that in its mailbox at once.
    looked = :ets.tab2list(:hot_patch_test_strict)
    assert looked == [] or plan.transition == :compatible, "#{inspect(looked)} in #{what}"
    assert now == expected(result, version), "#{what} (#{inspect(result)})"
    # Cut off in the middle, the changes of a compatible transition are not all made.
    cut? = plan.kill in [:engine, :both] and plan.transition == :compatible
    if alone == [] and not cut?, do: assert_states(world, now, "#{what} (#{inspect(result)})")

    kill(Enum.uniq(all ++ world.all))
    {ended(result), now}
  end

  defp ended({:ok, _done}), do: :ok
  defp ended({:error, %{reason: reason}}), do: reason

  defp expected({:ok, _done}, version), do: 3 - version
  defp expected({:error, %{loaded?: true}}, version), do: 3 - version
  defp expected({:error, _failure}, version), do: version

  defp plan do
    %{
      pause: Enum.random([1, 5, 20, 60, 2_000]),
      busy: Enum.random([0, 0, 1, 3]),
      backlog: Enum.random([0, 0, 20, 200]),
      slow_init: Enum.random([0, 0, 0, 40, 120]),
      mark: Enum.random([nil, nil, nil, :fail, :hang]),
      decision: Enum.random([:finish, :finish, :take_back, :none]),
      kill: Enum.random([nil, nil, nil, nil, nil, nil, :engine, :engine, :guard, :both]),
      transition: Enum.random([:suspend, :suspend, :suspend, :compatible]),
      # How often the killer lets others run before it strikes.
      when: Enum.random([0, 10, 100, 1_000, 5_000, 20_000])
    }
  end

  # Servers below a supervisor, and beside it one or more of each other kind.
  defp start(version) do
    servers = for n <- 1..Enum.random(1..30), do: spec(n, {version, 0}, 0)
    supervisor = supervisor(servers)
    children = for {_id, pid, _, _} <- :supervisor.which_children(supervisor), do: pid

    statems =
      for _ <- 1..Enum.random(1..5), do: started_by(:gen_statem.start(@statem, version, []))

    specials =
      for _ <- 1..Enum.random(1..5), do: started_by(:proc_lib.start(@special, :enter, [version]))

    managers = for _ <- 1..Enum.random(1..3), do: manager(version)

    %{
      supervisor: supervisor,
      servers: children,
      statems: statems,
      specials: specials,
      managers: managers,
      all: [supervisor | children ++ statems ++ specials ++ managers]
    }
  end

  # Not linked to the test.
  defp supervisor(servers) do
    test = self()

    spawn(fn ->
      {:ok, pid} = :supervisor.start_link(@supervisor, servers)
      Process.unlink(pid)
      send(test, {:supervisor, pid})
    end)

    assert_receive {:supervisor, pid}
    pid
  end

  defp started_by({:ok, pid}), do: pid

  defp manager(version) do
    {:ok, pid} = :gen_event.start([])
    for n <- 1..2, do: :ok = :gen_event.add_handler(pid, {@event, n}, {version, 0})
    pid
  end

  defp spec(n, state, init_ms) do
    %{
      id: n,
      start: {:gen_server, :start_link, [@server, {state, init_ms}, []]},
      restart: :temporary
    }
  end

  defp started(world) do
    for {_id, pid, _, _} <- :supervisor.which_children(world.supervisor),
        is_pid(pid),
        pid not in world.servers,
        do: pid
  end

  defp give_work(world, plan) do
    workers = world.servers ++ world.statems
    for pid <- Enum.take_random(workers, plan.busy), do: :gen_server.cast(pid, {:busy, 50})
    victim = Enum.random(workers)
    for _ <- 1..plan.backlog//1, do: :gen_server.cast(victim, {:busy, 1})

    if plan.slow_init > 0 do
      %{supervisor: supervisor, all: all} = world
      version = running()

      spawn(fn ->
        :supervisor.start_child(supervisor, spec({:late, hd(all)}, {version, 0}, plan.slow_init))
      end)
    end

    if plan.mark, do: :gen_server.cast(Enum.random(world.servers), {:mark, plan.mark})
  end

  defp swap(_world, plan, {from, to}, beams) do
    versions =
      for {{module, old}, {module, new}} <- Enum.zip(beams[from], beams[to]),
          do: {module, old, new}

    options = [pause_timeout: plan.pause, hold_timeout: 200, transition: plan.transition]
    job = job(versions, options)

    case Swap.prepare(job) do
      {:ok, ready} ->
        killer = killer(plan)
        result = Swap.run(ready, &decide(&1, plan.decision))
        kill([killer])
        result

      error ->
        error
    end
  end

  defp decide(engine, :finish), do: Swap.decide(engine, :finish)
  defp decide(engine, :take_back), do: Swap.decide(engine, {:take_back, "another node"})
  defp decide(_engine, :none), do: :ok

  defp killer(%{kill: nil}), do: spawn(fn -> :ok end)

  defp killer(plan) do
    test = self()

    spawn(fn ->
      engine = spin(&engine/0)
      guard = spin(fn -> guard(engine, test) end)
      for _ <- 1..plan.when//1, do: :erlang.yield()
      victims = %{engine: [engine], guard: [guard], both: [guard, engine]}[plan.kill]
      Enum.each(victims, &Process.exit(&1, :kill))
    end)
  end

  defp spin(fun), do: fun.() || (:erlang.yield() && spin(fun))

  defp engine do
    Enum.find(Process.list(), fn pid ->
      Process.info(pid, :initial_call) == {:initial_call, {Swap.Engine, :init, 2}}
    end)
  end

  defp guard(engine, test) do
    case Process.info(engine, :monitored_by) do
      {:monitored_by, pids} -> Enum.find(pids, &(&1 != test and is_pid(&1)))
      # It is gone already, and its guard with it.
      nil -> engine
    end
  end

  # What is delivered to the processes, as the VM sees it; their own messages are told by form.
  defp listen(world) do
    listener = spawn_link(fn -> listen_for([]) end)
    for pid <- world.all, do: :erlang.trace(pid, true, [:receive, {:tracer, listener}])
    listener
  end

  defp listen_for(seen) do
    receive do
      {:trace, _pid, :receive, message} ->
        listen_for(if(theirs?(message), do: seen, else: [message | seen]))

      {:seen, from} ->
        send(from, {:seen, seen})
    end
  end

  # System messages are for the loop of a behaviour, and get_modules is gen_event's own.
  defp theirs?({:system, _from, _request}), do: true
  defp theirs?({_pid, {_from, _tag}, :get_modules}), do: true
  defp theirs?({:"$gen_call", _from, _request}), do: true
  defp theirs?({:"$gen_cast", _request}), do: true
  defp theirs?({:ack, _pid, _answer}), do: true
  defp theirs?({:EXIT, _pid, _reason}), do: true

  # So a receive is shown that has ended after its time, and the VM's answer whether a process lives.
  defp theirs?(:timeout), do: true
  defp theirs?({ref, lives?}) when is_reference(ref) and is_boolean(lives?), do: true
  # From OTP 29 on a supervisor sets timers for itself.
  defp theirs?({:timeout, timer, _text}) when is_reference(timer), do: true
  defp theirs?(message), do: match?({:DOWN, _, _, _, _}, message)

  defp seen(listener) do
    send(listener, {:seen, self()})
    assert_receive {:seen, seen}
    seen
  end

  # It handles what comes to it: not stopped in any way, and done with its backlog.
  defp free?(pid) do
    match?({:status, _, _, [_, :running | _]}, :sys.get_status(pid, 100)) and
      Process.info(pid, :message_queue_len) == {:message_queue_len, 0}
  catch
    :exit, _late -> false
  end

  defp assert_states(world, version, what) do
    for pid <- world.servers ++ started(world),
        do: assert(match?({^version, _}, :gen_server.call(pid, :get)), "#{what}: #{inspect(pid)}")

    for pid <- world.statems,
        do: assert(match?({^version, _}, :gen_statem.call(pid, :get)), "#{what}: #{inspect(pid)}")

    for pid <- world.specials,
        do: assert(match?({_, {^version, _}}, :sys.get_state(pid)), "#{what}: #{inspect(pid)}")

    for pid <- world.managers,
        {@event, _id, state} <- :sys.get_state(pid),
        do: assert(match?({^version, _}, state), "#{what}: #{inspect(pid)}")

    for pid <- world.managers, do: assert(length(:gen_event.which_handlers(pid)) == 2, what)

    for pid <- world.all do
      {:dictionary, dictionary} = Process.info(pid, :dictionary)
      assert Enum.filter(Keyword.keys(dictionary), &ours?/1) == [], "#{what}: #{inspect(pid)}"
    end
  end

  defp ours?(key), do: key |> Atom.to_string() |> String.starts_with?("$hot_patch")

  defp running, do: @server.module_info(:attributes)[:vsn] |> hd()

  # A server whose code_change looks at what is in its mailbox: nothing of the swap may be there.
  defp beam(@server, version) do
    Builds.erlang("""
    -module(#{@server}).
    -vsn(#{version}).
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
    init({State, Ms}) -> busy(Ms), {ok, State}.
    handle_call(get, _From, {_, _} = State) -> {reply, State, State}.
    handle_cast({mark, Mark}, State) -> put(mark, Mark), {noreply, State};
    handle_cast({busy, Ms}, {V, N}) -> busy(Ms), {noreply, {V, N + 1}}.
    handle_info({never, sent}, State) -> {noreply, State}.
    code_change(_, {_, N}, _) ->
        look(),
        case get(mark) of
            fail -> error(marked);
            hang -> busy(100), look();
            undefined -> ok
        end,
        {ok, {#{version}, N}}.
    busy(0) -> ok;
    busy(Ms) -> receive {never, ever} -> ok after Ms -> ok end.
    look() ->
        {messages, List} = process_info(self(), messages),
        [ets:insert(hot_patch_test_strict, {self(), M}) || {system, _, R} = M <- List, R =/= get_status].
    """)
  end

  defp beam(@statem, version) do
    Builds.erlang("""
    -module(#{@statem}).
    -vsn(#{version}).
    -export([init/1, callback_mode/0, on/3, code_change/4]).
    init(V) -> {ok, on, {V, 0}}.
    callback_mode() -> state_functions.
    on(cast, {busy, Ms}, {V, N}) ->
        receive {never, ever} -> ok after Ms -> ok end, {keep_state, {V, N + 1}};
    on({call, From}, get, {_, _} = Data) -> {keep_state_and_data, {reply, From, Data}}.
    code_change(_, State, {_, N}, _) -> {ok, State, {#{version}, N}}.
    """)
  end

  defp beam(@event, version) do
    Builds.erlang("""
    -module(#{@event}).
    -vsn(#{version}).
    -export([init/1, handle_event/2, handle_call/2, handle_info/2, code_change/3]).
    init(State) -> {ok, State}.
    handle_event(tick, {#{version}, N}) -> {ok, {#{version}, N + 1}}.
    handle_call(get, {#{version}, _} = State) -> {ok, State, State}.
    handle_info({never, sent}, State) -> {ok, State}.
    code_change(_, {_, N}, _) -> {ok, {#{version}, N}}.
    """)
  end

  defp beam(@special, version) do
    Builds.erlang("""
    -module(#{@special}).
    -vsn(#{version}).
    -export([enter/1, loop/2, system_continue/3, system_terminate/4, system_code_change/4]).
    enter(V) -> proc_lib:init_ack({ok, self()}), loop(undefined, {V, 0}).
    loop(Parent, State) ->
        receive
            {system, From, Request} ->
                sys:handle_system_msg(Request, From, self(), #{@special}, [], {Parent, State});
            Other -> exit({not_mine, Other})
        end.
    system_continue(_, _, {Parent, State}) -> #{@special}:loop(Parent, State).
    system_terminate(Reason, _, _, _) -> exit(Reason).
    system_code_change({Parent, {_, N}}, _, _, _) -> {ok, {Parent, {#{version}, N}}}.
    """)
  end

  defp beam(@supervisor, version) do
    Builds.erlang("""
    -module(#{@supervisor}).
    -vsn(#{version}).
    -export([init/1]).
    init(Children) -> {ok, {{one_for_one, 0, 1}, Children}}.
    """)
  end
end
