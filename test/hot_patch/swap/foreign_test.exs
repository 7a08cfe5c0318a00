defmodule HotPatch.Swap.ForeignTest do
  use ExUnit.Case, async: false

  # Servers in the loops of behaviours that are not OTP's: those that Debian has (p1_utils, RabbitMQ's
  # gen_server2), and one made for this test with the habits of gen_server2.

  import HotPatch.Test.Servers, except: [server: 2, server: 3]
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Foreign
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Loops

  @module :hot_patch_test_employee
  @other :hot_patch_test_other_employee
  @own :hot_patch_test_behaviour

  # The loop, the library that it is from, and the callbacks of which kind it takes.
  @loops [
    {@own, nil, :server},
    {:gen_server2, "rabbit_common", :server},
    {:p1_server, "p1_utils", :server},
    {:p1_fsm, "p1_utils", :fsm}
  ]

  setup context do
    on_exit(fn -> Enum.each([@module, @other, @own], &unload/1) end)

    case context[:loop] do
      nil ->
        :ok

      {loop, library, kind} ->
        if library, do: Code.append_path(Loops.ebin(library)), else: load(@own, Loops.own(@own))
        {:module, ^loop} = Code.ensure_loaded(loop)
        v1 = beam(kind, @module, "v1")
        load(@module, v1)
        pids = for n <- 1..3, do: start(loop, @module, n)
        %{loop: loop, kind: kind, v1: v1, pids: pids}
    end
  end

  for {loop, library, kind} <- @loops do
    @missing library != nil and Loops.ebin(library) == nil
    describe "#{loop}" do
      @describetag loop: {loop, library, kind}
      @describetag skip: if(@missing, do: "#{library} is not here", else: false)

      test "is found, converts what its code_change gets, and goes on", context do
        %{pids: pids, v1: v1, kind: kind, loop: loop} = context
        v2 = beam(kind, @module, "v2")
        job = job([{@module, v1, v2}])
        assert %{targets: targets, unpaused: [], silent: []} = Swap.find(job.changes)
        assert Enum.sort(Enum.map(targets, & &1.pid)) == Enum.sort(pids)
        assert Enum.all?(targets, &match?(%{kind: :foreign, rule: :loop, loop: ^loop}, &1))

        if Foreign.open?(loop) do
          assert {:ok, %{modules: [tried]}} = rehearse(job)
          assert %{kind: :foreign, tried: 3, failures: [], left_out: []} = tried
          assert shown(loop, pids) == [v1: 1, v1: 2, v1: 3]
        end

        assert {:ok, %{suspended: 3}} = run(job)
        assert shown(loop, pids) == [v2: 1, v2: 2, v2: 3]

        # A second one, and the way back of both.
        v3 = beam(kind, @module, "v3")
        assert {:ok, %{suspended: 3}} = run(job([{@module, v2, v3}]))
        assert shown(loop, pids) == [v3: 1, v3: 2, v3: 3]
        assert {:ok, %{suspended: 3}} = run(down(@module, v3, v2))
        assert {:ok, %{suspended: 3}} = run(down(@module, v2, v1))
        assert shown(loop, pids) == [v1: 1, v1: 2, v1: 3]
      end

      test "goes back to code and states where one code_change fails", context do
        %{pids: pids, v1: v1, kind: kind, loop: loop} = context
        on_disk(@module, v1)
        failing = beam(kind, @module, "v2", "case N of 2 -> error(refused); _ -> ok end")
        assert {:error, %{reason: :taken_back, text: text}} = run(job([{@module, v1, failing}]))
        assert text =~ "refused"
        assert @module.module_info(:attributes)[:vsn] == [:v1]
        assert shown(loop, pids) == [v1: 1, v1: 2, v1: 3]
        assert Enum.all?(pids, &goes_on?/1)
        for pid <- pids, do: assert(dictionary(pid) == [])
      end

      test "and where it cannot be tried beforehand", context do
        %{pids: pids, v1: v1, kind: kind, loop: loop} = context
        on_disk(@module, v1)
        failing = beam(kind, @module, "v2", "case N of 2 -> error(refused); _ -> ok end")
        job = job([{@module, v1, failing}], shadows: false)
        assert {:error, %{reason: :taken_back}} = run(job)
        assert shown(loop, pids) == [v1: 1, v1: 2, v1: 3]

        v2 = beam(kind, @module, "v2")
        assert {:ok, _} = run(job([{@module, v1, v2}], shadows: false))
        assert shown(loop, pids) == [v2: 1, v2: 2, v2: 3]
      end

      test "that is busy for too long goes on as before", context do
        %{pids: [busy | _] = pids, v1: v1, kind: kind, loop: loop} = context
        job = job([{@module, v1, beam(kind, @module, "v2")}], pause_timeout: 100)
        assert {:ok, ready} = Swap.prepare(job)
        test = self()
        caller = spawn(fn -> block(loop, busy, test) end)
        on_exit(fn -> kill([caller]) end)
        assert_receive {:blocked, ^busy}
        assert {:error, %{reason: :busy}} = Swap.run(ready)
        send(busy, :go)
        assert shown(loop, pids) == [v1: 1, v1: 2, v1: 3]
        assert {:ok, _} = run(job([{@module, v1, beam(kind, @module, "v2")}]))
        assert shown(loop, pids) == [v2: 1, v2: 2, v2: 3]
      end

      test "is found while it hibernates", context do
        %{pids: [asleep | _] = pids, v1: v1, kind: kind, loop: loop} = context
        :ok = sleep(loop, asleep)
        until(fn -> Stacktrace.hibernates?(asleep) end, "it hibernates")
        assert {:ok, %{suspended: 3}} = run(job([{@module, v1, beam(kind, @module, "v2")}]))
        assert shown(loop, pids) == [v2: 1, v2: 2, v2: 3]
      end

      test "goes on when the engine dies", context do
        %{pids: pids, v1: v1, kind: kind, loop: loop} = context
        job = job([{@module, v1, beam(kind, @module, "v2")}], hold_timeout: 60_000)
        held = fn engine -> Process.exit(engine, :kill) end
        assert {:error, %{reason: :engine_died}} = run(job, held)
        assert shown(loop, pids) == [v1: 1, v1: 2, v1: 3]
      end

      test "changes in its turn, too", context do
        %{pids: pids, v1: v1, kind: kind, loop: loop} = context
        v2 = beam(kind, @module, "v2")
        assert {:ok, _} = run(job([{@module, v1, v2}], transition: :compatible))
        assert shown(loop, pids) == [v2: 1, v2: 2, v2: 3]
      end

      test "of another module is none of ours", %{v1: v1, kind: kind, loop: loop} do
        load(@other, beam(kind, @other, "v1"))
        other = start(loop, @other, @module)
        job = job([{@module, v1, beam(kind, @module, "v2")}])
        assert %{targets: targets} = Swap.find(job.changes)
        assert length(targets) == 3
        assert {:ok, %{suspended: 3}} = run(job)
        assert shown(loop, [other]) == [v1: @module]
      end
    end
  end

  for {loop, library, kind} <- @loops, loop in [@own, :gen_server2] do
    @tag loop: {loop, library, kind}
    @tag skip: if(library != nil and Loops.ebin(library) == nil, do: "not here", else: false)
    test "#{loop} is found by the module that it has become", context do
      %{loop: loop, kind: kind, v1: v1} = context
      other = beam(kind, @other, "v1")
      load(@other, other)
      pid = start(loop, @other, 7)
      :ok = loop.call(pid, {:become, @module})
      assert shown(loop, [pid]) == [v1: 7]

      assert {:ok, %{suspended: 0}} = run(job([{@other, other, beam(kind, @other, "v2")}]))
      assert {:ok, %{suspended: 4}} = run(job([{@module, v1, beam(kind, @module, "v2")}]))
      assert shown(loop, [pid]) == [v2: 7]
    end
  end

  @tag loop: {@own, nil, :server}
  test "what the loop makes of its module by itself is made of the new one", context do
    %{loop: loop, v1: v1, pids: [pid | _]} = context
    assert loop.call(pid, :priority) == 0
    more = "-export([priority/0]).\npriority() -> 7."
    assert {:ok, _} = run(job([{@module, v1, beam(:server, @module, "v2", "ok", more)}]))
    assert loop.call(pid, :priority) == 7
  end

  @tag loop: {@own, nil, :server}
  test "what finds out how a loop's term is made runs nothing of the user's", context do
    %{loop: loop} = context
    trap = beam(:server, @module, "v2", "exit(called)")
    load(@module, trap)
    term = {:own, self(), @module, {@module, @other}, @module, nil}
    assert {:ok, form} = Foreign.form(term, loop, @module)
    assert %{module: [5], state: [[4]], parts: [{@module, @other}], plain?: false} = form
    assert Foreign.works_for(term, loop, [@other, @module]) == @module
    # Somebody else's, that has our names in its state.
    load(@other, beam(:server, @other, "v1", "exit(called)"))
    term = {:own, self(), @module, {@module, 1}, @other, nil}
    assert Foreign.form(term, loop, @module) == :unknown
    assert Foreign.works_for(term, loop, [@module]) == nil
    assert Foreign.form(:no_term, loop, @module) == :unknown
  end

  defp shown(loop, pids), do: for(pid <- pids, do: state(loop, pid))

  defp state(:p1_fsm, pid) do
    {name, data} = apply(:p1_fsm, :sync_send_all_state_event, [pid, :get])
    assert name == :on
    data
  end

  defp state(loop, pid), do: loop.call(pid, :get)

  defp sleep(:p1_fsm, pid), do: apply(:p1_fsm, :sync_send_all_state_event, [pid, :sleep])
  defp sleep(loop, pid), do: loop.call(pid, :sleep)

  defp block(:p1_fsm, pid, test),
    do: apply(:p1_fsm, :sync_send_all_state_event, [pid, {:block, test}, :infinity])

  defp block(loop, pid, test), do: loop.call(pid, {:block, test}, :infinity)

  defp dictionary(pid) do
    {:dictionary, dictionary} = Process.info(pid, :dictionary)
    for {key, _} <- dictionary, String.starts_with?("#{inspect(key)}", ":\"$hot_patch"), do: key
  end

  defp start(loop, module, n) do
    {:ok, pid} = loop.start(module, n, [])
    on_exit(fn -> kill([pid]) end)
    waits? = fn -> match?({:status, :waiting}, Process.info(pid, :status)) end
    until(waits?, "it waits in its loop")
    pid
  end

  # The way down, which the code that runs knows.
  defp down(module, from, to) do
    job = job([{module, from, to}])
    [%{old_vsn: _} = change] = job.changes
    {:ok, {_module, vsn}} = :beam_lib.version(to)

    back = %{
      change
      | direction: :down,
        old_vsn: {:down, vsn},
        exports: exports(from),
        arriving: exports(to)
    }

    %{job | changes: [back]}
  end

  # What its code_change does first is tried with N. Down it goes to the version that it is told.
  defp beam(kind, module, v, first \\ "ok", more \\ "")

  defp beam(:server, module, v, first, more) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{v}).
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).
    #{more}
    init(N) -> {ok, {#{v}, N}}.
    handle_call({become, M}, {Pid, Tag}, {#{v}, N}) -> _ = Pid ! {Tag, ok}, {become, M, {#{v}, N}};
    handle_call({block, Pid}, _From, S) -> Pid ! {blocked, self()}, receive go -> ok end, {reply, ok, S};
    handle_call(sleep, _From, S) -> {reply, ok, S, hibernate};
    handle_call(get, _From, {#{v}, _} = S) -> {reply, S, S}.
    handle_cast(_, S) -> {noreply, S}.
    handle_info(_, S) -> {noreply, S}.
    terminate(_, _) -> ok.
    code_change({down, [Vsn]}, {#{v}, N}, _Extra) -> {ok, {Vsn, N}};
    code_change([_Vsn], {_, N}, _Extra) -> _ = N, #{first}, {ok, {#{v}, N}}.
    """)
  end

  defp beam(:fsm, module, v, first, _more) do
    Builds.erlang("""
    -module(#{module}).
    -vsn(#{v}).
    -export([init/1, on/2, handle_event/3, handle_sync_event/4, handle_info/3, terminate/3, code_change/4]).
    init(N) -> {ok, on, {#{v}, N}}.
    on(_, S) -> {next_state, on, S}.
    handle_event(_, Name, S) -> {next_state, Name, S}.
    handle_sync_event({block, Pid}, _From, Name, S) ->
        Pid ! {blocked, self()}, receive go -> ok end, {reply, ok, Name, S};
    handle_sync_event(sleep, _From, Name, S) -> {reply, ok, Name, S, hibernate};
    handle_sync_event(get, _From, Name, {#{v}, _} = S) -> {reply, {Name, S}, Name, S}.
    handle_info(_, Name, S) -> {next_state, Name, S}.
    terminate(_, _, _) -> ok.
    code_change({down, [Vsn]}, on, {#{v}, N}, _Extra) -> {ok, on, {Vsn, N}};
    code_change([_Vsn], on, {_, N}, _Extra) -> _ = N, #{first}, {ok, on, {#{v}, N}}.
    """)
  end
end
