defmodule HotPatch.Swap.LifeCycleTest do
  # Every kind of process that a swap converts, through all that may become of it: a change, a second one, such
  # as are refused, fail and are taken back in between, and the way back of both. After each step every process is
  # of the version that runs, with what it had before, and so are the funs in its state and in its dictionary;
  # a client calls them all the time, and each call is answered by one version with its own state.
  #
  # A version fails on a state of another.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers, except: [server: 2, server: 3, statem: 2, statem: 3]
  alias HotPatch.Swap
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Loops
  alias HotPatch.Test.Phoenix, as: Fake
  alias HotPatch.Test.Settings

  @module :hot_patch_test_lived
  @first :hot_patch_test_lived_first
  @own :hot_patch_test_lived_loop

  @kinds [
    :server,
    :hibernating,
    :statem,
    :changed_statem,
    :pushed_statem,
    :become,
    :event_manager,
    :agent,
    :special,
    :own_loop,
    :gen_server2,
    :p1_server,
    :p1_fsm,
    :channel,
    :view,
    :wrapped,
    :newborn
  ]
  @libraries %{gen_server2: "rabbit_common", p1_server: "p1_utils", p1_fsm: "p1_utils"}

  setup do
    on_exit(fn -> Enum.each([@module, @first, @own], &unload/1) end)
  end

  for kind <- @kinds do
    @library @libraries[kind]
    @tag skip:
           if(@library && Loops.ebin(@library) == nil, do: "#{@library} is not here", else: false)
    test "#{kind}" do
      lives(unquote(kind))
    end
  end

  defp lives(kind) do
    ready(kind)
    [v1, v2, v3] = for v <- [:v1, :v2, :v3], do: beam(kind, v)
    load(@module, v1)
    pids = for n <- 1..3, do: start(kind, n)
    on_exit(fn -> kill(pids) end)
    world = %{kind: kind, pids: pids, client: client(kind, pids)}

    world = apply_to(world, {v1, v2}, :v2)
    refused(world, {v2, v3}, :v2)
    failed(world, v2, :v2)
    taken_back(world, {v2, v3}, :v2)
    world = apply_to(world, {v2, v3}, :v3)
    failed(world, v3, :v3)
    world = back(world, {v3, v2}, :v2)
    taken_back(world, {v2, v3}, :v2)
    back(world, {v2, v1}, :v1)
    assert Swap.stragglers([@module], []) == []
    stop_client(world.client)
  end

  defp apply_to(world, {from, to}, version),
    do: done(world, job([{@module, from, to}], hold_timeout: 60_000), version)

  defp back(world, versions, version), do: done(world, down(versions), version)

  defp done(world, job, version) do
    test = self()

    assert {:ok, %{unsure: []}} =
             run(job, fn engine ->
               send(test, {:born, born(world)})
               Swap.decide(engine, :finish)
             end)

    assert_received {:born, born}
    on_exit(fn -> kill(born) end)
    all(%{world | pids: world.pids ++ born}, version)
  end

  # While all stand still one more is started, by a parent that is no supervisor.
  defp born(%{kind: :newborn, pids: pids}), do: [start(:newborn, length(pids) + 1)]
  defp born(_world), do: []

  # At its preparation: a copy that cannot be loaded.
  defp refused(world, {from, to}, version) do
    job = job([{@module, from, to}])
    shadows = [%{module: @module, name: :x, bytes: "", lambdas?: false}]
    assert {:error, %{reason: :shadow}} = Swap.prepare(%{job | shadows: shadows})
    all(world, version)
  end

  # By the state of one. What is tried after the load goes back to the file.
  defp failed(world, from, version) do
    on_disk(@module, from)
    failing = beam(world.kind, :v4, "case N of 2 -> error(refused); _ -> ok end")
    assert {:error, %{loaded?: false, reason: :taken_back}} = run(job([{@module, from, failing}]))
    all(world, version)
  end

  # When all stand still and have tried it.
  defp taken_back(world, {from, to}, version) do
    job = job([{@module, from, to}], hold_timeout: 60_000)
    assert {:error, %{loaded?: false}} = run(job, &Swap.decide(&1, {:take_back, "another node"}))
    all(world, version)
  end

  defp down({from, to} = versions) do
    job = job([Tuple.insert_at(versions, 0, @module)], hold_timeout: 60_000)
    [change] = job.changes
    {:ok, {_module, vsn}} = :beam_lib.version(to)
    [exports, arriving] = for beam <- [from, to], do: exports(beam)

    change = %{
      change
      | direction: :down,
        old_vsn: {:down, vsn},
        exports: exports,
        arriving: arriving
    }

    %{job | changes: [change], shadows: []}
  end

  defp all(%{kind: kind, pids: pids} = world, version) do
    for {pid, n} <- Enum.with_index(pids, 1) do
      assert Process.alive?(pid)
      assert goes_on?(pid)
      assert ask(kind, pid) == {version, n, [{version, n}, {version, n}]}
      assert leftovers(pid) == []
    end

    world
  end

  defp leftovers(pid) do
    {:dictionary, dictionary} = Process.info(pid, :dictionary)
    for {key, _} <- dictionary, String.starts_with?(inspect(key), ":\"$hot_patch"), do: key
  end

  # Calls all of them until it is told to stop. A call may wait while they stand still.
  defp client(kind, pids) do
    test = self()
    spawn_link(fn -> serve(kind, Enum.with_index(pids, 1), test, 0) end)
  end

  defp serve(kind, pids, test, rounds) do
    for {pid, n} <- pids do
      {version, ^n, funs} = ask(kind, pid)
      [{^version, ^n}, {^version, ^n}] = funs
    end

    receive do
      :stop -> send(test, {self(), rounds})
    after
      1 -> serve(kind, pids, test, rounds + 1)
    end
  end

  defp stop_client(client) do
    send(client, :stop)
    assert_receive {^client, rounds}
    assert rounds > 0
  end

  defp ready(kind) when kind in [:changed_statem, :pushed_statem, :become],
    do: load(@first, Builds.erlang("-module(#{@first}).\n" <> first(kind)))

  defp ready(:wrapped) do
    load(@first, Builds.erlang("-module(#{@first}).\n" <> first(:wrapped)))
    Settings.configure(:wrappers, [{@first, [1]}])
  end

  defp ready(:own_loop), do: load(@own, Loops.own(@own))
  defp ready(kind) when kind in [:channel, :view], do: Fake.load!()

  defp ready(kind) when is_map_key(@libraries, kind),
    do: Code.append_path(Loops.ebin(@libraries[kind]))

  defp ready(:newborn) do
    {:ok, parent} = Agent.start(fn -> [] end)
    Process.put(:parent, parent)
    on_exit(fn -> kill([parent]) end)
  end

  defp ready(_kind), do: :ok

  defp start(kind, n) when kind in [:server, :hibernating],
    do: :gen_server.start(@module, n, []) |> elem(1)

  defp start(kind, n) when kind in [:become, :wrapped],
    do: :gen_server.start(@first, n, []) |> elem(1)

  defp start(:statem, n), do: :gen_statem.start(@module, n, []) |> elem(1)

  defp start(kind, n) when kind in [:changed_statem, :pushed_statem],
    do: :gen_statem.start(@first, n, []) |> elem(1)

  defp start(:event_manager, n) do
    {:ok, pid} = :gen_event.start()
    :ok = :gen_event.add_handler(pid, @module, n)
    pid
  end

  defp start(:agent, n), do: @module |> apply(:start, [n]) |> elem(1)
  defp start(:special, n), do: apply(@module, :start, [n])
  defp start(:own_loop, n), do: @own |> apply(:start, [@module, n, []]) |> elem(1)

  defp start(library, n) when is_map_key(@libraries, library),
    do: library |> apply(:start, [@module, n, []]) |> elem(1)

  defp start(kind, n) when kind in [:channel, :view], do: Fake.connect(kind, @module, %{n: n})

  defp start(:newborn, n) do
    parent = Process.get(:parent)
    Agent.get(parent, fn _ -> :gen_server.start(@module, n, []) |> elem(1) end)
  end

  defp ask(kind, pid) when kind in [:statem, :changed_statem, :pushed_statem],
    do: :gen_statem.call(pid, :get, :infinity)

  defp ask(:event_manager, pid), do: :gen_event.call(pid, @module, :get, :infinity)

  defp ask(:agent, pid), do: Agent.get(pid, &shown(&1, Process.get(:held)), :infinity)

  defp ask(:special, pid) do
    monitor = Process.monitor(pid)
    send(pid, {:get, self()})

    receive do
      {^pid, answer} ->
        Process.demonitor(monitor, [:flush])
        answer

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        flunk("it died: #{inspect(reason)}")
    end
  end

  defp ask(kind, pid) when kind in [:channel, :view] do
    %{assigns: %{kept: kept}} = :gen_server.call(pid, :socket, :infinity)
    {:dictionary, dictionary} = Process.info(pid, :dictionary)
    shown(kept, dictionary[:held])
  end

  defp ask(:own_loop, pid), do: apply(@own, :call, [pid, :get, :infinity])

  defp ask(:p1_fsm, pid),
    do: apply(:p1_fsm, :sync_send_all_state_event, [pid, :get, :infinity])

  defp ask(library, pid) when is_map_key(@libraries, library),
    do: apply(library, :call, [pid, :get, :infinity])

  defp ask(_server, pid), do: :gen_server.call(pid, :get, :infinity)

  defp shown({version, n, fun}, held), do: {version, n, [fun.(), held.()]}

  # What its code_change does first is tried with N. Down it goes to the version that it is told.
  defp beam(kind, v, trial \\ "ok") do
    Builds.erlang("""
    -module('#{@module}').
    -vsn(#{v}).
    -export([made/1]).
    #{source(kind, v)}
    made(N) -> put(held, own(N)), {#{v}, N, own(N)}.
    own(N) -> fun() -> {#{v}, N} end.
    answer({#{v}, N, F}) -> {#{v}, N, [F(), (get(held))()]}.
    changed({down, [Vsn]}, {#{v}, N, F}) -> {Vsn, N, F};
    changed([_Vsn], {_, N, F}) -> _ = N, #{trial}, {#{v}, N, F}.
    """)
  end

  defp source(kind, _v) when kind in [:statem, :changed_statem, :pushed_statem] do
    """
    -export([init/1, callback_mode/0, handle_event/4, code_change/4]).
    init(N) -> {ok, on, made(N)}.
    callback_mode() -> handle_event_function.
    handle_event({call, From}, get, on, S) -> {keep_state_and_data, [{reply, From, answer(S)}]}.
    code_change(Old, on, S, _) -> {ok, on, changed(Old, S)}.
    """
  end

  defp source(:p1_fsm, _v) do
    """
    -export([init/1, on/2, handle_event/3, handle_sync_event/4, handle_info/3, terminate/3, code_change/4]).
    init(N) -> {ok, on, made(N)}.
    on(none, S) -> {next_state, on, S}.
    handle_event(none, on, S) -> {next_state, on, S}.
    handle_sync_event(get, _, on, S) -> {reply, answer(S), on, S}.
    handle_info(Strange, _, _) -> exit({strange, Strange}).
    terminate(_, _, _) -> ok.
    code_change(Old, on, S, _) -> {ok, on, changed(Old, S)}.
    """
  end

  defp source(:event_manager, _v) do
    """
    -export([init/1, handle_event/2, handle_call/2, code_change/3]).
    init(N) -> {ok, made(N)}.
    handle_event(none, S) -> {ok, S}.
    handle_call(get, S) -> {ok, answer(S), S}.
    code_change(Old, S, _) -> {ok, changed(Old, S)}.
    """
  end

  defp source(:agent, _v) do
    """
    -export([start/1, code_change/3]).
    start(N) -> 'Elixir.Agent':start(fun() -> made(N) end).
    code_change(Old, S, _) -> {ok, changed(Old, S)}.
    -compile({nowarn_unused_function, {answer, 1}}).
    """
  end

  defp source(:special, _v) do
    """
    -export([start/1, init/2, loop/3, system_continue/3, system_terminate/4, system_code_change/4]).
    start(N) -> proc_lib:spawn(#{@module}, init, [self(), N]).
    init(Parent, N) -> loop(Parent, sys:debug_options([]), made(N)).
    loop(Parent, Debug, S) ->
        receive
            {system, From, Request} -> sys:handle_system_msg(Request, From, Parent, #{@module}, Debug, S);
            {get, From} -> From ! {self(), answer(S)}, loop(Parent, Debug, S);
            Other -> exit({strange, Other})
        end.
    system_continue(Parent, Debug, S) -> #{@module}:loop(Parent, Debug, S).
    system_terminate(Reason, _, _, _) -> exit(Reason).
    system_code_change(S, _, Old, _) -> {ok, changed(Old, S)}.
    """
  end

  defp source(:view, v) do
    """
    -behaviour('Elixir.Phoenix.LiveView').
    -export(['__live__'/0, '__components__'/0, mount/3, render/1, handle_event/3, code_change/3]).
    '__live__'() -> \#{kind => view, layout => false}.
    '__components__'() -> \#{}.
    mount(_, _, #{"\#{assigns := \#{n := N} = A} = S"}) -> {ok, S\#{assigns := A\#{kept => made(N)}}}.
    render(\#{kept := {#{v}, _, _} = S}) -> {'#{v}', answer(S), []}.
    handle_event(none, _, S) -> {noreply, S}.
    code_change(Old, \#{assigns := \#{kept := K} = A} = S, _) -> {ok, S\#{assigns := A\#{kept := changed(Old, K)}}}.
    """
  end

  defp source(:channel, _v) do
    """
    -behaviour('Elixir.Phoenix.Channel').
    -export(['__socket__'/1, join/3, handle_in/3, code_change/3]).
    '__socket__'(private) -> \#{log_join => info}.
    join(_, _, \#{assigns := \#{n := N} = A} = S) -> {ok, S\#{assigns := A\#{kept => made(N)}}}.
    handle_in(get, _, \#{assigns := \#{kept := K}} = S) -> {reply, answer(K), S}.
    code_change(Old, \#{assigns := \#{kept := K} = A} = S, _) -> {ok, S\#{assigns := A\#{kept := changed(Old, K)}}}.
    """
  end

  defp source(kind, _v) do
    reply =
      if kind == :hibernating,
        do: "{reply, answer(S), S, hibernate}",
        else: "{reply, answer(S), S}"

    """
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).
    init(N) -> {ok, made(N)}.
    handle_call(get, _, S) -> #{reply}.
    handle_cast(none, S) -> {noreply, S}.
    handle_info(Strange, _) -> exit({strange, Strange}).
    terminate(_, _) -> ok.
    code_change(Old, S, _) -> {ok, changed(Old, S)}.
    """
  end

  # Servers of a module that never changes, and that become ours.
  defp first(kind) when kind in [:changed_statem, :pushed_statem] do
    action =
      if kind == :changed_statem, do: "change_callback_module", else: "push_callback_module"

    """
    -export([init/1, callback_mode/0, handle_event/4, code_change/4]).
    init(N) -> {ok, on, N, [{next_event, internal, become}]}.
    callback_mode() -> handle_event_function.
    handle_event(internal, become, on, N) -> {keep_state, #{@module}:made(N), [{#{action}, #{@module}}]}.
    code_change(_, _, _, _) -> error(of_another).
    """
  end

  defp first(:become) do
    """
    -export([init/1, handle_continue/2, handle_call/3, handle_cast/2, code_change/3]).
    init(N) -> {ok, N, {continue, become}}.
    handle_continue(become, N) -> gen_server:enter_loop(#{@module}, [], #{@module}:made(N)).
    handle_call(_, _, S) -> {reply, not_yet, S}.
    handle_cast(_, S) -> {noreply, S}.
    code_change(_, _, _) -> error(of_another).
    """
  end

  # A library whose server keeps the module in its state, and hands code_change on.
  defp first(:wrapped) do
    """
    -export([init/1, handle_call/3, handle_cast/2, handle_info/2, code_change/3]).
    init(N) -> {ok, {wrapped, #{@module}, #{@module}:made(N)}}.
    handle_call(Call, From, {wrapped, M, S}) -> {reply, R, New} = M:handle_call(Call, From, S), {reply, R, {wrapped, M, New}}.
    handle_cast(none, S) -> {noreply, S}.
    handle_info(Strange, _) -> exit({strange, Strange}).
    code_change(Old, {wrapped, M, S}, Extra) -> {ok, New} = M:code_change(Old, S, Extra), {ok, {wrapped, M, New}}.
    """
  end
end
