defmodule HotPatch.Swap.KeptFramesTest do
  # A connection's process as RabbitMQ's rabbit_reader is one: it speaks the system messages, and its
  # loop was entered inside two functions that wait for its end with a `try`; it waits for messages in a
  # function of another module.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @reader :hot_patch_test_reader
  @net :hot_patch_test_net

  setup do
    net =
      Builds.erlang("""
      -module(#{@net}).
      -export([recv/1]).
      recv(_Socket) -> receive Message -> Message end.
      """)

    load(@net, net)
    on_exit(fn -> Enum.each([@reader, @net], &unload/1) end)
    [v1, v2, v3] = Enum.map([:v1, :v2, :v3], &reader/1)
    load(@reader, v1)
    %{v1: v1, v2: v2, v3: v3}
  end

  defp reader(version) do
    Builds.erlang("""
    -module(#{@reader}).
    -vsn("#{version}").
    -export([start_link/1, init/2, mainloop/3, system_continue/3, system_terminate/4, system_code_change/4]).
    start_link(N) -> {ok, proc_lib:spawn_link(#{@reader}, init, [self(), N])}.
    init(Parent, N) -> start_connection(Parent, sys:debug_options([]), N).
    start_connection(Parent, Deb, N) ->
        try run({#{@reader}, mainloop, [Parent, Deb, {#{version}, N}]}), log(ended)
        catch Class:Reason -> log({Class, Reason})
        after log(closed) end, ok.
    run({M, F, A}) -> try apply(M, F, A) catch {become, MFA} -> run(MFA) end.
    log(_) -> ok.
    mainloop(Parent, Deb, {#{version}, N} = State) ->
        case #{@net}:recv(socket) of
            {system, From, Request} -> sys:handle_system_msg(Request, From, Parent, #{@reader}, Deb, State);
            {get, From} -> From ! {self(), State}, mainloop(Parent, Deb, State);
            {add, From} -> From ! {self(), N + 1}, mainloop(Parent, Deb, {#{version}, N + 1});
            close -> ok
        end.
    system_continue(Parent, Deb, State) -> mainloop(Parent, Deb, State).
    system_terminate(Reason, _Parent, _Deb, _State) -> exit(Reason).
    system_code_change({_, N}, _Module, _OldVsn, _Extra) -> {ok, {#{version}, N}}.
    """)
  end

  defp ask(pid, what) do
    send(pid, {what, self()})
    assert_receive {^pid, answer}
    answer
  end

  defp start(n) do
    {:ok, pid} = apply(@reader, :start_link, [n])
    Process.unlink(pid)
    on_exit(fn -> kill([pid]) end)
    pid
  end

  defp plan(job) do
    %{targets: targets} = Swap.find(job.changes)
    Swap.kept_frames(job.changes, targets)
  end

  test "the plan says that it cannot be taken back, and it cannot until they are gone", context do
    %{v1: v1, v2: v2, v3: v3} = context
    pids = [one, two] = [start(1), start(2)]

    until(
      fn -> Enum.all?(pids, &(Process.info(&1, :status) == {:status, :waiting})) end,
      "both wait"
    )

    assert [%{message: line, processes: named}] = plan(job([{@reader, v1, v2}]))
    assert Enum.sort(named) == Enum.sort(Enum.map(pids, &inspect/1))
    assert line =~ "2 processes"
    assert line =~ "run/1 < :#{@reader}.start_connection/3"
    assert line =~ "this change cannot be taken back"

    # Taken back before the load nothing is left of it.
    held = job([{@reader, v1, v2}], hold_timeout: 5_000)
    assert {:error, %{loaded?: false}} = run(held, &Swap.decide(&1, {:take_back, "no"}))
    assert ask(one, :add) == 2

    assert {:ok, %{suspended: 2}} = run(job([{@reader, v1, v2}]))
    assert {ask(one, :get), ask(two, :get)} == {{:v2, 2}, {:v2, 2}}

    assert Enum.sort(pids) ==
             Enum.sort(for %{pid: pid} <- Swap.stragglers([@reader], []), do: pid)

    # Neither back nor on; callers are served.
    for {from, to} <- [{v2, v1}, {v2, v3}] do
      assert {:error, %{reason: :old_code, text: text}} = run(job([{@reader, from, to}]))
      assert text =~ inspect(one) or text =~ inspect(two)
    end

    assert ask(one, :add) == 3

    # Who is started now has no such frame.
    three = start(3)
    for pid <- pids, do: send(pid, :close)
    until(fn -> not Enum.any?(pids, &Process.alive?/1) end, "they are closed")
    assert [] == Swap.stragglers([@reader], [])
    assert {:ok, _done} = run(job([{@reader, v2, v1}]))
    assert ask(three, :get) == {:v1, 3}
  end

  test "a server that entered its loop inside a function of the module", _context do
    text = fn version ->
      Builds.erlang("""
      -module(#{@reader}).
      -vsn("#{version}").
      -behaviour(gen_server).
      -export([enter/1, init/1, handle_call/3, handle_cast/2, code_change/3]).
      enter(N) -> try gen_server:enter_loop(#{@reader}, [], {#{version}, N}) after ok end.
      init(N) -> {ok, {#{version}, N}}.
      handle_call(get, _From, {#{version}, _} = State) -> {reply, State, State}.
      handle_cast(_, State) -> {noreply, State}.
      code_change(_, {_, N}, _) -> {ok, {#{version}, N}}.
      """)
    end

    [v1, v2] = Enum.map([:v1, :v2], text)
    unload(@reader)
    load(@reader, v1)
    inside = :proc_lib.spawn(@reader, :enter, [1])
    {:ok, usual} = :gen_server.start(@reader, 2, [])
    on_exit(fn -> kill([inside, usual]) end)
    assert :gen_server.call(inside, :get) == {:v1, 1}

    assert [%{message: line, processes: named}] = plan(job([{@reader, v1, v2}]))
    assert named == [inspect(inside)]
    assert line =~ "1 process entered the loop"
    assert line =~ "enter/1"
    assert {:ok, _done} = run(job([{@reader, v1, v2}]))
    assert :gen_server.call(inside, :get) == {:v2, 1}
    assert {:error, %{reason: :old_code}} = run(job([{@reader, v2, v1}]))
  end

  test "a loop that keeps no frame, and one that is written by hand", context do
    load(:hot_patch_test_plain, v1 = server(:hot_patch_test_plain, "v1"))
    on_exit(fn -> unload(:hot_patch_test_plain) end)
    v2 = server(:hot_patch_test_plain, "v2")
    {:ok, pid} = :gen_server.start(:hot_patch_test_plain, 1, [])
    by_hand = spawn(:hot_patch_test_plain, :spin, [])
    on_exit(fn -> kill([pid, by_hand]) end)
    until(fn -> Process.info(by_hand, :status) == {:status, :waiting} end, "it waits")
    job = job([{:hot_patch_test_plain, v1, v2}])
    assert [] == plan(job)
    assert [] == plan(job([{@reader, context.v1, context.v2}]))

    # Of the second it is not known whether it has a state.
    %{targets: targets, silent: silent} = Swap.find(job.changes)
    running = fn -> Swap.running(job.changes, targets) end
    assert [line] = Swap.uncertain(job.changes, running.(), silent)
    assert line =~ "danger: :hot_patch_test_plain converts states, and of 1 process"
    assert [line] = Swap.uncertain(job.changes, running.(), [self()])
    assert line =~ "2 processes"
    assert line =~ "1 too busy"
    kill([by_hand])
    assert [] == Swap.uncertain(job.changes, running.(), [])
  end
end
