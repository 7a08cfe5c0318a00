defmodule HotPatch.Swap.PropertyTest do
  # Random sets of servers that call each other, random versions, random trouble, under load,
  # round after round: afterwards nobody is suspended, all run one version, no state is lost
  # or mixed, and no call was lost but those of processes that were meant to die. They are gen_servers, gen_statems, and in
  # the loop of a behaviour that is not OTP's; some have become our module's only by then. All hold funs, and fail
  # on a message that is not theirs.
  #
  # A run is told by its seed: HOT_PATCH_SEED=n repeats it, HOT_PATCH_ROUNDS=n makes it longer.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers, except: [job: 2]

  alias HotPatch.Swap
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Loops

  @module :hot_patch_test_random
  @helper :hot_patch_test_random_helper
  @machine :hot_patch_test_random_machine
  @first :hot_patch_test_random_first
  @turns :hot_patch_test_random_turns
  @loop :hot_patch_test_random_loop
  @starts [
    {:gen_server, @module},
    {:gen_server, @first},
    {:gen_statem, @machine},
    {:gen_statem, @turns},
    {@loop, @module}
  ]
  @table :hot_patch_test_random_funs
  @versions 4
  @rounds "HOT_PATCH_ROUNDS" |> System.get_env("60") |> String.to_integer()

  # What a round may hold in store. Several come more often because they matter more.
  @troubles [
    :none,
    :none,
    :none,
    :crash,
    :raise,
    :hang,
    :busy,
    :kill_target,
    :start,
    :take_back,
    :kill_engine,
    :table
  ]

  @tag timeout: :infinity
  test "random swaps under load keep every promise" do
    seed =
      "HOT_PATCH_SEED" |> System.get_env("#{System.os_time(:millisecond)}") |> String.to_integer()

    IO.puts("\nrandom swaps: #{@rounds} rounds, HOT_PATCH_SEED=#{seed}")
    :rand.seed(:exsss, seed)
    beams = for v <- 1..@versions, into: %{}, do: {v, beam(v, :fine)}
    helpers = for v <- 1..@versions, into: %{}, do: {{:helper, v}, helper(v)}
    machines = for v <- 1..@versions, into: %{}, do: {{:machine, v}, machine(v)}
    beams = beams |> Map.merge(helpers) |> Map.merge(machines)
    load(@helper, beams[{:helper, 1}])
    load(@machine, beams[{:machine, 1}])
    load(@module, beams[1])
    for {module, beam} <- unchanged(), do: load(module, beam)

    on_exit(fn ->
      Enum.each([@module, @helper, @machine, @first, @turns, @loop], &unload/1)
    end)

    Enum.reduce(1..@rounds, 1, fn round, version -> round(round, version, beams, seed) end)
  end

  # One round: fresh servers in the current version, load on them, one swap with one trouble.
  defp round(round, version, beams, seed) do
    pids = start(version)
    loads = for n <- 1..3, do: start_load(pids, seed + round * 10 + n)
    to = Enum.random(Enum.to_list(1..@versions) -- [version])
    trouble = Enum.random(@troubles)
    what = "seed #{seed} round #{round}: #{length(pids)} servers, #{version} -> #{to}, #{trouble}"

    {result, meant_to_die, late} = swap(trouble, pids, {version, to}, beams)
    calls = Enum.map(loads, &stop_load/1)
    now = if match?({:ok, _}, result), do: to, else: version

    assert expected?(trouble, result), "#{what}: #{inspect(result)}"
    assert running_version() == now, "#{what}: runs #{running_version()}, #{inspect(result)}"

    for pid <- (pids ++ late) -- meant_to_die do
      assert Process.alive?(pid), "#{what}: #{inspect(pid)} died"
      assert goes_on?(pid), "#{what}: #{inspect(pid)} is suspended"
      assert {^now, _count} = :gen_server.call(pid, :get), what

      # Its own, one that another module wrapped around it, one of that module, one as a key, the tail of
      # an improper list, and one in the dictionary with two others around it.
      own = {now, 0}
      funs = [own, {now, own}, own, own, own, {now, {now, own}}]
      assert :gen_server.call(pid, :funs) == funs, what
    end

    # Every call was answered, and every one that added is in the counts; what died took its own along.
    lost = for {_added, lost} <- calls, pid <- lost, do: pid
    assert Enum.uniq(lost) -- meant_to_die == [], "#{what}: lost calls to #{inspect(lost)}"

    if meant_to_die == [] do
      added = Enum.sum(Enum.map(calls, &elem(&1, 0)))
      counted = pids |> Enum.map(&elem(:gen_server.call(&1, :get), 1)) |> Enum.sum()
      assert counted == added, "#{what}: #{added} added, #{counted} counted"
    end

    kill(for pid <- pids ++ late, Process.alive?(pid), do: pid)
    now
  end

  defp swap(:none, _pids, versions, beams), do: {run(job(versions, beams)), [], []}

  # One process cannot convert its state.
  defp swap(:raise, pids, {from, to}, beams) do
    put(Enum.random(pids), :raise)
    {run(job({from, to}, Map.put(beams, to, beam(to, :raise)))), [], []}
  end

  # One dies in its code_change.
  defp swap(:crash, pids, {from, to}, beams) do
    victim = Enum.random(pids)
    put(victim, :crash)
    {run(job({from, to}, Map.put(beams, to, beam(to, :crash)))), [victim], []}
  end

  # One never returns from its code_change, until it is too late.
  defp swap(:hang, pids, {from, to}, beams) do
    victim = Enum.random(pids)
    put(victim, :hang)
    result = run(job({from, to}, Map.put(beams, to, beam(to, :hang)), pause_timeout: 60))
    send(victim, :go_on)
    {result, [], []}
  end

  # One is in a long callback.
  defp swap(:busy, pids, versions, beams) do
    victim = Enum.random(pids)
    test = self()
    spawn(fn -> :gen_server.call(victim, {:block, test}, :infinity) end)
    assert_receive {:blocked, ^victim}
    result = run(job(versions, beams, pause_timeout: 60))
    send(victim, :go)
    {result, [], []}
  end

  # One is killed by somebody else meanwhile.
  defp swap(:kill_target, pids, versions, beams) do
    victim = Enum.random(pids)
    spawn(fn -> Process.exit(victim, :kill) end)
    {run(job(versions, beams)), [victim], []}
  end

  # One is started while all the others stand still.
  defp swap(:start, _pids, {from, _} = versions, beams) do
    test = self()

    result =
      run(job(versions, beams, hold_timeout: 10_000), fn engine ->
        late = for _ <- 1..3, do: start_one(from)
        send(test, {:late, late})
        Swap.decide(engine, :finish)
      end)

    assert_received {:late, late}
    {result, [], late}
  end

  # Another node failed.
  defp swap(:take_back, _pids, versions, beams) do
    job = job(versions, beams, hold_timeout: 10_000)
    {run(job, &Swap.decide(&1, {:take_back, "another node"})), [], []}
  end

  defp swap(:kill_engine, _pids, versions, beams) do
    {run(job(versions, beams, hold_timeout: 10_000), &Process.exit(&1, :kill)), [], []}
  end

  # A fun is in a table, where nobody makes it anew: it lives, and what would end it is refused.
  defp swap(:table, pids, {from, to} = versions, beams) do
    :ets.new(@table, [:named_table, :public])
    :ok = :gen_server.call(hd(pids), {:into, @table})
    result = run(job(versions, beams))
    in_table = fn -> :gen_server.call(hd(pids), {:from, @table}) end
    assert in_table.() == {from, 0}

    if match?({:ok, _}, result) do
      next = Enum.random(Enum.to_list(1..@versions) -- [from, to])
      assert {:error, %{reason: :old_code}} = run(job({to, next}, beams))
      assert in_table.() == {from, 0}
    end

    :ets.delete(@table)
    {result, [], []}
  end

  defp expected?(trouble, {:ok, _})
       when trouble in [:none, :kill_target, :start, :table],
       do: true

  defp expected?(:crash, {:error, %{reason: :taken_back}}), do: true

  # It was in its code_change, and nobody knows what it has died of.
  defp expected?(:kill_target, {:error, %{reason: :taken_back, text: text}}),
    do: text =~ "the process died while it ran"

  defp expected?(:raise, {:error, %{reason: :taken_back}}), do: true
  # Where the machine is busy it may not come as far as to hang.
  defp expected?(:hang, {:error, %{reason: reason}}) when reason in [:taken_back, :busy], do: true
  defp expected?(:busy, {:error, %{reason: :busy}}), do: true
  defp expected?(:take_back, {:error, %{reason: :taken_back}}), do: true
  defp expected?(:kill_engine, {:error, %{reason: :engine_died, loaded?: false}}), do: true
  defp expected?(_trouble, _result), do: false

  defp job({from, to}, beams, options \\ []) do
    HotPatch.Test.Servers.job(
      [
        {@module, running(beams[from], from), beams[to]},
        {@helper, beams[{:helper, from}], beams[{:helper, to}]},
        {@machine, beams[{:machine, from}], beams[{:machine, to}]}
      ],
      Keyword.put_new(options, :pause_timeout, 5_000)
    )
  end

  # A round before may have brought one that does not convert everybody.
  defp running(beam, version) do
    if :code.module_md5(beam) == @module.module_info(:md5), do: beam, else: beam(version, :crash)
  end

  # Some begin as servers of a module that never changes, and become ours.
  defp start(version) do
    for _ <- 1..Enum.random(2..60) do
      pid = start_one(version)
      {^version, 0} = :gen_server.call(pid, :get)
      pid
    end
  end

  defp start_one(version) do
    {behaviour, module} = Enum.random(@starts)
    {:ok, pid} = behaviour.start(module, {version, 0}, [])
    pid
  end

  # A mark that only the trouble's code_change looks at.
  defp put(pid, mark) do
    :sys.replace_state(pid, fn state ->
      Process.put(:mark, mark)
      state
    end)
  end

  defp running_version, do: @module.module_info(:attributes)[:vsn] |> hd()

  # A client: adds at random servers, some of which ask a later one on the way, and keeps
  # count of what was answered and of whom it lost.
  defp start_load(pids, seed) do
    test = self()
    spawn_link(fn -> client(test, List.to_tuple(pids), :rand.seed_s(:exsss, seed), 0, []) end)
  end

  defp stop_load(client) do
    send(client, :stop)
    assert_receive {^client, added, lost}
    {added, lost}
  end

  defp client(test, pids, seed, added, lost) do
    receive do
      :stop -> send(test, {self(), added, lost})
    after
      0 ->
        {n, seed} = :rand.uniform_s(tuple_size(pids), seed)
        {k, seed} = :rand.uniform_s(tuple_size(pids) - n + 1, seed)
        # Only ever a later one: asking in circles is a deadlock of its own.
        via = if k > 1, do: elem(pids, n + k - 2)

        try do
          :gen_server.call(elem(pids, n - 1), {:add, via}, :infinity)
          client(test, pids, seed, added + 1, lost)
        catch
          :exit, _ -> client(test, pids, seed, added, [elem(pids, n - 1) | lost])
        end
    end
  end

  # State: {Version, Count}. A server in one version crashes on the state of another.
  defp beam(version, trouble) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn(#{version}).
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
    init({Version, Count}) ->
        Own = fun() -> {#{version}, Count} end,
        put(held, [1 | #{@helper}:wrap(#{@helper}:wrap(Own))]),
        {ok, {Version, Count, {Own, #{@helper}:wrap(Own), [#{@helper}:made(Count)], \#{Own => [1 | Own]}}}}.
    handle_call(get, _From, {#{version}, Count, _} = State) -> {reply, {#{version}, Count}, State};
    handle_call(funs, _From, {_, _, {Own, Wrapped, [Made], Keys}} = State) ->
        [{Key, [1 | Tail]}] = maps:to_list(Keys), [1 | Held] = get(held),
        {reply, [F() || F <- [Own, Wrapped, Made, Key, Tail, Held]], State};
    handle_call({into, Table}, _From, {_, _, {Own, _, _, _}} = State) ->
        ets:insert(Table, {own, [Own]}), {reply, ok, State};
    handle_call({from, Table}, _From, State) ->
        [{own, [Own]}] = ets:lookup(Table, own), {reply, Own(), State};
    handle_call(ping, _From, {#{version}, _, _} = State) -> {reply, pong, State};
    handle_call({add, undefined}, From, State) -> handle_call({add, nil}, From, State);
    handle_call({add, nil}, _From, {#{version}, Count, Funs}) ->
        {reply, ok, {#{version}, Count + 1, Funs}};
    handle_call({add, Via}, _From, {#{version}, Count, Funs}) ->
        _ = (catch gen_server:call(Via, ping, infinity)), {reply, ok, {#{version}, Count + 1, Funs}};
    handle_call({block, Pid}, _From, {#{version}, _, _} = State) ->
        Pid ! {blocked, self()}, receive go -> ok end, {reply, ok, State}.
    handle_cast(_, State) -> {noreply, State}.
    % Of the test, and no others.
    handle_info(Message, {#{version}, _, _} = State) when Message =:= go; Message =:= go_on -> {noreply, State}.
    code_change(_, {_, Count, Funs}, _) -> #{code_change(trouble)}, {ok, {#{version}, Count, Funs}}.
    """)
  end

  # A gen_statem whose data is the state of such a server.
  defp machine(version) do
    Builds.erlang("""
    -module(#{@machine}).
    -vsn(#{version}).
    -export([init/1, callback_mode/0, handle_event/4, code_change/4]).
    init(Begin) -> {ok, State} = #{@module}:init(Begin), {ok, on, State}.
    callback_mode() -> handle_event_function.
    handle_event({call, From}, Call, on, State) ->
        {reply, Reply, New} = #{@module}:handle_call(Call, From, State), {keep_state, New, [{reply, From, Reply}]};
    handle_event(info, Message, on, {#{version}, _, _} = State) ->
        {noreply, State} = #{@module}:handle_info(Message, State), keep_state_and_data.
    code_change(Old, on, State, Extra) -> {ok, New} = #{@module}:code_change(Old, State, Extra), {ok, on, New}.
    """)
  end

  defp unchanged,
    do: [{@first, first()}, {@turns, turns()}, {@loop, Loops.own(@loop, "$gen_call")}]

  defp turns do
    Builds.erlang("""
    -module(#{@turns}).
    -export([init/1, callback_mode/0, handle_event/4, code_change/4]).
    init(Begin) -> {ok, off, Begin, [{next_event, internal, become}]}.
    callback_mode() -> handle_event_function.
    handle_event(internal, become, off, Begin) ->
        {ok, State} = #{@module}:init(Begin),
        How = case rand:uniform(2) of 1 -> change_callback_module; 2 -> push_callback_module end,
        {next_state, on, State, [{How, #{@machine}}]}.
    code_change(_, _, _, _) -> error(of_another).
    """)
  end

  defp first do
    Builds.erlang("""
    -module(#{@first}).
    -export([init/1, handle_continue/2, handle_call/3, handle_cast/2, code_change/3]).
    init(Begin) -> {ok, Begin, {continue, become}}.
    handle_continue(become, Begin) -> {ok, State} = #{@module}:init(Begin), gen_server:enter_loop(#{@module}, [], State).
    handle_call(_, _From, State) -> {reply, not_yet, State}.
    handle_cast(_, State) -> {noreply, State}.
    code_change(_, _, _) -> error(of_another).
    """)
  end

  defp helper(version) do
    Builds.erlang("""
    -module(#{@helper}).
    -vsn(#{version}).
    -export([made/1, wrap/1]).
    made(X) -> fun() -> {#{version}, X} end.
    wrap(F) -> fun() -> {#{version}, F()} end.
    """)
  end

  defp code_change(:fine), do: "ok"
  defp code_change(:raise), do: "case get(mark) of raise -> error(cannot); _ -> ok end"

  defp code_change(:crash),
    do: "case get(mark) of crash -> exit(self(), kill), receive never -> ok end; _ -> ok end"

  defp code_change(:hang), do: "case get(mark) of hang -> receive go_on -> ok end; _ -> ok end"
end
