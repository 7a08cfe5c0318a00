defmodule HotPatch.Swap.CasualtiesTest do
  # Changes of which it is known that processes would die are refused, unless it is said that they are
  # to be ended: then that is done, and told.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  alias HotPatch.Swap
  alias HotPatch.Test.Builds

  @module :hot_patch_test_casualty

  setup do
    on_exit(fn -> unload(@module) end)
  end

  # By name: a module that is one kind of process, its start, and what it is asked.
  defp beam(kind, version, more \\ "")

  defp beam(:server, version, more) do
    module(version, """
    -export([init/1, handle_call/3, handle_cast/2]).
    init(X) -> {ok, X}.
    handle_call(get, _, X) -> {reply, X, X}.
    handle_cast(_, X) -> {noreply, X}.
    #{more}
    """)
  end

  defp beam(:functions, version, more) do
    module(version, """
    -export([init/1, callback_mode/0, on/3, code_change/4]).
    init(X) -> {ok, on, X}.
    callback_mode() -> #{if more == "", do: "state_functions", else: more}.
    on(enter, _, _) -> keep_state_and_data;
    on({call, From}, get, X) -> {keep_state_and_data, {reply, From, X}}.
    code_change(_, State, X, _) -> {ok, State, X}.
    """)
  end

  defp beam(:handler, version, more) do
    module(version, """
    -export([init/1, callback_mode/0, handle_event/4#{if more == "", do: ", code_change/4"}]).
    init(X) -> {ok, on, X}.
    callback_mode() -> handle_event_function.
    handle_event({call, From}, get, _, X) -> {keep_state_and_data, {reply, From, X}}.
    #{if more == "", do: "code_change(_, State, X, _) -> {ok, State, X}."}
    """)
  end

  defp beam(:special, version, more) do
    module(version, """
    -export([init/1, loop/1, system_terminate/4#{more}]).
    init(X) -> proc_lib:init_ack({ok, self()}), loop(X).
    loop(X) -> receive {system, F, R} -> sys:handle_system_msg(R, F, self(), #{@module}, [], X) end.
    system_terminate(R, _, _, _) -> exit(R).
    #{if more != "", do: "system_continue(_, _, X) -> ?MODULE:loop(X)."}
    """)
  end

  defp beam(:event, version, more) do
    module(version, """
    -export([init/1, handle_call/2#{more}]).
    init(X) -> {ok, X}.
    handle_call(get, X) -> {ok, X, X}.
    #{if more != "", do: "handle_event(_, X) -> {ok, X}."}
    """)
  end

  defp beam(:nothing, version, _more), do: module(version, "-export([f/0]).\nf() -> 1.")

  defp module(version, text) do
    Builds.erlang("""
    -module(#{@module}).
    -vsn("#{version}").
    #{String.replace(text, "?MODULE", "#{@module}")}
    """)
  end

  defp start(kind) when kind in [:functions, :handler],
    do: started(:gen_statem.start(@module, 7, []))

  defp start(:server), do: started(:gen_server.start(@module, 7, []))
  defp start(:special), do: started(:proc_lib.start(@module, :init, [7]))

  defp start(:event) do
    {:ok, pid} = :gen_event.start([])
    :ok = :gen_event.add_handler(pid, @module, 7)
    started({:ok, pid})
  end

  defp started({:ok, pid}) do
    on_exit(fn -> kill([pid]) end)
    pid
  end

  # The change as the way back has it: the code that runs knows the way, and what comes is older.
  defp down(job, old, mode) do
    update_in(job.changes, fn [change] ->
      arriving = exports(old)
      {:ok, {_module, [exports: running]}} = :beam_lib.chunks(code(), [:exports])
      running = for {name, arity} <- running, do: {Atom.to_string(name), arity}

      [
        %{
          change
          | direction: :down,
            exports: running,
            arriving: arriving,
            callback_mode: mode,
            old_vsn: {:down, ~c"v1"}
        }
      ]
    end)
  end

  defp code, do: :persistent_term.get({__MODULE__, :code})

  defp load_as(beam) do
    load(@module, beam)
    :persistent_term.put({__MODULE__, :code}, beam)
  end

  defp assert_refused(job, pid, text) do
    assert {:error, %{reason: :fatal, loaded?: false} = failure} = run(job.(purge: :soft))
    assert failure.text =~ text
    assert failure.text =~ inspect(pid) and failure.text =~ "purge: :force"
    assert Process.alive?(pid) and goes_on?(pid)
  end

  for {running, coming, text} <- [
        {:server, :nothing, "none of the callbacks of a gen_server"},
        {:server, :functions, "a callback_mode/0, and its processes are gen_servers"},
        {:functions, :server, "no callback_mode/0, and its processes are gen_statems"}
      ],
      transition <- [:suspend, :none, :compatible] do
    test "a #{running} whose module becomes #{coming}, #{transition}" do
      old = beam(unquote(running), "v1")
      load(@module, old)
      pid = start(unquote(running))
      new = beam(unquote(coming), "v2")
      options = [transition: unquote(transition)]
      job = fn more -> job([{@module, old, new}], options ++ more) end
      assert_refused(job, pid, unquote(text))
      assert @module.module_info(:attributes)[:vsn] == ~c"v1"

      assert {:ok, %{killed: [^pid]}} = run(job.(purge: :force))
      refute Process.alive?(pid)
      assert @module.module_info(:attributes)[:vsn] == ~c"v2"
    end
  end

  test "a special process whose module cannot continue it" do
    old = beam(:special, "v1", ", system_continue/3")
    load(@module, old)
    pid = start(:special)
    job = fn options -> job([{@module, old, beam(:special, "v2")}], options) end
    assert_refused(job, pid, "no system_continue/3")
    assert {:ok, %{killed: [^pid]}} = run(job.(purge: :force))
  end

  test "an event manager loses its handler, and lives" do
    old = beam(:event, "v1", ", handle_event/2")
    load(@module, old)
    pid = start(:event)
    job = fn options -> job([{@module, old, beam(:event, "v2")}], options) end
    assert_refused(job, pid, "no handle_event/2")
    assert {:ok, %{killed: []}} = run(job.(purge: :force))
    assert Process.alive?(pid)
  end

  describe "a gen_statem whose callback mode changes" do
    test "lives on the way up, where its code_change is called" do
      old = beam(:functions, "v1")
      load(@module, old)
      pid = start(:functions)
      assert {:ok, %{killed: []}} = run(job([{@module, old, beam(:handler, "v2")}]))
      assert :gen_statem.call(pid, :get) == 7
    end

    test "would die on the way up, where none is called, or too late" do
      old = beam(:functions, "v1")
      load(@module, old)
      pid = start(:functions)

      for {new, options} <- [
            {beam(:handler, "v2", "no code_change"), []},
            {beam(:handler, "v2"), [transition: :none]},
            {beam(:handler, "v2"), [transition: :compatible]},
            # Nobody but the new code itself knows this.
            {beam(:functions, "v2", "[state_functions, state_enter]"), [transition: :none]}
          ] do
        job = fn more -> job([{@module, old, new}], options ++ more) end
        assert_refused(job, pid, "the callback mode of :#{@module} changes from :state_functions")
      end

      assert :gen_statem.call(pid, :get) == 7
    end

    test "would die on the way back" do
      old = beam(:functions, "v1")
      new = beam(:handler, "v2")
      load_as(new)
      pid = start(:handler)

      # As it was noted when the patch came, and by an older record, which has no such note.
      for mode <- [:state_functions, nil] do
        job = fn more -> [{@module, new, old}] |> job(more) |> down(old, mode) end
        assert_refused(job, pid, "changes from :handle_event_function to")
      end

      job = fn more -> [{@module, new, old}] |> job(more) |> down(old, :state_functions) end
      # Where it is the same nobody is concerned.
      same = [{@module, new, new}] |> job([]) |> down(new, :handle_event_function)
      assert {:ok, %{killed: []}} = run(same)
      assert :gen_statem.call(pid, :get) == 7

      assert {:ok, %{killed: [^pid]}} = run(job.(purge: :force))
      refute Process.alive?(pid)
    end
  end

  describe "processes of a module that goes" do
    test "that were started since it was looked" do
      old = beam(:server, "v1")
      load(@module, old)
      job = fn options -> job([{@module, old, nil}], options) end

      for transition <- [:suspend, :none, :compatible] do
        {:ok, ready} = Swap.prepare(job.(transition: transition))
        pid = start(:server)
        assert {:error, %{reason: :fatal, text: text}} = Swap.run(ready)
        assert text =~ "#{@module} goes" and text =~ inspect(pid)
        assert :gen_server.call(pid, :get) == 7
        kill([pid])
      end

      pid = start(:server)
      assert {:ok, %{killed: [^pid]}} = run(job.(purge: :force))
      refute :erlang.module_loaded(@module)
      load(@module, old)
    end
  end
end
