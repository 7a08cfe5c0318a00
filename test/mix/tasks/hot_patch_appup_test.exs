defmodule Mix.Tasks.HotPatch.AppupTest do
  use ExUnit.Case, async: false

  alias HotPatch.Test.Builds
  alias Mix.Tasks.HotPatch.Appup

  @moduletag :tmp_dir

  setup do
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(Mix.Shell.IO) end)
  end

  # A small application with a supervisor, a server, a statem, a library and one module that comes
  # or goes.
  defp modules("1.0.0") do
    [
      appup_test_lib: "-export([f/1]). f(X) -> X.",
      appup_test_gone: "-export([f/0]). f() -> 1.",
      appup_test_server: server("A", "code_change(_, S, _) -> {ok, S}."),
      appup_test_statem: statem("[]"),
      appup_test_sup: supervisor("[]")
    ]
  end

  defp modules("2.0.0") do
    [
      appup_test_lib: "-export([f/1]). f(X) -> appup_test_new:f({X}).",
      appup_test_new: "-export([f/1]). f(X) -> appup_test_lib:f(X).",
      appup_test_server:
        server(
          "\#{}",
          "code_change({down, _}, _, _) -> {ok, 1}; code_change(_, S, _) -> {ok, \#{s => S}}."
        ),
      appup_test_statem: statem("[x]"),
      appup_test_sup:
        supervisor(
          "[\#{id => s, start => {appup_test_server, start_link, []}, modules => [appup_test_server]}]"
        )
    ]
  end

  defp server(state, code_change) do
    """
    -behaviour(gen_server).
    -export([start_link/0, init/1, handle_call/3, handle_cast/2, code_change/3]).
    start_link() -> gen_server:start_link(appup_test_server, 1, []).
    init(A) -> _ = A, {ok, #{state}}.
    handle_call(X, _, S) -> {reply, appup_test_lib:f(X), S}.
    handle_cast(_, S) -> {noreply, S}.
    #{code_change}
    """
  end

  defp statem(more) do
    """
    -behaviour(gen_statem).
    -export([init/1, callback_mode/0, handle_event/4]).
    init(_) -> {ok, on, {data, 1}}.
    callback_mode() -> handle_event_function.
    handle_event(_, _, _, _) -> {keep_state_and_data, #{more}}.
    """
  end

  defp supervisor(children) do
    """
    -behaviour(supervisor).
    -export([init/1]).
    init(_) -> {ok, {\#{strategy => one_for_one}, #{children}}}.
    """
  end

  defp build!(dir, vsn, modules \\ nil) do
    modules = modules || modules(vsn)
    ebin = Path.join([dir, "appup_test-#{vsn}", "ebin"])
    File.mkdir_p!(ebin)

    for {name, text} <- modules do
      bytes = Builds.erlang("-module(#{name}).\n#{text}")
      File.write!(Path.join(ebin, "#{name}.beam"), bytes)
    end

    properties = [
      description: ~c"for tests",
      vsn: String.to_charlist(vsn),
      modules: Keyword.keys(modules),
      registered: [],
      applications: [:kernel, :stdlib]
    ]

    app = :io_lib.format("~tp.~n", [{:application, :appup_test, properties}])
    File.write!(Path.join(ebin, "appup_test.app"), app)
    Path.dirname(ebin)
  end

  defp rel!(dir, vsn) do
    versions =
      for app <- [:kernel, :stdlib, :sasl] do
        _ = Application.load(app)
        {app, Application.spec(app, :vsn)}
      end

    erts = :erlang.system_info(:version)
    apps = versions ++ [{:appup_test, String.to_charlist(vsn)}]
    release = {:release, {~c"appup", String.to_charlist(vsn)}, {:erts, erts}, apps}
    path = Path.join(dir, "rel-#{vsn}")
    File.write!(path <> ".rel", :io_lib.format("~tp.~n", [release]))
    String.to_charlist(path)
  end

  test "writes what systools makes a relup of", %{tmp_dir: dir} do
    from = build!(dir, "1.0.0")
    to = build!(dir, "2.0.0")
    Appup.run(["--from", from, "--to", Path.join(to, "ebin")])
    appup = Path.join(to, "ebin/appup_test.appup")
    assert {:ok, [{~c"2.0.0", [{~c"1.0.0", up}], [{~c"1.0.0", down}]}]} = :file.consult(appup)
    assert {:add_module, :appup_test_new, [:appup_test_lib]} in up
    assert {:load_module, :appup_test_lib, [:appup_test_new]} in up
    assert {:update, :appup_test_server, {:advanced, []}, [:appup_test_lib]} in up
    assert {:update, :appup_test_statem} in up
    assert {:update, :appup_test_sup, :supervisor} in up
    assert List.last(up) == {:delete_module, :appup_test_gone}
    assert hd(down) == {:add_module, :appup_test_gone}

    assert {:ok, {~c"2.0.0", [{~c"1.0.0", [], low_up}], [{~c"1.0.0", [], low_down}]}} =
             relup(dir, "1.0.0", "2.0.0")

    # What calls is loaded behind what it calls.
    loaded = for {:load, {module, _, _}} <- low_up, do: module

    assert Enum.find_index(loaded, &(&1 == :appup_test_lib)) <
             Enum.find_index(loaded, &(&1 == :appup_test_server))

    assert {:code_change, :up, changes} = List.keyfind(low_up, :code_change, 0)
    assert {:appup_test_server, []} in changes
    assert Enum.any?(low_down, &match?({:code_change, :down, [_ | _]}, &1))
    assert {:remove, {:appup_test_gone, :brutal_purge, :brutal_purge}} in low_up

    # And release_handler_1 takes what was made: nothing is missing in the scripts.
    for {script, vsn} <- [{low_up, "2.0.0"}, {low_down, "1.0.0"}] do
      library = {:appup_test, String.to_charlist(vsn), String.to_charlist(folder(dir, vsn))}
      assert {:ok, _unpurged} = :release_handler_1.check_script(script, [library])
    end
  end

  test "systools_rc takes every form that an instruction may have", %{tmp_dir: dir} do
    empty = fn names -> for name <- names, do: {name, "-export([f/0]). f() -> 1."} end
    names = for number <- 1..8, do: :"appup_test_m#{number}"
    build!(dir, "1.0.0", empty.([:appup_test_gone | names]))
    to = build!(dir, "2.0.0", empty.([:appup_test_m9 | names]))

    # The shortest forms, as the native library writes them; its own tests compare the texts.
    script = """
    [{update,appup_test_m1},
     {update,appup_test_m2,supervisor},
     {update,appup_test_m3,{advanced,"x"},[appup_test_m1]},
     {update,appup_test_m4,soft,soft_purge,brutal_purge,[]},
     {update,appup_test_m5,500,{advanced,x},soft_purge,soft_purge,[]},
     {update,appup_test_m6,static,infinity,{advanced,[]},brutal_purge,soft_purge,[appup_test_m1]},
     {load_module,appup_test_m7},
     {load_module,appup_test_m8,soft_purge,soft_purge,[appup_test_m7]},
     {add_module,appup_test_m9,[appup_test_m7]},
     {delete_module,appup_test_gone},
     {apply,{m,f,[1,<<"b">>]}}]
    """

    text = "{\"2.0.0\", [{\"1.0.0\", #{script}}], [{\"1.0.0\", []}]}."
    File.write!(Path.join(to, "ebin/appup_test.appup"), text)
    assert {:ok, {~c"2.0.0", [{~c"1.0.0", [], low}], _}} = relup(dir, "1.0.0", "2.0.0")
    assert {:apply, {:m, :f, [1, "b"]}} in low
    loaded = for {:load, {module, _, _}} <- low, do: module
    assert Enum.sort(loaded) == names ++ [:appup_test_m9]
  end

  test "restarts where it is told to, or where the callback module is another", %{tmp_dir: dir} do
    from = build!(dir, "1.0.0")
    to = build!(dir, "2.0.0")
    out = Path.join(dir, "out/x.appup")
    Appup.run(["--from", from, "--to", to, "--out", out, "--restart"])
    assert {:ok, [{~c"2.0.0", [{~c"1.0.0", script}], [{~c"1.0.0", script}]}]} = :file.consult(out)
    assert script == [{:restart_application, :appup_test}]
  end

  test "writes nothing where something will break, unless that is accepted", %{tmp_dir: dir} do
    from =
      build!(dir, "1.0.0", appup_test_server: server("{a, b}", "code_change(_, S, _) -> {ok, S}."))

    to =
      build!(dir, "2.0.0",
        appup_test_server: server("{a, b, c}", "code_change(_, S, _) -> {ok, S}.")
      )

    out = Path.join(dir, "x.appup")
    args = ["--from", from, "--to", to, "--out", out]
    error = assert_raise Mix.Error, fn -> Appup.run(args) end
    assert error.message =~ "--accept state_changed_without_code_change"
    refute File.exists?(out)
    Appup.run(args ++ ["--accept", "state_changed_without_code_change"])
    assert File.exists?(out)
  end

  test "says what is wrong with what it is given", %{tmp_dir: dir} do
    from = build!(dir, "1.0.0")
    assert_raise Mix.Error, ~r/--to PATH is needed/, fn -> Appup.run(["--from", from]) end
    assert_raise Mix.Error, ~r/--speed is not understood/, fn -> Appup.run(["--speed"]) end

    assert_raise Mix.Error, ~r/is no build/, fn ->
      Appup.run(["--from", from, "--to", Path.join(dir, "nothing")])
    end
  end

  defp folder(dir, vsn), do: Path.join(dir, "appup_test-#{vsn}")

  defp relup(dir, from, to) do
    paths = for vsn <- [from, to], do: String.to_charlist(Path.join(folder(dir, vsn), "ebin"))
    rels = Map.new([from, to], &{&1, rel!(dir, &1)})

    case :systools.make_relup(rels[to], [rels[from]], [rels[from]], [
           :silent,
           :noexec,
           path: paths
         ]) do
      {:ok, relup, _module, _warnings} -> {:ok, relup}
      other -> other
    end
  end
end
