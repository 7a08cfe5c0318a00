defmodule HotPatch.Swap.CallbackModulesTest do
  use ExUnit.Case, async: false

  # Processes that work for another module than the one in which they began: a gen_statem that
  # changes its callback module, servers that enter another loop.

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Swap.Discovery.Glance
  alias HotPatch.Swap.Discovery.Idleness
  alias HotPatch.Swap.Employment
  alias HotPatch.Test.Builds

  @first :hot_patch_test_first
  @second :hot_patch_test_second

  setup do
    on_exit(fn -> Enum.each([@first, @second], &unload/1) end)
    v1 = for module <- [@first, @second], into: %{}, do: {module, machine(module, "v1")}
    for {module, beam} <- v1, do: load(module, beam)
    %{v1: v1}
  end

  for how <- [:change, :push] do
    test "a gen_statem is found by the module that it works for now, after #{how}", %{v1: v1} do
      pid = start()
      switch(pid, unquote(how), @second)
      job = job([{@second, v1[@second], machine(@second, "v2")}])
      assert %{targets: [%{pid: ^pid, kind: :server, sure?: true}]} = Swap.find(job.changes)
      assert {:ok, %{suspended: 1}} = run(job)
      assert :gen_statem.call(pid, :get) == {@second, :v2, {@second, :v2, 1}}
    end
  end

  test "one that works for another module now is not asked to convert by its first", %{v1: v1} do
    pid = start()
    switch(pid, :change, @second)
    job = job([{@first, v1[@first], machine(@first, "v2")}])
    assert %{targets: [], unpaused: [], silent: []} = Swap.find(job.changes)
    assert {:ok, %{suspended: 0}} = run(job)
    assert :gen_statem.call(pid, :get) == {@second, :v1, {:v1, 1}}
  end

  test "there and back, by a second patch, a refused one, and the way down", %{v1: v1} do
    pid = start()
    v2 = machine(@second, "v2")
    switch(pid, :change, @second)
    assert {:ok, _} = run(job([{@second, v1[@second], v2}]))
    v3 = machine(@second, "v3")
    assert {:ok, _} = run(job([{@second, v2, v3}]))
    assert :gen_statem.call(pid, :get) == {@second, :v3, {@second, :v3, 1}}

    failing = machine(@second, "v4", "error(refused)")
    assert {:error, %{reason: :taken_back}} = run(job([{@second, v3, failing}]))
    assert :gen_statem.call(pid, :get) == {@second, :v3, {@second, :v3, 1}}

    switch(pid, :change, @first)
    assert :gen_statem.call(pid, :get) == {@first, :v1, {@second, :v3, 1}}
  end

  test "a push during the preparation is seen when it stands still", %{v1: v1} do
    pid = start()
    job = job([{@first, v1[@first], machine(@first, "v2")}])
    assert {:ok, ready} = Swap.prepare(job)
    switch(pid, :change, @second)
    assert {:error, %{reason: :taken_back, text: text}} = Swap.run(ready)
    assert text =~ inspect(@second) and text =~ "try again"
    assert :gen_statem.call(pid, :get) == {@second, :v1, {:v1, 1}}
    assert {:ok, %{suspended: 0}} = run(job([{@first, v1[@first], machine(@first, "v2")}]))
  end

  test "data that a module below the first would come back to is not converted behind its back",
       %{v1: v1} do
    pid = start()
    switch(pid, :push, @second)
    first = {@first, v1[@first], machine(@first, "v2")}

    assert {:error, %{reason: :fatal, text: text}} = run(job([first]))
    assert text =~ inspect(pid) and text =~ "pop_callback_module"
    assert :gen_statem.call(pid, :get) == {@second, :v1, {:v1, 1}}

    # Where the first converts the data, both work on what it makes of it.
    assert {:ok, _} = run(job([first, {@second, v1[@second], machine(@second, "v2")}]))
    assert :gen_statem.call(pid, :get) == {@second, :v2, {@second, :v2, 1}}
    :ok = :gen_statem.call(pid, :pop)
    assert :gen_statem.call(pid, :get) == {@first, :v2, {@second, :v2, 1}}
  end

  test "a gen_server that has entered another loop works for that" do
    beams = for module <- [@first, @second], into: %{}, do: {module, becoming(module, "v1")}
    for {module, beam} <- beams, do: load(module, beam)

    [pid, asleep] =
      for how <- [:infinity, :hibernate] do
        {:ok, pid} = :gen_server.start(@first, 1, [])
        on_exit(fn -> kill([pid]) end)
        :gen_server.cast(pid, {:become, @second, how})
        pid
      end

    assert :gen_server.call(pid, :get) == {@second, :v1, {:v1, 1}}
    # From OTP 28 on its stack stays.
    hibernates? = &match?({_module, name, _} when name in [:hibernate, :loop_hibernate], &1)
    function = fn -> asleep |> Process.info(:current_function) |> elem(1) end
    until(fn -> hibernates?.(function.()) end, "it hibernates")

    first = job([{@first, beams[@first], becoming(@first, "v2")}])
    assert %{targets: [], silent: []} = Swap.find(first.changes)
    assert {:ok, %{suspended: 0}} = run(first)

    second = job([{@second, beams[@second], becoming(@second, "v2")}])
    assert %{targets: targets} = Swap.find(second.changes)
    assert Enum.sort(Enum.map(targets, & &1.pid)) == Enum.sort([pid, asleep])
    assert {:ok, %{suspended: 2}} = run(second)

    for pid <- [pid, asleep],
        do: assert(:gen_server.call(pid, :get) == {@second, :v2, {@second, :v2, 1}})
  end

  test "a gen_server that enters another loop after the preparation is seen, also among many" do
    beams = for module <- [@first, @second], into: %{}, do: {module, becoming(module, "v1")}
    for {module, beam} <- beams, do: load(module, beam)

    pids =
      for n <- 1..50 do
        {:ok, pid} = :gen_server.start(@first, n, [])
        pid
      end

    on_exit(fn -> kill(pids) end)
    assert {:ok, ready} = Swap.prepare(job([{@first, beams[@first], becoming(@first, "v2")}]))
    changed = Enum.at(pids, 30)
    :gen_server.cast(changed, {:become, @second, :infinity})
    assert {@second, :v1, _} = :gen_server.call(changed, :get)
    assert {:error, %{reason: :taken_back, text: text}} = Swap.run(ready)
    assert text =~ inspect(changed)

    for {pid, n} <- Enum.zip(pids, 1..50),
        do: assert({_, :v1, {:v1, ^n}} = :gen_server.call(pid, :get))
  end

  test "a thousand stand still at once, and the one that has changed among them is seen", %{
    v1: v1
  } do
    pids = for n <- 1..1_000, do: :gen_statem.start(@first, n, []) |> elem(1)
    on_exit(fn -> kill(pids) end)
    job = job([{@first, v1[@first], machine(@first, "v2")}], pause_timeout: 30_000)
    assert {:ok, ready} = Swap.prepare(job)
    # These have had something to do, and are what they were.
    for pid <- Enum.take_every(pids, 10), do: {@first, :v1, _} = :gen_statem.call(pid, :get)
    switch(Enum.at(pids, 700), :change, @second)
    assert {:error, %{reason: :taken_back, text: text}} = Swap.run(ready)
    assert text =~ inspect(Enum.at(pids, 700))
    switch(Enum.at(pids, 700), :change, @first)
    assert {:ok, %{suspended: 1_000}} = run(job)
    for pid <- pids, do: assert({@first, :v2, {@first, :v2, _}} = :gen_statem.call(pid, :get))
  end

  describe "one that has done too little for it since it was looked at" do
    defp happens(pid, :enter), do: :gen_statem.cast(pid, :enter)
    defp happens(pid, event), do: :gen_statem.call(pid, event)

    defp look(pid, events, module \\ @second) do
      %{reductions: before} = Glance.of(pid, true)

      for event <- events, do: :ok = happens(pid, event)
      works_for = Employment.new(Employment.depth(), true, :statem)
      test = self()

      # It is looked for a module that it does not work for: who reads sees that.
      look = fn now, before, state ->
        Employment.look({works_for, module}, now, before, state)
      end

      tell = fn state, found, _place ->
        send(test, {:found, found})
        state
      end

      :sys.replace_state(pid, Idleness.asked(tell, look, 0, before))
      receive(do: ({:found, found} -> found))
    end

    test "does not read whom it works for, and every other does" do
      assert {_reductions, _depth} = Idleness.most()
      pid = start()
      assert look(pid, []) == :ok
      assert look(pid, [{:change, @first}]) == {:another, @first}
      assert look(pid, []) == :ok
      assert look(pid, [{:push, @first}]) == {:another, @first}
      assert look(pid, [:pop]) == {:another, @first}
    end

    # Which may take fewer calls.
    test "is not one that has entered another loop" do
      load(@second, becoming(@second, "v1"))
      pid = start()
      assert look(pid, []) == :ok
      assert look(pid, [:enter], @first) == {:another, @second}
    end
  end

  defp start do
    {:ok, pid} = :gen_statem.start(@first, 1, [])
    on_exit(fn -> kill([pid]) end)
    pid
  end

  defp switch(pid, how, module) do
    :ok = :gen_statem.call(pid, {how, module})
  end

  defp machine(module, v, code_change \\ "{ok, State, {MODULE, VERSION, N}}") do
    Builds.erlang("""
    -module(#{module}).
    -vsn("#{v}").
    -export([init/1, callback_mode/0, handle_event/4, code_change/4]).
    init(N) -> {ok, on, {#{v}, N}}.
    callback_mode() -> handle_event_function.
    handle_event(cast, enter, _State, Data) -> gen_server:enter_loop(#{@second}, [], Data);
    handle_event({call, From}, get, _State, Data) -> {keep_state_and_data, [{reply, From, {#{module}, #{v}, Data}}]};
    handle_event({call, From}, pop, _State, _Data) -> {keep_state_and_data, [pop_callback_module, {reply, From, ok}]};
    handle_event({call, From}, {change, M}, _State, _Data) ->
        {keep_state_and_data, [{change_callback_module, M}, {reply, From, ok}]};
    handle_event({call, From}, {push, M}, _State, _Data) ->
        {keep_state_and_data, [{push_callback_module, M}, {reply, From, ok}]}.
    code_change(_Old, State, Data, _Extra) -> N = element(tuple_size(Data), Data), _ = {State, N},
        #{code_change |> String.replace("VERSION", v) |> String.replace("MODULE", "#{module}")}.
    """)
  end

  defp becoming(module, v) do
    Builds.erlang("""
    -module(#{module}).
    -vsn("#{v}").
    -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
    init(N) -> {ok, {#{v}, N}}.
    handle_call(get, _From, S) -> {reply, {#{module}, #{v}, S}, S}.
    handle_cast({become, M, How}, S) -> gen_server:enter_loop(M, [], S, How).
    code_change(_Old, S, _Extra) -> {ok, {#{module}, #{v}, element(tuple_size(S), S)}}.
    """)
  end
end
