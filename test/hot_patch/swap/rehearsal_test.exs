defmodule HotPatch.Swap.RehearsalTest do
  # A swap is tried on the states that there are: nobody notices, nothing stays, and no value gets out.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Rehearsal.ModuleResult
  alias HotPatch.Swap.Rehearsal
  alias HotPatch.Swap.Rehearsal.Tally
  alias HotPatch.Test.Builds

  doctest HotPatch.Analysis.Effects
  doctest HotPatch.Rehearsal.Outcome
  doctest HotPatch.Rehearsal.Replay
  doctest HotPatch.Rehearsal.Form
  doctest HotPatch.Rehearsal.Reason

  @module :hot_patch_test_rehearsed
  @shadow :hot_patch_test_rehearsed@hot_patch
  @new :hot_patch_test_rehearsed_new
  @compile {:no_warn_undefined, @new}

  setup do
    v1 = server(@module, "v1")
    load(@module, v1)
    on_exit(fn -> Enum.each([@module, @new], &unload/1) end)
    %{v1: v1}
  end

  defp start(count) do
    pids = for n <- 1..count, do: elem(:gen_server.start(@module, n, []), 1)
    on_exit(fn -> kill(pids) end)
    pids
  end

  defp rehearse!(versions, more \\ []) do
    assert {:ok, found} = rehearse(job(versions), more)
    found
  end

  defp tried(v1, code_change, more \\ []),
    do: rehearse!([{@module, v1, server(@module, "v2", code_change)}], more)

  # All that a process has, but for what it has done.
  defp seen(pid) do
    Process.info(pid, [:dictionary, :links, :monitors, :monitored_by, :message_queue_len, :status])
  end

  defp nothing_left do
    refute :erlang.module_loaded(@shadow)
    refute :erlang.module_loaded(@new)
    assert Process.whereis(Rehearsal) == nil
  end

  # More than are looked at at once.
  test "every state is tried, and nothing is another afterwards", %{v1: v1} do
    pids = start(700)
    before = Enum.map(pids, &seen/1)
    found = tried(v1, ~S"{ok, #{vsn => VERSION, count => Count}}")

    assert [%ModuleResult{kind: :server, processes: 700, tried: 700, left_out: []} = one] =
             found.modules

    assert one.forms == [%{from: "{_, _}", to: "%{count, vsn}", count: 700}]
    assert ModuleResult.outcome(one) == :ok
    assert found.suspended == 700
    assert found.pause_us >= found.wait_us
    # A map of two keys, 700 times.
    assert found.memory_bytes >= 700 * 4 * 8
    assert found.late == []

    assert Enum.map(pids, &seen/1) == before
    for {pid, n} <- Enum.zip(pids, 1..700), do: assert(:gen_server.call(pid, :get) == {:v1, n})
    nothing_left()
  end

  test "a sample is spread over all of them", %{v1: v1} do
    start(100)

    assert [%{processes: 100, tried: 7} = one] =
             tried(v1, "{ok, {VERSION, Count}}", sample: 7).modules

    assert ModuleResult.outcome(one) == :ok
  end

  test "what fails is told with its place and its form, and without any value", %{v1: v1} do
    [_first | _] = pids = start(6)

    change = """
    case Count of
        1 -> error({secret, Count});
        2 -> {error, hidden};
        3 -> maps:get(zone, \#{secret => Count});
        4 -> exit({hidden, Count});
        5 -> throw(hidden);
        _ -> {ok, {VERSION, Count}}
    end
    """

    assert [%{tried: 6, failures: failures} = one] = tried(v1, change).modules
    assert ModuleResult.outcome(one) == :failed
    text = inspect(failures)
    for value <- ["hidden", ", 1", "secret =>"], do: refute(text =~ value)

    reasons = for failure <- failures, do: {failure.reason, hd(failure.processes)}
    pid = &inspect(Enum.at(pids, &1 - 1))
    assert {"secret integer", pid.(1)} in reasons
    assert {"it gives {:error, atom}, and no new state", pid.(2)} in reasons

    assert {"badkey atom", pid.(3)} in reasons or
             {"KeyError: no key zone in %{secret}", pid.(3)} in reasons

    assert {"exit {_, _}", pid.(4)} in reasons
    assert {"throw atom", pid.(5)} in reasons

    place = Enum.find(failures, &(&1.reason == "secret integer")).place
    assert place =~ "#{inspect(@module)}.code_change/3"
    refute place =~ "hot_patch\""
    for {pid, n} <- Enum.zip(pids, 1..6), do: assert(:gen_server.call(pid, :get) == {:v1, n})
  end

  test "a code_change that never ends does so only here", %{v1: v1} do
    [pid, other] = start(2)
    change = "case Count of 1 -> F = fun(G) -> G(G) end, F(F); _ -> {ok, {VERSION, Count}} end"
    assert [%{failures: [failure]} = one] = tried(v1, change, within: 300).modules
    assert failure.reason == "it takes longer than 300 ms"
    assert failure.processes == [inspect(pid)]
    assert one.forms == [%{from: "{_, _}", to: "{_, _}", count: 1}]
    assert :gen_server.call(pid, :get) == {:v1, 1}
    assert :gen_server.call(other, :get) == {:v1, 2}
    nothing_left()
  end

  test "one that takes all memory ends by its limit, and no process of the system", %{v1: v1} do
    [pid] = start(1)
    change = "{ok, {VERSION, Count, lists:seq(1, 100000000)}}"
    assert [%{tried: 0, left_out: [left]} = one] = tried(v1, change).modules
    assert %{why: :too_much_memory, count: 1} = left
    assert ModuleResult.outcome(one) == :incomplete
    assert :gen_server.call(pid, :get) == {:v1, 1}
  end

  test "a state that is too large is not copied", %{v1: v1} do
    [_small, large] = start(2)
    :sys.replace_state(large, fn {vsn, _count} -> {vsn, Enum.to_list(1..10_000)} end)
    found = tried(v1, "{ok, {VERSION, Count}}", most_bytes: 10_000)
    assert [%{tried: 1, left_out: [%{why: :too_large, count: 1}]}] = found.modules
  end

  test "who is busy would be late, and it is said with what", %{v1: v1} do
    [busy, _idle] = start(2)
    test = self()
    caller = spawn(fn -> :gen_server.call(busy, {:block, test}, :infinity) end)
    assert_receive {:blocked, ^busy}
    on_exit(fn -> kill([caller]) end)

    found = tried(v1, "{ok, {VERSION, Count}}", within: 200)
    assert [%{tried: 1, left_out: [%{why: :late, count: 1}]}] = found.modules
    assert [line] = found.late
    assert line =~ inspect(busy) and line =~ "handle_call/3"

    # What it gets to later is over, and does nothing.
    send(busy, :go)
    assert :gen_server.call(busy, :get) == {:v1, 1}
    refute_received {[[:alias | _] | _], _}
  end

  test "a table of the process' own is no fault of the code", %{v1: v1} do
    [pid] = start(1)

    :sys.replace_state(pid, fn {vsn, _count} ->
      {vsn, :ets.new(:hot_patch_test_own, [:private])}
    end)

    assert [%{failures: [], left_out: [%{why: :own_table}]}] =
             tried(v1, "{ok, {VERSION, ets:lookup(Count, a)}}").modules
  end

  test "a callback that has effects is not called", %{v1: v1} do
    start(3)
    change = "persistent_term:put(#{@module}, 1), {ok, {VERSION, Count}}"
    assert [%{tried: 0, left_out: [left]}] = tried(v1, change, without: [@module]).modules
    assert %{why: :effects, count: 3} = left
    assert :persistent_term.get(@module, nil) == nil
  end

  test "it stops when it is told to, and when nobody wants it any more", %{v1: v1} do
    [busy | _] = start(50)
    test = self()
    caller = spawn(fn -> :gen_server.call(busy, {:block, test}, :infinity) end)
    assert_receive {:blocked, ^busy}
    on_exit(fn -> kill([caller]) end)
    job = job([{@module, v1, server(@module, "v2")}])

    for stop <- [fn _owner -> Rehearsal.stop(60_000) end, &(Process.exit(&1, :kill) && :ok)] do
      owner = spawn(fn -> receive(do: (:never -> :ok)) end)
      running = Task.async(fn -> rehearse(job, owner: owner) end)
      until(fn -> :erlang.module_loaded(@shadow) end, "it has begun")
      assert stop.(owner) == :ok
      assert {:ok, %{modules: [%{left_out: [left]}]}} = Task.await(running, 120_000)
      assert left.why == :out_of_time
      nothing_left()
      Process.exit(owner, :kill)
    end

    assert Rehearsal.stop(1) == :ok
  end

  test "what it has loaded is gone also when its engine is killed", %{v1: v1} do
    [busy] = start(1)
    test = self()
    caller = spawn(fn -> :gen_server.call(busy, {:block, test}, :infinity) end)
    assert_receive {:blocked, ^busy}
    on_exit(fn -> kill([caller]) end)
    job = job([{@new, nil, Builds.versioned(@new, 1)}, {@module, v1, server(@module, "v2")}])

    running = Task.async(fn -> rehearse(job) end)
    until(fn -> :erlang.module_loaded(@new) end, "it has begun")
    # One at a time.
    assert {:error, "another rehearsal" <> _} = rehearse(job)
    guard = Process.whereis(Rehearsal)
    {:monitors, [process: engine]} = Process.info(guard, :monitors)
    Process.exit(engine, :kill)
    assert {:error, "the rehearsal died" <> _} = Task.await(running, 120_000)
    nothing_left()
  end

  test "one that can have no copy is not tried, and no code of before is called for it" do
    v1 = server(@module, "v1", "persistent_term:put(#{@module}, called), {ok, {VERSION, Count}}")
    load(@module, v1)
    start(2)
    job = job([{@module, v1, server(@module, "v2")}], shadows: false)
    assert {:ok, %{modules: [%{tried: 0, left_out: [left]}]}} = rehearse(job)
    assert %{why: :no_copy, count: 2} = left
    assert :persistent_term.get(@module, nil) == nil
  end

  test "where no state is converted there is nothing to try", %{v1: v1} do
    start(2)
    job = job([{@module, v1, server(@module, "v2", "error(no)")}], transition: :none)
    assert {:ok, %{modules: [], suspended: 0, pause_us: 0}} = rehearse(job)
  end

  test "it is refused what the swap would be", %{v1: v1} do
    [pid] = start(1)

    gone =
      Builds.erlang("""
      -module(#{@module}).
      -export([code_change/3]).
      code_change(_, State, _) -> {ok, State}.
      """)

    assert {:error, text} = rehearse(job([{@module, v1, gone}]))
    assert text =~ "1 process would die" and text =~ inspect(pid)
    nothing_left()
  end

  describe "other behaviours" do
    test "a gen_statem is tried with its data" do
      v1 = statem(@module, "v1")
      load(@module, v1)
      {:ok, pid} = :gen_statem.start(@module, 7, [])
      on_exit(fn -> kill([pid]) end)
      v2 = statem(@module, "v2", ~S"{ok, State, #{n => N}}")
      assert [%{kind: :statem, tried: 1} = one] = rehearse!([{@module, v1, v2}]).modules
      assert one.forms == [%{from: "{_, _}", to: "%{n}", count: 1}]
      assert {:on, {:v1, 7}} = :sys.get_state(pid)
    end

    test "an event manager tries each of its handlers" do
      v1 = handler(@module, "v1")
      load(@module, v1)
      {:ok, pid} = :gen_event.start()
      on_exit(fn -> kill([pid]) end)
      for id <- [1, 2, 3], do: :ok = :gen_event.add_handler(pid, {@module, id}, id)
      v2 = handler(@module, "v2", "case N of 2 -> error(no); _ -> {ok, [N]} end")

      assert [%{kind: :event, tried: 3} = one] = rehearse!([{@module, v1, v2}]).modules
      assert one.forms == [%{from: "{_, _}", to: "[_]", count: 2}]
      assert [%{reason: "no", count: 1}] = one.failures
      states = for {_module, _id, state} <- :sys.get_state(pid), do: state
      assert Enum.sort(states) == [v1: 1, v1: 2, v1: 3]
    end

    test "the init of a supervisor is asked, with the modules there that are new" do
      supervisor = fn version, specs ->
        Builds.erlang("""
        -module(#{@module}).
        -vsn("#{version}").
        -behaviour(supervisor).
        -export([init/1]).
        init(_) -> {ok, {{one_for_one, 1, 5}, #{specs}}}.
        """)
      end

      v1 = supervisor.("v1", "[]")
      load(@module, v1)
      {:ok, pid} = :supervisor.start_link(@module, [])
      Process.unlink(pid)
      on_exit(fn -> kill([pid]) end)

      new =
        Builds.erlang("""
        -module(#{@new}).
        -export([spec/0]).
        spec() -> {child, {#{@new}, start, []}, permanent, 10, worker, []}.
        """)

      for {specs, wanted} <- [
            # Its name is no literal, so that no copy leads there.
            {"[(list_to_atom(\"#{@new}\")):spec()]", []},
            {"[no_spec]", ["it gives {:error, {_, _}}, and no new state"]}
          ] do
        v2 = supervisor.("v2", specs)
        assert [one] = rehearse!([{@new, nil, new}, {@module, v1, v2}]).modules
        assert %{kind: :supervisor, tried: 1} = one
        # That the same ones come again is not known of it.
        assert Enum.map(one.forms, & &1.to) ==
                 if(wanted == [], do: ["those of its new init"], else: [])

        assert Enum.map(one.failures, & &1.reason) == wanted
        nothing_left()
      end

      assert :supervisor.which_children(pid) == []
    end
  end

  describe "a tally" do
    test "takes those that were not tried to be as those that were" do
      made = &{:made, %{us: &1, words: 10, from: "{_}", to: "[_]"}}
      word = :erlang.system_info(:wordsize)

      for {processes, results, suspended, wait_us, schedulers, wanted} <- [
            {0, [], 0, 0, 2, {0, 0}},
            {4, [made.(100), made.(300)], 4, 0, 2, {4 * 6 + 400, 40 * word}},
            # The longest takes its time, on however many schedulers.
            {2, [made.(100), made.(900)], 2, 50, 8, {50 + 12 + 900, 20 * word}},
            # Nobody pauses: there is no pause.
            {2, [made.(100), made.(900)], 0, 50, 8, {0, 20 * word}},
            {3, [{:failed, %{us: 30, reason: "no", place: nil}}], 3, 0, 1, {18 + 90, 0}}
          ] do
        tally =
          [{:m, :server, processes}]
          |> Tally.new()
          |> Tally.waited(System.convert_time_unit(wait_us, :microsecond, :native))

        tally = Enum.reduce(results, tally, &Tally.add(&2, :m, &1, self()))
        figures = Tally.figures(tally, suspended, schedulers)
        assert {figures.pause_us, figures.memory_bytes} == wanted
      end
    end

    test "puts failures together that are alike" do
      failed = fn reason -> {:failed, %{us: 1, reason: reason, place: "m.erl:1"}} end

      tally =
        for reason <- List.duplicate("no", 9) ++ ["never"],
            reduce: Tally.new([{:m, :server, 10}]) do
          tally -> Tally.add(tally, :m, failed.(reason), self())
        end

      assert [%{tried: 10, failures: [never, no]}] = Tally.results(tally)
      assert {never.reason, never.count, no.reason, no.count} == {"never", 1, "no", 9}
      assert length(no.processes) == 5
    end

    test "leaves out what cannot or shall not be tried" do
      conversion = %{kind: :server}

      # Also where they are of two groups.
      works = fn count, conversion ->
        for pids <- [1..1//1, 2..count//1] do
          pids = Enum.map(pids, fn _ -> make_ref() end)
          %{kind: :server, modules: [{:m, conversion}], pids: pids}
        end
      end

      for {how, works, tried, left} <- [
            {[], works.(4, conversion), 4, %{}},
            {[sample: 3], works.(4, conversion), 3, %{}},
            {[sample: 9], works.(4, conversion), 4, %{}},
            {[], works.(2, conversion) ++ works.(3, nil), 2, %{no_copy: 3}},
            {[without: [:m]], works.(4, conversion), 0, %{effects: 4}}
          ] do
        {tally, chosen} = Tally.begin(works, Enum.into(how, %{sample: nil, without: []}))
        assert chosen |> Enum.flat_map(&elem(&1, 1)) |> length() == tried
        assert [result] = Tally.results(tally)
        assert Map.new(result.left_out, &{&1.why, &1.count}) == left
      end
    end
  end
end
