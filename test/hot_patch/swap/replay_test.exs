defmodule HotPatch.Swap.ReplayTest do
  # Messages that processes really get are played by old and new code: what differs is found, nobody notices, and
  # nothing of it gets out.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  alias HotPatch.Rehearsal.Replay
  alias HotPatch.Swap.Replay.Coming
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Leaks
  alias HotPatch.Test.Phoenix, as: Fake

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
    {result, Task.await(task, 120_000)}
  end

  # In no rhythm: else each copy could begin with the same message, always.
  defp keep(load, count) do
    receive do
      :enough -> count
    after
      :rand.uniform(3) -> load.(count) && keep(load, count + 1)
    end
  end

  # One rehearsal after another until each of the names has been asked for: how many that are in three seconds
  # is up to the machine. Gives the replays of all of them.
  defp until_all(names, ask, rehearsal, asked \\ 0) do
    name = &Enum.at(names, rem(asked + &1, length(names)))
    {found, count} = under(&ask.(name.(&1)), rehearsal)
    assert count > 0
    assert {:ok, %{replays: replays}} = found

    if asked + count > length(names),
      do: replays,
      else: replays ++ until_all(names, ask, rehearsal, asked + count)
  end

  defp replay!(old, new, options \\ []) do
    assert [%Replay{} = one] = replays([{@module, old, new}], options)
    one
  end

  # What is found in a second is up to the machine: for as long as it is not enough, it is played for longer.
  # `enough` is asked of each replay; `with` are modules that are played with those of the patch.
  defp replays(versions, options \\ [], seconds \\ 1) do
    enough? = Keyword.get(options, :enough, &(&1.messages > 20))
    how = replay(versions ++ Keyword.get(options, :with, []), seconds, options)
    assert {:ok, %{replays: replays}} = rehearse(job(versions), replay: how)

    if Enum.all?(replays, enough?) or seconds > 30,
      do: replays,
      else: replays(versions, options, seconds * 3)
  end

  defp set_aside(count), do: &(length(&1.left_aside) >= count)

  # Those that have something of each to be found.
  defp each_found(messages \\ []) do
    fn one ->
      differ = Enum.map(one.differences, & &1.message)
      one.same > 0 and one.crashes != [] and differ != [] and messages -- differ == []
    end
  end

  @reads """
  init([]) -> {ok, 0}.
  handle_call(price, _From, S) -> {reply, application:get_env(kernel, hot_patch_price, none), S};
  handle_call(table, _From, S) -> {reply, TABLE, S};
  handle_call(name, _From, S) -> {reply, NAME, S}.
  handle_cast(_, S) -> {noreply, S}.
  handle_info(_, S) -> {noreply, S}.
  handle_continue(_, S) -> {noreply, S}.
  code_change(_, S, _) -> {ok, S}.
  """

  test "the new code reads the environment that comes with it, and what is to be started is not missed" do
    old = beam("1", @reads |> String.replace("TABLE", "0") |> String.replace("NAME", "0"))

    new =
      @reads
      |> String.replace("TABLE", "ets:lookup_element(hot_patch_coming, price, 2)")
      |> String.replace("NAME", "is_pid(whereis(hot_patch_coming))")

    new = beam("2", new)
    load(@module, old)
    # Whoever is left aside is heard again a little later: each is asked for one thing.
    asked_for =
      for what <- [:price, :table, :name] do
        {:ok, pid} = :gen_server.start(@module, [], [])
        {pid, what}
      end

    asked = fn coming, enough ->
      load = fn _count ->
        Enum.all?(asked_for, fn {pid, what} -> :gen_server.call(pid, what) != :never end)
      end

      under(load, fn -> replay!(old, new, coming: coming, enough: enough) end) |> elem(0)
    end

    settings = %{{:kernel, :hot_patch_price} => {:ok, 7}}
    left? = set_aside(2)

    one =
      asked.(%Coming{settings: settings, starts?: true}, &(&1.differences != [] and left?.(&1)))

    assert %Replay{crashes: [], differences: [%{what: :reply}], left_aside: left} = one
    assert Enum.all?(left, &(&1.why == :not_there)) and length(left) == 2
    assert hd(left).text =~ ~r/reads with (:ets|:erlang)\.\w+\/\d what is not there now/

    # Where nothing is started, nothing will be there.
    one = asked.(%Coming{}, &(&1.differences != [] and &1.crashes != []))
    assert %Replay{crashes: [%{reason: "ArgumentError"}], left_aside: []} = one
    assert Enum.map(one.differences, & &1.what) == [:reply]
    for {pid, _what} <- asked_for, do: :gen_server.stop(pid)
  end

  test "a crash and wrong answers of the new code are found, and the process goes on as it was" do
    {old, new} = {beam("1", @v1), beam("2", @v2)}
    load(@module, old)
    {:ok, pid} = :gen_server.start(@module, 0, [])
    on_exit(fn -> kill([pid]) end)

    {one, count} =
      under(
        fn n ->
          amount = if rem(n, 10) == 3, do: 13, else: n + 100
          assert {:charged, ^amount, _count} = :gen_server.call(pid, {:charge, amount})
          {:refunded, 5} = :gen_server.call(pid, {:refund, 5})
          send(pid, :tick)
        end,
        fn -> replay!(old, new, enough: each_found()) end
      )

    assert :gen_server.call(pid, :count) == count

    assert [%{reason: "badarith", message: "call {:charge, integer}", count: crashes} = crash] =
             one.crashes

    assert crashes >= 1
    assert crash.place =~ "handle_call/3"
    assert crash.values == []

    assert [%{what: :reply, from: same, to: same, message: "call {:charge, integer}"} | _] =
             one.differences

    assert one.messages > 5
    assert one.left_aside == []
    assert Replay.outcome(one) == :failed
  end

  defp started(beam, state) do
    load(@module, beam)
    {:ok, pid} = :gen_server.start(@module, state, [])
    on_exit(fn -> kill([pid]) end)
    pid
  end

  # Old and new code that differ in what they make of a message, `go`.
  defp pair(old, new, more \\ "") do
    for {version, body} <- [{"1", old}, {"2", new}] do
      beam(version, """
      init(S) -> {ok, S}.
      handle_call(go, _From, S) -> #{body};
      handle_call(_, _From, S) -> {reply, S, S}.
      handle_cast(go, S) -> #{body};
      handle_cast(_, S) -> {noreply, S}.
      handle_info(go, S) -> #{body};
      handle_info(_, S) -> {noreply, S}.
      handle_continue(_, S) -> {noreply, S}.
      code_change(_, S, _) -> {ok, S}.
      #{more}
      """)
    end
  end

  defp played(old, new, state, load, options \\ [], more \\ "") do
    [old, new] = pair(old, new, more)
    pid = started(old, state)
    {one, _count} = under(fn _n -> load.(pid) end, fn -> replay!(old, new, options) end)
    {pid, one}
  end

  @tag :slow
  test "values are shown where that is asked for, and nowhere else" do
    call = fn pid -> :gen_server.call(pid, :go) end
    answers = ["{reply, {ok, S}, S}", "{reply, {ok, S + 45}, S}"]

    {_pid, one} = twice(answers, call, [])
    assert [%{what: :reply, values: [], from: "{:ok, integer}"}] = one.differences
    refute inspect(one) =~ "7777"
    unload(@module)

    {_pid, one} = twice(answers, call, values: true)

    assert [%{values: [%{message: ":go", from: "{:ok, 7777}", to: "{:ok, 7822}"} | _]}] =
             one.differences
  end

  defp twice([old, new], call, options), do: played(old, new, 7777, call, options)

  test "both read the same, and find themselves in their state" do
    body = """
    begin
      true = lists:nth(1, S) =:= self(), {_, Reductions} = process_info(self(), reductions),
      {reply, {erlang:unique_integer(), erlang:monotonic_time(), make_ref(), Reductions, rand:uniform(1000000)}, S}
    end
    """

    [old, new] = pair(body, body)
    pid = started(old, [])
    :sys.replace_state(pid, fn _state -> [pid] end)
    {one, _count} = under(fn _n -> :gen_server.call(pid, :go) end, fn -> replay!(old, new) end)
    assert %{differences: [], crashes: [], left_aside: []} = one
    assert one.messages > 10
    assert one.same == one.messages
  end

  @tag :slow
  test "what would be sent is compared, and what goes on without an end is a crash" do
    cast = fn pid -> :gen_server.cast(pid, :go) end
    sink = spawn(fn -> receive(do: (:never -> :ok)) end)
    Process.register(sink, :hot_patch_test_nobody)
    on_exit(fn -> kill([sink]) end)

    {_pid, one} =
      played(
        "begin hot_patch_test_nobody ! S, {noreply, S} end",
        "begin hot_patch_test_nobody ! [S], {noreply, S} end",
        1,
        cast
      )

    assert [] = one.crashes

    assert [%{what: :sent, from: "send integer", to: "send [_]", message: "cast :go"}] =
             one.differences

    unload(@module)

    enough = [enough: set_aside(1)]
    {_pid, one} = played("{noreply, S}", "spin(S)", 1, cast, enough, "spin(S) -> spin([S]). ")
    assert [%{why: :too_much_memory}] = one.left_aside
    unload(@module)

    enough = [enough: &(&1.crashes != [])]
    {_pid, one} = played("{noreply, S}", "spin(S)", 1, cast, enough, "spin(S) -> spin(S). ")
    assert [%{reason: "it takes longer" <> _}] = one.crashes
  end

  test "who is traced by somebody else is not heard, and goes on being traced" do
    [old, new] = pair("{noreply, S}", "{noreply, S}")
    pid = started(old, 1)
    1 = :erlang.trace(pid, true, [:receive])

    versions = [{@module, old, new}]
    assert {:ok, %{replays: [one]}} = rehearse(job(versions), replay: replay(versions, 1))

    if System.otp_release() < "27",
      do: assert([%{why: :traced, count: 1}] = one.unheard),
      else: assert(one.unheard == [])

    send(pid, :seen)
    assert_receive {:trace, ^pid, :receive, :seen}
  end

  @tag :slow
  test "nothing gets out of what a server and an Agent really receive, to nobody, and nobody hears of it" do
    module = HotPatch.Test.Leaking
    [old, new] = for side <- [:old, :new], do: Leaks.compile(module, side)
    load(module, old)
    file = Path.join(Builds.tmp(), "leaks")
    witness = Leaks.watch(file)
    {:ok, pid} = :gen_server.start(module, Leaks.state(file), [])
    {:ok, agent} = Agent.start(module, :made, [Leaks.state(file)])
    # Some are sure to be played between those at which a copy ends.
    names = Enum.flat_map(Leaks.names(), &[&1, :send])

    on_exit(fn ->
      Leaks.unwatch()
      kill([pid, agent])
      unload(module)
    end)

    versions = [{module, old, new}]
    {job, how} = {job(versions), replay(versions, 3)}
    heard = Leaks.count([pid, agent])

    all =
      until_all(
        names,
        fn name ->
          send(pid, {:attempt, name})
          :ok = apply(module, :order, [agent, name])
        end,
        fn -> rehearse(job, replay: how) end
      )

    assert Leaks.marks(file) == []
    # What is sent is found, as something else than the old code does.
    sent = for one <- all, %{what: :sent, message: message} <- one.differences, do: message
    assert "cast {:cast, function}" in sent
    assert "info {:attempt, atom}" in sent
    assert length(Enum.flat_map(all, & &1.left_aside)) > 3
    # Another test may have left an Agent, as one of the attempts.
    for one <- all, do: assert({one.processes >= 2, one.crashes} == {true, []})
    assert heard.() == 0
    assert :gen_server.call(pid, :state) == Leaks.state(file)
    assert Agent.get(agent, & &1) == Leaks.state(file)
    refute Enum.any?(:code.all_loaded(), fn {name, _file} -> "#{name}" =~ "@hot_patch" end)

    # It would have been heard.
    heard = Leaks.count([pid, agent])
    send(witness, {:hot_patch_test_leak, :control})
    assert Leaks.marks(file) != []
    assert heard.() == 1
  end

  test "each handler of an event manager is played with what is for it" do
    handler = fn version, event, query ->
      Builds.erlang("""
      -module(#{@module}).
      -vsn("#{version}").
      -behaviour(gen_event).
      -export([init/1, handle_event/2, handle_call/2, handle_info/2, code_change/3]).
      init(N) -> {ok, {#{version}, N}}.
      handle_event({sold, Amount}, {_, N}) -> {ok, {#{version}, N + #{event}}};
      handle_event(_, State) -> {ok, State}.
      handle_call(total, {_, N} = State) -> {ok, #{query}, State}.
      handle_info({go, Pid}, State) -> Pid ! {#{version}, gone}, {ok, State}.
      code_change(_, {_, N}, _) -> {ok, {v2, N}}.
      """)
    end

    {old, new} =
      {handler.("v1", "Amount", "N"), handler.("v2", "100 div (5 - Amount)", "{total, N}")}

    load(@module, old)
    {:ok, pid} = :gen_event.start()
    on_exit(fn -> kill([pid]) end)
    :ok = :gen_event.add_handler(pid, {@module, :till}, 0)

    {one, count} =
      under(
        fn n ->
          :ok = :gen_event.sync_notify(pid, {:sold, rem(n, 6)})
          :ok = :gen_event.notify(pid, {:opened, n})
          total = :gen_event.call(pid, {@module, :till}, :total)
          {:error, :bad_module} = :gen_event.call(pid, {@module, :another}, :total)
          send(pid, {:go, self()})
          assert_receive {:v1, :gone}
          is_integer(total)
        end,
        fn -> replay!(old, new, enough: each_found(["call :total", "info {:go, pid}"])) end
      )

    # It goes on as it was.
    sum = 1..count |> Enum.map(&rem(&1 - 1, 6)) |> Enum.sum()
    assert [{@module, :till, {:v1, ^sum}}] = :sys.get_state(pid)
    assert {one.processes, one.left_aside, one.unheard} == {1, [], []}
    assert [%{reason: "badarith", message: "event {:sold, integer}"} = crash] = one.crashes
    assert crash.place =~ "handle_event/2"

    kinds =
      for difference <- one.differences, uniq: true, do: {difference.what, difference.message}

    assert {:reply, "call :total"} in kinds
    assert {:sent, "info {:go, pid}"} in kinds
    refute Enum.any?(kinds, fn {_what, message} -> message =~ "opened" end)
    assert one.same > 0
  end

  test "two handlers in one manager are played each for itself, and other processes are named by what they are" do
    other = :hot_patch_test_replayed_other
    on_exit(fn -> unload(other) end)

    handler = fn module, answer ->
      Builds.erlang("""
      -module(#{module}).
      -behaviour(gen_event).
      -export([init/1, handle_event/2, handle_call/2, loop/0]).
      -export([system_continue/3, system_terminate/4, system_code_change/4]).
      init(N) -> {ok, N}.
      handle_event(_, N) -> {ok, N + 1}.
      handle_call(count, N) -> {ok, #{answer}, N}.
      loop() -> receive {system, From, Request} -> sys:handle_system_msg(Request, From, self(), #{module}, [], []) end.
      system_continue(_, _, _) -> loop().
      system_terminate(Reason, _, _, _) -> exit(Reason).
      system_code_change(Misc, _, _, _) -> {ok, Misc}.
      """)
    end

    versions =
      for module <- [@module, other],
          do: {module, handler.(module, "N = 1"), handler.(module, "N = 2")}

    versions =
      for {module, old, new} <- versions do
        load(module, old)
        {module, old, new}
      end

    {:ok, pid} = :gen_event.start()
    special = :proc_lib.spawn(@module, :loop, [])
    on_exit(fn -> kill([pid, special]) end)
    for module <- [@module, other], do: :ok = :gen_event.add_handler(pid, module, 0)

    {found, _count} =
      under(fn _n -> :gen_event.sync_notify(pid, :tick) end, fn -> replays(versions) end)

    assert [one, another] = found
    assert {one.processes, another.processes} == {1, 1}

    for %{messages: messages, same: same} <- [one, another],
        do: assert(messages > 0 and same == messages)

    assert one.unheard == [
             %{why: :special, text: "special processes are not played", count: 1}
           ]

    assert Replay.outcome(one) == :incomplete
  end

  # An Agent, as a module that keeps one has it.
  defp account(version, charge, rest) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{version}").
    -export([made/0, charge/2, total/1, read/1, lost/1, keep/2, kept/1, code_change/3]).
    made() -> {0, none}.
    charge(Pid, N) -> 'Elixir.Agent':get_and_update(Pid, fun({S, K}) -> {{charged, #{charge}}, {S + N, K}} end).
    total({S, _}) -> S.
    read(Pid) -> 'Elixir.Agent':get(Pid, fun({S, _}) -> S end).
    keep(Pid, N) -> 'Elixir.Agent':cast(Pid, fun({S, _}) -> {S, fun() -> N end} end).
    kept(Pid) -> 'Elixir.Agent':get(Pid, fun({_, K}) -> {K(), K} end).
    #{rest}
    """)
  end

  defp agent(load, versions, options) do
    [old, new] = versions
    load(@module, old)
    {:ok, pid} = Agent.start(@module, :made, [])
    on_exit(fn -> kill([pid]) end)
    {one, count} = under(fn n -> load.(pid, n) end, fn -> replay!(old, new, options) end)
    {pid, one, count}
  end

  test "an Agent is played: funs of its module are run as those of the new code" do
    versions = [
      account("1", "N", "lost(_) -> ok. code_change(_, S, _) -> {ok, S}."),
      # The last one asks for a form of the state that no message meets.
      account("2", "100 div (3 - N)", "lost(_) -> ok. code_change(_, {S, K}, _) -> {ok, {S, K}}.")
    ]

    {pid, one, count} =
      agent(
        fn pid, n ->
          amount = rem(n, 4)
          assert {:charged, ^amount} = apply(@module, :charge, [pid, amount])
          assert apply(@module, :read, [pid]) == Agent.get(pid, @module, :total, [])
          :ok = apply(@module, :keep, [pid, n])
          assert {^n, _fun} = apply(@module, :kept, [pid])
        end,
        versions,
        enough: each_found()
      )

    # It goes on as it was.
    sum = 1..count |> Enum.map(&rem(&1 - 1, 4)) |> Enum.sum()
    assert {^sum, _fun} = Agent.get(pid, & &1)
    assert {one.processes, one.left_aside, one.unheard} == {1, [], []}

    assert [%{reason: "badarith", message: "call {:get_and_update, function}"} = crash] =
             one.crashes

    assert crash.place =~ "charge/2"
    # The funs in its state are alike, and the same to both.
    assert [%{what: :reply, from: "{:charged, integer}"}] =
             Enum.uniq_by(one.differences, & &1.what)

    assert one.same > 0
    assert Replay.outcome(one) == :failed
  end

  test "a fun of which nothing is known in the new code, and one of another module, are left aside by name" do
    lost = fn text -> "lost(Pid) -> #{text}. code_change(_, S, _) -> {ok, S}." end
    old = account("1", "N", lost.("'Elixir.Agent':get(Pid, fun({S, _}) -> {Pid, S} end)"))
    new = account("2", "N", lost.("{Pid, 0}"))

    {_pid, one, _count} =
      agent(
        # A copy is of the moment before either of them.
        fn pid, n ->
          if rem(n, 2) == 0,
            do: apply(@module, :lost, [pid]),
            else: Agent.get(pid, fn state -> {n, state} end)
        end,
        [old, new],
        enough: set_aside(2)
      )

    assert one.crashes == [] and one.differences == []

    assert Enum.sort(Enum.map(one.left_aside, & &1.text)) == [
             "calls a fun of :hot_patch_test_replayed of which it is not known which one of the new code it is",
             "calls a fun of HotPatch.Swap.ReplayTest"
           ]

    assert Replay.outcome(one) == :incomplete
  end

  # A view and a channel that add, and what they tell: the one by rendering, the other by itself.
  defp view(version, key, add, more \\ "") do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{version}").
    -behaviour('Elixir.Phoenix.LiveView').
    -export(['__live__'/0, '__components__'/0, mount/3, render/1, handle_event/3, handle_info/2, code_change/3]).
    -compile([nowarn_unused_function]).
    '__live__'() -> \#{kind => view, layout => false}.
    '__components__'() -> \#{}.
    mount(_, _, \#{assigns := A} = S) -> {ok, S\#{assigns := A\#{#{key} => 0}}}.
    handle_event({add, N}, _, \#{assigns := \#{#{key} := Sum} = A} = S) ->
        {noreply, S\#{assigns := A\#{#{key} := Sum + #{add}}}}.
    handle_info(look, S) -> {noreply, S}.
    #{more}
    render(\#{#{key} := Sum}) -> {print, #{if version == "1", do: "{sum, Sum}", else: "shown(Sum)"}, []}.
    code_change(_, \#{assigns := A} = S, _) -> {ok, S\#{assigns := (maps:remove(sum, A))\#{#{key} => maps:get(sum, A)}}}.
    """)
  end

  defp room(version, add, tell) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{version}").
    -behaviour('Elixir.Phoenix.Channel').
    -export(['__socket__'/1, join/3, handle_in/3, handle_info/2]).
    '__socket__'(private) -> \#{}.
    join(_, _, \#{assigns := A} = S) -> {ok, S\#{assigns := A\#{sum => 0}}}.
    handle_in({add, N}, _, \#{assigns := \#{sum := Sum} = A, transport_pid := Pid} = S) ->
        Pid ! {told, #{tell}}, {reply, ok, S\#{assigns := A\#{sum := Sum + #{add}}}}.
    handle_info(look, S) -> {noreply, S}.
    """)
  end

  # Plays what one gets that is connected, and gives what its browser was told.
  defp connected(kind, old, new, add, enough \\ each_found()) do
    Fake.load!()
    load(@module, old)
    pid = Fake.connect(kind, @module)

    {one, count} =
      under(
        fn n ->
          :ok = :gen_server.call(pid, {:event, {:add, rem(n, 6)}})
          send(pid, :look)
        end,
        fn -> replay!(old, new, with: Fake.unchanged(), enough: enough) end
      )

    assert {one.processes, one.left_aside, one.unheard} == {1, [], []}
    # It goes on as it was.
    sum = 1..count |> Enum.map(&add.(rem(&1 - 1, 6))) |> Enum.sum()
    assert %{assigns: %{sum: ^sum}} = :gen_server.call(pid, :socket)
    {one, count}
  end

  # What the browser was told, by the process itself and by nobody else.
  defp told(found \\ []) do
    receive do
      {:diff, _pid, text, _events} -> told([text | found])
      {:told, what} -> told([what | found])
    after
      0 -> found
    end
  end

  test "a LiveView is played, and what it shows is compared" do
    old = view("1", "sum", "N")
    shown = "shown(Sum) when Sum rem 2 =:= 0 -> {sum, Sum}; shown(Sum) -> {sum, Sum, odd}."
    new = view("2", "total", "100 div (5 - N) * 0 + N", shown)
    {one, count} = connected(:view, old, new, & &1)

    assert [%{reason: "badarith", message: "call {:event, {_, _}}"} = crash] = one.crashes
    assert crash.place =~ "handle_event/3"
    assert [%{what: :sent, from: from, to: to} | _] = one.differences
    assert {from, to} == {"send {:diff, pid, {_, _}, []}", "send {:diff, pid, {_, _, _}, []}"}
    assert one.same > 0
    # Mounted, and then for each message: nothing else was shown.
    shown = told()
    assert length(shown) == 2 * count + 1
    assert Enum.all?(shown, &match?({:sum, _sum}, &1))
  end

  test "a LiveView that will fail to render again is a crash, without a message" do
    old = view("1", "sum", "N")
    new = view("2", "total", "N", "shown(Sum) when is_atom(Sum) -> {sum, Sum}.")
    {one, count} = connected(:view, old, new, & &1, &(&1.crashes != []))

    assert %{reason: "no clause of the function takes it", place: place} =
             Enum.find(one.crashes, &(&1.message == "rendering again"))

    assert place =~ "shown/1"
    assert length(told()) == 2 * count + 1
  end

  test "a channel is played, and what it pushes is compared" do
    {old, new} = {room("1", "N", "N"), room("2", "100 div (5 - N) * 0 + N", "[N, Sum]")}
    {one, count} = connected(:channel, old, new, & &1)

    assert [%{reason: "badarith", message: "call {:event, {_, _}}"} = crash] = one.crashes
    assert crash.place =~ "handle_in/3"

    assert [%{what: :sent, from: "send {:told, integer}", to: "send {:told, [_]}"}] =
             one.differences

    assert one.same > 0
    assert length(told()) == count
  end

  @tag :slow
  test "nothing gets out of what a LiveView and a channel really receive, and nobody hears of it" do
    Fake.load!()
    modules = [view: HotPatch.Test.LeakingView, channel: HotPatch.Test.LeakingRoom]

    versions =
      for {kind, module} <- modules do
        [old, new] = for side <- [:old, :new], do: Leaks.compile(module, side, kind)
        load(module, old)
        {module, old, new}
      end

    file = Path.join(Builds.tmp(), "leaks_of_phoenix")
    _witness = Leaks.watch(file)
    assigns = Leaks.state(file)
    pids = for {kind, module} <- modules, do: Fake.connect(kind, module, assigns)
    # That would have another callback called, which their library has not.
    names = Enum.flat_map(Leaks.names() -- [:continue], &[&1, :send])

    on_exit(fn ->
      Leaks.unwatch()
      kill(pids)
      for {_kind, module} <- modules, do: unload(module)
    end)

    {job, how} = {job(versions), replay(versions ++ Fake.unchanged(), 3)}
    heard = Leaks.count(pids)

    all =
      until_all(
        names,
        fn name -> for pid <- pids, do: send(pid, {:attempt, name}) end,
        fn -> rehearse(job, replay: how) end
      )

    assert Leaks.marks(file) == []
    assert heard.() == 0
    for one <- all, do: assert({one.processes, one.crashes} == {1, []})

    for {_kind, module} <- modules do
      theirs = Enum.filter(all, &(&1.module == inspect(module)))
      assert Enum.any?(Enum.flat_map(theirs, & &1.differences), &(&1.what == :sent))
      assert length(Enum.flat_map(theirs, & &1.left_aside)) > 3
    end
  end

  test "a gen_statem is played with its state and its data" do
    statem = fn version, open, code_change ->
      Builds.erlang("""
      -module(#{@module}).
      -vsn("#{version}").
      -behaviour(gen_statem).
      -export([init/1, callback_mode/0, open/3, full/3, code_change/4]).
      init(Data) -> {ok, open, Data}.
      callback_mode() -> [state_functions, state_enter].
      open(enter, _, _) -> keep_state_and_data;
      #{open}
      open({call, From}, seize, Data) -> {next_state, full, Data, [{reply, From, {seized, 1}}, {next_event, internal, more}]};
      open(info, _, _) -> keep_state_and_data.
      full(enter, open, _) -> keep_state_and_data;
      full(internal, more, _) -> keep_state_and_data;
      full({call, From}, free, Data) -> {next_state, open, Data, {reply, From, ok}}.
      code_change(_, State, Data, _) -> #{code_change}.
      """)
    end

    old = statem.("1", "", "{ok, State, Data}")
    # The new one forgets that it is full.
    new =
      statem.(
        "2",
        "open({call, From}, seize, \#{n := N} = Data) -> {keep_state, Data, {reply, From, {seized, N}}};\n" <>
          "open({call, From}, free, Data) -> {keep_state, Data, {reply, From, ok}};",
        "{ok, State, \#{n => Data}}"
      )

    load(@module, old)
    {:ok, pid} = :gen_statem.start(@module, 1, [])
    on_exit(fn -> kill([pid]) end)

    {one, _count} =
      under(
        fn _n ->
          {:seized, 1} = :gen_statem.call(pid, :seize)
          :ok = :gen_statem.call(pid, :free)
        end,
        fn -> replay!(old, new, enough: &match?([_, _], &1.differences)) end
      )

    assert one.crashes == [] and one.left_aside == []
    assert [_, _] = one.differences

    assert %{what: :state, from: ":full, integer as before", to: "%{n} as before"} =
             Enum.find(one.differences, &(&1.message == "call :seize"))
  end
end
