defmodule HotPatch.Swap.DiscoveryTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Settings, only: [configure: 2]
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @module :hot_patch_test_kind

  # Each kind of process: its module's text by version, how it is started, how its state
  # is read, the state in v1 and v2, and by what rule it is found.
  @kinds [
    gen_server: {:server, :initial_call, "{v1,1}", "{v2,1}"},
    gen_statem: {:server, :initial_call, "{on,{v1,1}}", "{on,{v2,1}}"},
    gen_event: {:event_manager, :handlers, "{v1,1}", "{v2,1}"},
    special: {:special, :system_continue, "{v1,1}", "{v2,1}"}
  ]

  setup do
    on_exit(fn -> unload(@module) end)
  end

  for {kind, {found_as, rule, before, later}} <- @kinds do
    test "a #{kind} is found by #{rule}, suspended, and changed by its code_change" do
      kind = unquote(kind)
      v1 = beam(kind, "v1")
      v2 = beam(kind, "v2")
      load(@module, v1)
      pid = start(kind)
      assert show(kind, pid) == unquote(before)

      job = job([{@module, v1, v2}])
      assert %{targets: [target], silent: []} = Swap.find(job.changes)

      assert %{
               pid: ^pid,
               kind: unquote(found_as),
               rule: unquote(rule),
               modules: [{@module, true}]
             } = target

      assert {:ok, %{suspended: 1}} = run(job)
      assert show(kind, pid) == unquote(later)
      assert goes_on?(pid)
    end

    test "a #{kind} gets its very state back when a change_code fails" do
      kind = unquote(kind)
      v1 = beam(kind, "v1")
      load(@module, v1)
      pid = start(kind)
      failing = beam(kind, "v2", "error(refused)")
      assert {:error, %{reason: :taken_back}} = run(job([{@module, v1, failing}]))
      assert show(kind, pid) == unquote(before)
      assert goes_on?(pid)
      assert @module.module_info(:attributes)[:vsn] == ~c"v1"
    end
  end

  test "handlers of one module in one event manager each keep their own state" do
    v1 = beam(:gen_event, "v1")
    load(@module, v1)
    {:ok, pid} = :gen_event.start()
    on_exit(fn -> kill([pid]) end)
    for n <- 1..3, do: :ok = :gen_event.add_handler(pid, @module, n)
    before = :sys.get_state(pid)

    assert {:error, _} =
             run(
               job([
                 {@module, v1,
                  beam(:gen_event, "v2", "case N of 2 -> error(no); _ -> {ok, {v2, N}} end")}
               ])
             )

    assert :sys.get_state(pid) == before
    assert {:ok, _} = run(job([{@module, v1, beam(:gen_event, "v2")}]))

    assert :sys.get_state(pid) ==
             for({module, id, {:v1, n}} <- before, do: {module, id, {:v2, n}})
  end

  test "a gen_statem that changes its callback mode is told so" do
    v1 = beam(:gen_statem, "v1")
    load(@module, v1)
    pid = start(:gen_statem)

    v2 =
      Builds.erlang("""
      -module(#{@module}).
      -vsn("v2").
      -behaviour(gen_statem).
      -export([init/1, callback_mode/0, handle_event/4, code_change/4]).
      init(N) -> {ok, on, {v2, N}}.
      callback_mode() -> handle_event_function.
      handle_event({call, From}, get, on, Data) -> {keep_state_and_data, [{reply, From, {by_handle_event, Data}}]};
      handle_event(_, _, _, _) -> keep_state_and_data.
      code_change(_Old, State, {v1, N}, _Extra) -> {ok, State, {v2, N}}.
      """)

    assert {:ok, _} = run(job([{@module, v1, v2}]))
    assert :gen_statem.call(pid, :get) == {:by_handle_event, {:v2, 1}}
  end

  test "a server that entered its loop by itself is found by its own function or by its answer" do
    v1 = server(@module, "v1")
    load(@module, v1)
    by_function = entered(fn -> :proc_lib.spawn(@module, :enter, [5]) end)

    by_call =
      entered(fn -> :proc_lib.spawn(:gen_server, :enter_loop, [@module, [], {:v1, 5}]) end)

    by_fun = entered(fn -> :proc_lib.spawn(fn -> enter(@module, {:v1, 5}) end) end)
    _other = entered(fn -> :proc_lib.spawn(fn -> enter(:another_module, {@module, 5}) end) end)

    job = job([{@module, v1, server(@module, "v2")}])
    assert %{targets: targets, silent: []} = Swap.find(job.changes)

    assert Map.new(targets, &{&1.pid, &1.rule}) == %{
             by_function => :entered_loop,
             by_call => :entered_elsewhere,
             by_fun => :entered_elsewhere
           }

    assert Enum.all?(targets, &match?(%{kind: :server, modules: [{@module, true}]}, &1))
    assert {:ok, %{suspended: 3}} = run(job)
    for pid <- [by_function, by_call, by_fun], do: assert(:gen_server.call(pid, :get) == {:v2, 5})
  end

  test "a server that was begun by another module's init is found, by its label or by its answer" do
    v1 = server(@module, "v1")
    load(@module, v1)

    [by_name, by_tuple, wrong, none] =
      for label <- [@module, {@module, 1}, {:elsewhere, @module}, nil] do
        entered(fn -> :proc_lib.spawn(__MODULE__, :init, [{label, @module, {:v1, 5}}]) end)
      end

    _lies = entered(fn -> :proc_lib.spawn(__MODULE__, :init, [{@module, :another_module, 0}]) end)

    job = job([{@module, v1, server(@module, "v2")}])
    assert %{targets: targets, silent: []} = Swap.find(job.changes)

    assert Map.new(targets, &{&1.pid, &1.rule}) == %{
             by_name => :label,
             by_tuple => :label,
             wrong => :entered_elsewhere,
             none => :entered_elsewhere
           }

    assert {:ok, %{suspended: 4}} = run(job)

    for pid <- [by_name, by_tuple, wrong, none],
        do: assert(:gen_server.call(pid, :get) == {:v2, 5})
  end

  test "a supervisor takes over its new child specs and keeps its children" do
    v1 = supervisor("v1", 1)
    v2 = supervisor("v2", 2)
    load(@module, v1)
    {:ok, pid} = :supervisor.start_link(@module, [])
    assert [{_id, child, :worker, _}] = :supervisor.which_children(pid)

    job = job([{@module, v1, v2}])

    assert %{targets: [%{pid: ^pid, kind: :supervisor, rule: :supervisor}]} =
             Swap.find(job.changes)

    assert {:ok, %{suspended: 1}} = run(job)

    children = :supervisor.which_children(pid)
    assert length(children) == 2
    assert child in Enum.map(children, &elem(&1, 1))
    Process.unlink(pid)
    Process.exit(pid, :shutdown)
  end

  test "a wrapper is asked for the module in its state, and hands code_change on to it" do
    v1 = server(@module, "v1")
    load(@module, v1)

    wrapper =
      Builds.erlang("""
      -module(hot_patch_test_wrapper).
      -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
      init({Module, State}) -> {ok, \#{inner => \#{module => Module}, state => State}}.
      handle_call(get, _From, \#{state := S} = State) -> {reply, S, State}.
      handle_cast(_, State) -> {noreply, State}.
      code_change(Old, \#{inner := \#{module := M}, state := S} = State, Extra) ->
          {ok, New} = M:code_change(Old, S, Extra), {ok, State\#{state := New}}.
      """)

    load(:hot_patch_test_wrapper, wrapper)
    configure(:wrappers, [{:hot_patch_test_wrapper, [:inner, :module]}])
    {:ok, pid} = :gen_server.start(:hot_patch_test_wrapper, {@module, {:v1, 3}}, [])
    {:ok, other} = :gen_server.start(:hot_patch_test_wrapper, {:lists, :untouched}, [])

    on_exit(fn ->
      kill([pid, other])
      unload(:hot_patch_test_wrapper)
    end)

    job = job([{@module, v1, server(@module, "v2")}])

    assert %{targets: [%{pid: ^pid, kind: :wrapper, rule: :inside_state}]} =
             Swap.find(job.changes)

    assert {:ok, %{suspended: 1}} = run(job)
    assert :gen_server.call(pid, :get) == {:v2, 3}
    assert :gen_server.call(other, :get) == :untouched
  end

  # A record, a tuple, a keyword list, a map.
  for {state, path} <- [
        {"{wrapper, Module, State}", [1]},
        {"{{id, [{m, Module}]}, \#{s => State}}", [0, 1, :m]},
        {"\#{s => {1, 2, Module}, State => State}", [:s, 2]}
      ] do
    test "a wrapper's path leads through tuples and lists, too: #{inspect(path)}" do
      v1 = server(@module, "v1")
      load(@module, v1)

      wrapper =
        Builds.erlang("""
        -module(hot_patch_test_wrapper).
        -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
        init({Module, State}) -> put(state, State), {ok, #{unquote(state)}}.
        handle_call(get, _From, State) -> {reply, get(state), State}.
        handle_cast(_, State) -> {noreply, State}.
        code_change(Old, State, Extra) ->
            {ok, New} = #{@module}:code_change(Old, get(state), Extra), put(state, New), {ok, State}.
        """)

      load(:hot_patch_test_wrapper, wrapper)
      configure(:wrappers, [{:hot_patch_test_wrapper, unquote(path)}])

      [pid, other, none] =
        for module <- [@module, :lists, 5] do
          {:ok, pid} = :gen_server.start(:hot_patch_test_wrapper, {module, {:v1, 3}}, [])
          pid
        end

      on_exit(fn ->
        kill([pid, other, none])
        unload(:hot_patch_test_wrapper)
      end)

      job = job([{@module, v1, server(@module, "v2")}])
      assert %{targets: [%{pid: ^pid, kind: :wrapper}], silent: []} = Swap.find(job.changes)
      assert {:ok, %{suspended: 1}} = run(job)
      assert :gen_server.call(pid, :get) == {:v2, 3}
      assert :gen_server.call(other, :get) == {:v1, 3}
    end
  end

  test "processes that do not speak the system messages are never suspended" do
    v1 = server(@module, "v1")
    load(@module, v1)
    bare = spawn(@module, :spin, [])
    by_proc_lib = :proc_lib.spawn(@module, :spin, [])
    {:ok, task} = Task.start(@module, :spin, [])
    pids = [bare, by_proc_lib, task]
    on_exit(fn -> kill(pids) end)
    until(fn -> Enum.all?(pids, &in_receive?/1) end, "all wait in their receive")

    job = job([{@module, v1, server(@module, "v2")}])
    assert %{targets: [], unpaused: []} = Swap.find(job.changes)
    assert {:ok, %{suspended: 0}} = run(job)
    assert Enum.sort(Enum.map(Swap.stragglers([@module], []), & &1.pid)) == Enum.sort(pids)
    assert Enum.all?(pids, &Process.alive?/1)
  end

  # It receives whatever comes, and tells of it: its code would see a system message.
  defp by_hand(version, more) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{version}").
    -compile(export_all).
    init(Test) -> loop(Test).
    loop(Test) -> receive X -> Test ! {seen, self(), X}, loop(Test) end.
    #{more}
    """)
  end

  @of_a_server """
  handle_call(_, _, S) -> {reply, S, S}.
  handle_cast(_, S) -> {noreply, S}.
  code_change(_, S, _) -> {ok, S}.
  """

  @of_a_special_process """
  system_continue(_, _, S) -> loop(S).
  system_code_change(S, _, _, _) -> {ok, S}.
  """

  for {what, start, more} <- [
        {"a server", quote(do: :proc_lib.spawn(@module, :init, [self()])), @of_a_server},
        {"special processes", quote(do: elem(Task.start(@module, :loop, [self()]), 1)),
         @of_a_special_process}
      ] do
    test "a loop written by hand in a module of #{what} is sent nothing" do
      v1 = by_hand("v1", unquote(more))
      load(@module, v1)
      pid = unquote(start)
      until(fn -> in_receive?(pid) end, "it waits")

      job = job([{@module, v1, by_hand("v2", unquote(more))}])
      assert %{targets: [], unpaused: []} = Swap.find(job.changes)
      assert [{^pid, @module}] = Swap.bare(Swap.running(job.changes, []), job.changes)
      assert {:ok, %{suspended: 0}} = run(job)
      kill([pid])
      refute_received {:seen, _pid, _message}
    end
  end

  test "a module without code_change keeps its processes' state, and nobody is paused for it" do
    text = fn vsn ->
      """
      -module(#{@module}).
      -vsn("#{vsn}").
      -export([init/1, handle_call/3, handle_cast/2]).
      init(X) -> {ok, X}.
      handle_call(_, _, X) -> {reply, {"#{vsn}", X}, X}.
      handle_cast(_, X) -> {noreply, X}.
      """
    end

    v1 = Builds.erlang(text.("v1"))
    load(@module, v1)
    {:ok, pid} = :gen_server.start(@module, :kept, [])
    job = job([{@module, v1, Builds.erlang(text.("v2"))}])

    assert %{targets: [], unpaused: [%{pid: ^pid, modules: [{@module, false}]}]} =
             Swap.find(job.changes)

    assert {:ok, %{suspended: 0, pause_us: 0}} = run(job)
    assert :gen_server.call(pid, :get) == {~c"v2", :kept}
    kill([pid])
  end

  test "an event manager that is too busy to name its handlers stops the swap" do
    v1 = beam(:gen_event, "v1")
    load(@module, v1)
    pid = start(:gen_event)
    send(pid, {:block, self()})
    assert_receive {:blocked, ^pid}

    assert {:error, %{reason: :busy, text: text}} =
             run(job([{@module, v1, beam(:gen_event, "v2")}]))

    assert text =~ inspect(pid)
    send(pid, :go)
    assert show(:gen_event, pid) == "{v1,1}"
  end

  @doc false
  # As OTP 27 notes what proc_lib:set_label/1 is given.
  def init({label, module, state}) do
    if label, do: Process.put(:"$process_label", label)
    enter(module, state)
  end

  defp enter(module, state), do: :gen_server.enter_loop(module, [], state)

  defp entered(start) do
    pid = start.()
    on_exit(fn -> kill([pid]) end)
    until(fn -> in_loop?(pid) end, "it has entered")
    pid
  end

  defp in_loop?(pid) do
    match?(
      {:current_function, {:gen_server, :loop, _}},
      Process.info(pid, :current_function)
    )
  end

  defp in_receive?(pid) do
    match?(
      {:current_function, {@module, f, _}} when f in [:spin, :loop],
      Process.info(pid, :current_function)
    ) and
      match?({:status, :waiting}, Process.info(pid, :status))
  end

  defp start(:gen_server), do: linked(:gen_server.start(@module, 1, []))
  defp start(:gen_statem), do: linked(:gen_statem.start(@module, 1, []))

  defp start(:gen_event) do
    {:ok, pid} = started = :gen_event.start()
    :ok = :gen_event.add_handler(pid, @module, 1)
    linked(started)
  end

  defp start(:special), do: linked({:ok, :proc_lib.spawn(@module, :start, [1])})

  defp linked({:ok, pid}) do
    on_exit(fn -> kill([pid]) end)
    pid
  end

  defp show(:gen_event, pid) do
    [{@module, false, state}] = :sys.get_state(pid)
    text(state)
  end

  defp show(_kind, pid), do: pid |> :sys.get_state() |> text()

  defp text(term), do: :io_lib.format("~w", [term]) |> List.to_string()

  defp beam(kind, version, result \\ nil)
  defp beam(:gen_server, v, nil), do: server(@module, v)
  defp beam(:gen_server, v, result), do: server(@module, v, result)

  defp beam(:gen_statem, v, nil), do: statem(@module, v)
  defp beam(:gen_statem, v, result), do: statem(@module, v, result)

  defp beam(:gen_event, v, result) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{v}").
    -behaviour(gen_event).
    -export([init/1, handle_event/2, handle_call/2, handle_info/2, code_change/3]).
    init(N) -> {ok, {#{v}, N}}.
    handle_event(_, S) -> {ok, S}.
    handle_call(_, S) -> {ok, S, S}.
    handle_info({block, Pid}, S) -> Pid ! {blocked, self()}, receive go -> {ok, S} end;
    handle_info(_, S) -> {ok, S}.
    code_change(_Old, {_, N}, _Extra) -> _ = N, #{result || "{ok, {#{v}, N}}"}.
    """)
  end

  defp beam(:special, v, result) do
    Builds.erlang(
      """
      -module(#{@module}).
      -vsn("#{v}").
      -export([start/1, loop/1, system_continue/3, system_terminate/4, system_code_change/4]).
      start(N) -> ?MODULE:loop({#{v}, N}).
      loop(S) ->
          receive {system, From, Msg} ->
              sys:handle_system_msg(Msg, From, self(), ?MODULE, [], S)
          end.
      system_continue(_Parent, _Debug, S) -> ?MODULE:loop(S).
      system_terminate(Reason, _Parent, _Debug, _S) -> exit(Reason).
      system_code_change({_, N}, _Module, _Old, _Extra) -> _ = N, #{result || "{ok, {#{v}, N}}"}.
      """
      |> String.replace("?MODULE", "#{@module}")
    )
  end

  defp supervisor(v, children) do
    specs =
      Enum.map_join(1..children, ", ", fn n ->
        "\#{id => #{n}, start => {#{@module}, start_child, []}}"
      end)

    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{v}").
    -behaviour(supervisor).
    -export([init/1, start_child/0, child/0]).
    init([]) -> {ok, {\#{}, [#{specs}]}}.
    start_child() -> {ok, proc_lib:spawn_link(timer, sleep, [infinity])}.
    child() -> ok.
    """)
  end
end
