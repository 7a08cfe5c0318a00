defmodule HotPatch.Swap.LoopTest do
  use ExUnit.Case, async: false

  # Servers that entered a behaviour's loop by themselves, in whatever they are just doing:
  # who of them is found, who is asked, and whose silence blocks a swap.

  import HotPatch.Test.Servers, except: [server: 2, server: 3]
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Swap.Discovery.CallbackModule
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Test.Builds

  @module :hot_patch_test_loop
  @library :hot_patch_test_library
  @starter :hot_patch_test_starter
  # Deeper than the VM shows a stack, which is told by ExUnit to show twenty functions.
  @deep 40

  setup do
    on_exit(fn -> Enum.each([@module, @library, @starter], &unload/1) end)
    v1 = server(@module, "v1")
    load(@module, v1)
    load(@library, server(@library, "v1"))
    %{job: job([{@module, v1, server(@module, "v2")}])}
  end

  test "where a behaviour keeps its callback module is learnt from known processes" do
    known = CallbackModule.start_known()
    ref = SysMessage.open()
    Enum.each(known, &CallbackModule.ask(&1, ref))

    answers =
      for pid <- known do
        assert_receive {[[:alias | ^ref] | ^pid], answer}
        answer
      end

    SysMessage.close(ref)
    CallbackModule.stop_known(known)
    places = CallbackModule.places(answers)
    assert map_size(places) == 2
    for answer <- answers, do: assert(CallbackModule.read(answer, places) == CallbackModule)
    assert CallbackModule.read(hd(answers), %{}) == nil
    assert CallbackModule.read("", places) == nil
  end

  test "a name or a state that is the module is not taken for the callback module", %{job: job} do
    test = self()

    named = fn ->
      Process.register(self(), @module)
      :gen_server.enter_loop(@library, [], [@module, {@module, "], {, ["}], {:local, @module})
    end

    pids = [
      entered(named),
      entered(fn -> :gen_server.enter_loop(@library, [], @module) end),
      entered(fn -> :gen_statem.enter_loop(CallbackModule, [], @module, [@module]) end)
    ]

    ours = entered(fn -> :gen_server.enter_loop(@module, [], {:v1, test}, 60_000) end)

    assert %{targets: [%{pid: ^ours}], silent: []} = Swap.find(job.changes)
    assert ours not in pids
  end

  test "one that a library's init/1 has started by hand is found, too", %{job: job} do
    starter =
      Builds.erlang("""
      -module(#{@starter}).
      -export([init/1]).
      init(N) -> gen_server:enter_loop(#{@module}, [], {v1, N}).
      """)

    load(@starter, starter)
    pid = started(fn -> :proc_lib.spawn(@starter, :init, [5]) end)
    until(fn -> Enum.any?(functions(pid), &(elem(&1, 0) == :gen_server)) end, "it has entered")
    assert %{targets: [%{pid: ^pid, rule: :entered_elsewhere}]} = Swap.find(job.changes)
    assert {:ok, %{suspended: 1}} = run(job)
    assert :gen_server.call(pid, :get) == {:v2, 5}
  end

  test "a gen_statem is found as a gen_server is" do
    v1 = statem(@module, "v1")
    load(@module, v1)
    pid = entered(fn -> :gen_statem.enter_loop(@module, [], :on, {:v1, 5}) end)
    job = job([{@module, v1, statem(@module, "v2")}])
    assert %{targets: [%{pid: ^pid, rule: :entered_elsewhere}]} = Swap.find(job.changes)
    assert {:ok, %{suspended: 1}} = run(job)
    assert :sys.get_state(pid) == {:on, {:v2, 5}}
  end

  for depth <- [0, @deep] do
    test "a library's server, busy at depth #{depth}, does not block a swap", %{job: job} do
      busy = busy(entered_in(@library), unquote(depth))
      assert %{targets: [], silent: []} = Swap.find(job.changes)
      assert {:ok, %{suspended: 0}} = run(job)
      send(busy, :go)
      assert :gen_server.call(busy, :get) == {:v1, 1}
    end

    test "one that is busy in a changed module at depth #{depth} does", %{job: job} do
      busy = busy(entered_in(@module), unquote(depth))
      assert %{targets: [], silent: [^busy]} = Swap.find(job.changes)
      assert {:error, %{reason: :busy, text: text}} = run(job)
      assert text =~ inspect(busy)

      send(busy, :go)
      assert {:ok, %{suspended: 1}} = run(job)
      assert :gen_server.call(busy, :get) == {:v2, 1}
    end

    test "and so does a busy one labelled as of a changed module, at depth #{depth}", %{job: job} do
      start = fn ->
        Process.put(:"$process_label", {@module, 1})
        :gen_server.enter_loop(@library, [], {:v1, 1})
      end

      busy = busy(entered(start), unquote(depth))
      assert %{targets: [], silent: [^busy]} = Swap.find(job.changes)
      send(busy, :go)
      assert %{targets: [], silent: []} = Swap.find(job.changes)
    end

    test "one that entered in the module itself is found, busy at depth #{depth}", %{job: job} do
      busy = busy(started(fn -> :proc_lib.spawn(@module, :enter, [1]) end), unquote(depth))

      assert %{targets: [%{pid: ^busy, rule: :entered_loop}], silent: []} = Swap.find(job.changes)

      send(busy, :go)
    end
  end

  test "one that entered in the module itself is found while it hibernates", %{job: job} do
    pid = started(fn -> :proc_lib.spawn(@module, :enter, [1, :hibernate]) end)
    # From OTP 28 on its stack stays.
    hibernates? =
      &match?([{_module, name, _arity} | _] when name in [:hibernate, :loop_hibernate], &1)

    until(fn -> hibernates?.(functions(pid)) end, "it hibernates")
    assert %{targets: [%{pid: ^pid, rule: :entered_loop}]} = Swap.find(job.changes)
    assert {:ok, %{suspended: 1}} = run(job)
    assert :gen_server.call(pid, :get) == {:v2, 1}
  end

  test "a process that waits in a call of a server is no server, and gets no message",
       %{job: job} do
    busy = busy(entered_in(@library), 0)
    start = fn module -> :proc_lib.spawn(module, :ask, [busy]) end
    callers = for module <- [@module, @library], do: started(fn -> start.(module) end)
    until(fn -> Enum.all?(callers, &List.keymember?(functions(&1), :gen, 0)) end, "they wait")

    assert %{targets: [], silent: []} = Swap.find(job.changes)
    for pid <- callers, do: assert(Process.info(pid, :messages) == {:messages, []})
  end

  defp entered_in(module), do: entered(fn -> :gen_server.enter_loop(module, [], {:v1, 1}) end)

  # proc_lib notes a function of this test.
  defp entered(enter) do
    pid = started(fn -> :proc_lib.spawn(enter) end)

    until(
      fn -> Enum.any?(functions(pid), &(elem(&1, 0) in [:gen_server, :gen_statem])) end,
      "it has entered"
    )

    pid
  end

  defp started(start) do
    pid = start.()
    on_exit(fn -> kill([pid]) end)
    pid
  end

  defp busy(pid, depth) do
    :gen_server.cast(pid, {:wait, depth, self()})
    assert_receive {:waiting, ^pid}
    pid
  end

  # Where it is, and what has called that.
  defp functions(pid) do
    [current_function: function, current_stacktrace: stack] =
      Process.info(pid, [:current_function, :current_stacktrace])

    Enum.uniq([function | for({module, name, arity, _} <- stack, do: {module, name, arity})])
  end

  defp server(module, v) do
    Builds.erlang("""
    -module(#{module}).
    -vsn("#{v}").
    -export([init/1, handle_call/3, handle_cast/2, code_change/3, enter/1, enter/2, ask/1]).
    init(N) -> {ok, {#{v}, N}}.
    handle_call(get, _From, S) -> {reply, S, S}.
    handle_cast({wait, 0, Pid}, S) -> wait(Pid), {noreply, S};
    handle_cast({wait, #{@deep}, Pid}, S) -> _ = wait1(Pid), {noreply, S}.
    #{Enum.map_join(1..@deep, "\n", &"wait#{&1}(Pid) -> {#{&1}, wait#{&1 + 1}(Pid)}.")}
    wait#{@deep + 1}(Pid) -> wait(Pid).
    wait(Pid) -> Pid ! {waiting, self()}, receive go -> ok end.
    code_change(_Old, {_, N}, _Extra) -> {ok, {#{v}, N}}.
    enter(N) -> gen_server:enter_loop(#{module}, [], {#{v}, N}).
    enter(N, How) -> gen_server:enter_loop(#{module}, [], {#{v}, N}, How).
    ask(Pid) -> _ = gen_server:call(Pid, get, infinity), ok.
    """)
  end
end
