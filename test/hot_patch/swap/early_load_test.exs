defmodule HotPatch.Swap.EarlyLoadTest do
  # New modules are there when conversions are tried, and gone again where nothing comes of it.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers
  import HotPatch.Test.Until

  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @server :hot_patch_test_ahead_server
  @supervisor :hot_patch_test_ahead_sup
  @new :hot_patch_test_ahead_new
  @compile {:no_warn_undefined, @new}
  @child :hot_patch_test_ahead_child

  setup do
    v1 = server(@server, "v1")
    load(@server, v1)
    on_exit(fn -> Enum.each([@server, @supervisor, @new, @child], &unload/1) end)
    pids = for n <- 1..20, do: elem(:gen_server.start(@server, n, []), 1)
    on_exit(fn -> kill(pids) end)
    %{v1: v1, pids: pids}
  end

  # A function that a conversion calls by a name that is known only when it runs.
  defp new_module(body \\ "N * 10") do
    Builds.erlang("""
    -module(#{@new}).
    -export([times/1]).
    times(N) -> #{body}.
    """)
  end

  # Its name is no literal, so no copy of a module can have another there.
  defp calling(version, condition \\ "true") do
    server(
      @server,
      version,
      """
      case #{condition} of true ->
        {ok, {VERSION, (list_to_atom("#{@new}")):times(Count)}}
      end
      """
    )
  end

  defp versions(v1, v2, new \\ new_module()), do: [{@new, nil, new}, {@server, v1, v2}]
  defp loaded?, do: :erlang.module_loaded(@new)

  for transition <- [:suspend, :compatible] do
    test "a code_change may call one, #{transition}", %{v1: v1, pids: pids} do
      job = job(versions(v1, calling("v2")), transition: unquote(transition))
      assert {:ok, _} = run(job)

      for {pid, n} <- Enum.zip(pids, 1..20),
          do: assert(:gen_server.call(pid, :get) == {:v2, n * 10})

      assert loaded?()
    end

    test "it is gone again where a conversion fails, #{transition}", %{v1: v1, pids: pids} do
      v2 = calling("v2", "Count =/= 7")
      job = job(versions(v1, v2), transition: unquote(transition))
      assert {:error, %{reason: :taken_back, loaded?: false}} = run(job)
      refute loaded?()
      for {pid, n} <- Enum.zip(pids, 1..20), do: assert(:gen_server.call(pid, :get) == {:v1, n})
      # Once more, and well.
      assert {:ok, _} = run(job(versions(v1, calling("v2")), transition: unquote(transition)))
      assert loaded?()
    end

    test "and where it is decided so, or nobody decides, #{transition}", %{v1: v1} do
      for decide <- [&Swap.decide(&1, {:take_back, "another node"}), fn _engine -> :ok end] do
        options = [transition: unquote(transition), hold_timeout: 200]
        seen = self()

        held = fn engine ->
          send(seen, {:held, loaded?()})
          decide.(engine)
        end

        assert {:error, %{reason: :taken_back}} =
                 run(job(versions(v1, calling("v2")), options), held)

        assert_received {:held, true}
        refute loaded?()
      end
    end

    test "and where the engine is killed, #{transition}", %{v1: v1, pids: pids} do
      options = [transition: unquote(transition), hold_timeout: 60_000]
      job = job(versions(v1, calling("v2")), options)

      assert {:error, %{reason: :engine_died, loaded?: false}} =
               run(job, &Process.exit(&1, :kill))

      refute loaded?()
      for {pid, n} <- Enum.zip(pids, 1..20), do: assert(:gen_server.call(pid, :get) == {:v1, n})
    end
  end

  test "it is taken away also where its guard dies with the engine", %{v1: v1} do
    job = job(versions(v1, calling("v2")), hold_timeout: 60_000)

    held = fn engine ->
      {:monitored_by, pids} = Process.info(engine, :monitored_by)
      Enum.each(List.delete(pids, self()), &Process.exit(&1, :kill))
      Process.exit(engine, :kill)
    end

    assert {:error, %{reason: :engine_died, loaded?: false}} = run(job, held)
    refute loaded?()
  end

  test "what somebody else has loaded meanwhile is left alone", %{v1: v1} do
    other = new_module("N * 11")
    job = job(versions(v1, calling("v2")), hold_timeout: 60_000)

    held = fn engine ->
      load(@new, other)
      Swap.decide(engine, {:take_back, "another node"})
    end

    assert {:error, %{reason: :taken_back}} = run(job, held)
    assert @new.times(1) == 11
  end

  test "without anything to try it comes with the rest", %{v1: v1, pids: pids} do
    kill(pids)
    job = job(versions(v1, calling("v2")), hold_timeout: 60_000)
    test = self()

    held = fn engine ->
      send(test, {:held, loaded?()})
      Swap.decide(engine, :finish)
    end

    assert {:ok, %{suspended: 0}} = run(job, held)
    assert_received {:held, false}
    assert loaded?()
  end

  test "a process that is started while all wait has it, too", %{v1: v1, pids: pids} do
    kill(pids)
    job = job(versions(v1, calling("v2")), hold_timeout: 60_000)
    test = self()

    held = fn engine ->
      {:ok, pid} = :gen_server.start(@server, 5, [])
      send(test, {:late, pid})
      Swap.decide(engine, :finish)
    end

    assert {:ok, %{suspended: 1}} = run(job, held)
    assert_received {:late, pid}
    assert :gen_server.call(pid, :get) == {:v2, 50}
    kill([pid])
  end

  # As Elixir's does, it asks the module of each child for its spec.
  defp supervisor(version, children) do
    Builds.erlang("""
    -module(#{@supervisor}).
    -vsn("#{version}").
    -export([init/1]).
    init(_) -> {ok, {{one_for_one, 1, 5}, [(list_to_atom(M)):child_spec() || M <- #{children}]}}.
    """)
  end

  defp child(more \\ "") do
    Builds.erlang("""
    -module(#{@child}).
    -export([child_spec/0, start_link/0, init/1, handle_call/3, handle_cast/2]).
    #{more}
    child_spec() -> {child, {#{@child}, start_link, []}, permanent, 1000, worker, []}.
    start_link() -> gen_server:start_link(#{@child}, [], []).
    init(X) -> {ok, X}.
    handle_call(_, _, X) -> {reply, ok, X}.
    handle_cast(_, X) -> {noreply, X}.
    """)
  end

  defp start_supervisor do
    {:ok, pid} = :supervisor.start_link(@supervisor, [])
    Process.unlink(pid)
    on_exit(fn -> kill([pid]) end)
    pid
  end

  test "a supervisor gets a child whose module is new" do
    v1 = supervisor("v1", "[]")
    load(@supervisor, v1)
    pid = start_supervisor()
    job = job([{@supervisor, v1, supervisor("v2", ~s(["#{@child}"]))}, {@child, nil, child()}])
    assert {:ok, %{suspended: 1}} = run(job)
    assert [{:child, :undefined, :worker, _}] = :supervisor.which_children(pid)
    assert {:ok, _child} = :supervisor.restart_child(pid, :child)
  end

  test "also one that runs code when it is loaded" do
    v1 = supervisor("v1", "[]")
    load(@supervisor, v1)
    pid = start_supervisor()
    beam = child("-on_load(loaded/0).\nloaded() -> persistent_term:put(#{@child}, loaded), ok.")
    on_exit(fn -> :persistent_term.erase(@child) end)
    change = %Swap.Change{module: @child, kind: :add, exports: [], md5: :code.module_md5(beam)}
    on_load = [%{module: @child, file: ~c"child.beam", bytes: beam, back: nil}]
    v2 = supervisor("v2", ~s(["#{@child}"]))

    job = fn options ->
      job = job([{@supervisor, v1, v2}], [on_load: on_load] ++ options)
      %{job | changes: [change | job.changes]}
    end

    refused = job.(hold_timeout: 60_000)
    take_back = &Swap.decide(&1, {:take_back, "another node"})
    assert {:error, %{reason: :taken_back}} = run(refused, take_back)
    assert :persistent_term.get(@child) == :loaded
    refute :erlang.module_loaded(@child)

    assert {:ok, _} = run(job.([]))
    assert [{:child, :undefined, :worker, _}] = :supervisor.which_children(pid)
  end

  describe "a module that runs code when it is loaded" do
    defp on_load(version, code) do
      Builds.erlang("""
      -module(#{@new}).
      -export([version/0]).
      -on_load(loaded/0).
      version() -> #{version}.
      loaded() -> #{code}.
      """)
    end

    defp on_load_job(old, new, options \\ []) do
      change = %Swap.Change{
        module: @new,
        kind: if(old, do: :replace, else: :add),
        exports: exports(new),
        md5: :code.module_md5(new)
      }

      step = %{module: @new, file: ~c"#{@new}.beam", bytes: new, back: old}
      %{job([], [on_load: [step]] ++ options) | changes: [change]}
    end

    test "says why its on_load fails" do
      load(@new, old = on_load(1, "ok"))
      :ets.new(:hot_patch_test_taken, [:named_table])
      new = on_load(2, "ets:new(hot_patch_test_taken, [named_table]), ok")
      assert {:error, %{reason: :on_load, text: text}} = run(on_load_job(old, new))
      assert text =~ "table name already exists"
      assert @new.version() == 1

      assert {:error, %{text: text}} = run(on_load_job(old, on_load(2, "{error, not_today}")))
      assert text =~ "{:error, :not_today}"
      assert {:error, %{text: text}} = run(on_load_job(old, on_load(2, "later")))
      assert text =~ "on_load did not give ok"
      assert @new.version() == 1
    end

    test "says why also where the log is slow" do
      # Longer than anybody would wait who does not know that something is to come.
      slow = fn event, _ -> receive(do: (:never -> event), after: (300 -> event)) end
      :ok = :logger.add_primary_filter(:hot_patch_test_slow, {slow, []})
      on_exit(fn -> :logger.remove_primary_filter(:hot_patch_test_slow) end)
      load(@new, old = on_load(1, "ok"))
      new = on_load(2, "{error, not_today}")
      assert {:error, %{text: text}} = run(on_load_job(old, new))
      assert text =~ "{:error, :not_today}"
    end

    test "goes back when the engine is killed while all wait" do
      load(@new, old = on_load(1, "ok"))
      job = on_load_job(old, on_load(2, "ok"), hold_timeout: 60_000)

      held = fn engine ->
        assert @new.version() == 2
        Process.exit(engine, :kill)
      end

      assert {:error, %{reason: :engine_died, text: text}} = run(job, held)
      assert text =~ "nothing was loaded"
      assert @new.version() == 1
    end

    test "does not come later when the engine is killed while it runs" do
      load(@new, old = on_load(1, "ok"))
      Process.register(self(), :hot_patch_test_on_load)
      code = "hot_patch_test_on_load ! {loading, self()}, receive go -> ok end"
      job = on_load_job(old, on_load(2, code), pause_timeout: 60_000)
      test = self()
      spawn(fn -> send(test, {:result, run(job)}) end)
      assert_receive {:loading, loading}
      Process.exit(engine(), :kill)
      assert_receive {:result, {:error, %{reason: :engine_died, loaded?: false}}}
      send(loading, :go)
      until(fn -> not Process.alive?(loading) end, "it has ended")
      # The code server has dealt with its end.
      assert :code.delete(:hot_patch_test_no_module) == false
      assert @new.version() == 1
    end

    test "is not waited for beyond the time, and where it was is told" do
      load(@new, old = on_load(1, "ok"))
      job = on_load_job(old, on_load(2, "receive go -> ok end"), pause_timeout: 100)
      assert {:error, %{reason: :on_load, text: text}} = run(job)
      assert text =~ "did not end in time" and text =~ "#{@new}.loaded/0"
      assert @new.version() == 1
    end

    defp engine do
      Enum.find(Process.list(), fn pid ->
        Process.info(pid, :initial_call) == {:initial_call, {Swap.Engine, :init, 2}}
      end)
    end
  end
end
