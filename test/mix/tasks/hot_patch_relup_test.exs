defmodule Mix.Tasks.HotPatch.RelupTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias HotPatch.Build.Relup
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Upgrade

  @moduletag :tmp_dir

  setup_all do
    {:ok, _} = Application.ensure_all_started(:sasl)
    :ok
  end

  # What changes its state with its version, and knows both ways.
  @converts """
  code_change({down, _}, {v2, All, _}, _) -> {ok, {v1, All}};
  code_change(_, {v1, All}, _) -> {ok, {v2, All, new}}.
  """

  defp till("1") do
    code_change = "code_change(_, State, _) -> {ok, State}."

    {"1",
     [
       Upgrade.server(:till_server, 1, code_change),
       Upgrade.supervisor(:till_sup, :till_server),
       Upgrade.erlang(:till_gone, "-export([f/0]). f() -> 1.")
     ], mod: {:till_sup, []}}
  end

  defp till("2"), do: till("2", @converts)

  defp till("2", code_change) do
    {"2",
     [
       Upgrade.erlang(:till_server, """
       -vsn(2).
       -export([init/1, handle_call/3, handle_cast/2, code_change/3]).
       init(_) -> {ok, {v2, [], new}}.
       handle_call(get, _, State) -> {reply, {2, till_new:f(State)}, State}.
       handle_cast(_, State) -> {noreply, State}.
       #{code_change}
       """),
       Upgrade.supervisor(:till_sup, :till_server),
       Upgrade.erlang(:till_new, "-export([f/1]). f(X) -> X.")
     ], mod: {:till_sup, []}}
  end

  defp plain(name, version) do
    sup = :"#{name}_sup"
    server = :"#{name}_server"
    code_change = "code_change(_, State, _) -> {ok, State}."

    {version, [Upgrade.server(server, 1, code_change), Upgrade.supervisor(sup, server)],
     mod: {sup, []}}
  end

  # The first has an application that goes, the second one that is new.
  defp releases(dir, options \\ []) do
    till = Keyword.get(options, :till, till("2"))
    more = &Keyword.get(options, &1, [])
    old = [till: till("1"), scales: plain(:scales, "1"), audit: plain(:audit, "1")]
    new = [till: till, scales: plain(:scales, "1"), gifts: plain(:gifts, "1")]

    [
      Upgrade.make(Path.join(dir, "old"), "1", old, more.(:old)),
      Upgrade.make(Path.join(dir, "new"), "2", new, more.(:new))
    ]
  end

  # What it prints, says of errors, and its exit code.
  defp run(args) do
    parent = self()

    stderr =
      capture_io(:stderr, fn ->
        stdout = capture_io(fn -> send(parent, {:code, code(args)}) end)
        send(parent, {:stdout, stdout})
      end)

    assert_received {:code, code}
    assert_received {:stdout, stdout}
    {code, stdout, stderr}
  end

  defp code(args) do
    Mix.Task.rerun("hot_patch.relup", args)
    0
  catch
    :exit, {:shutdown, code} -> code
  end

  test "shows and writes what leads up and down", %{tmp_dir: dir} do
    [old, new] = releases(dir)
    assert {0, text, ""} = run(["--from", old, "--to", new])
    assert text =~ "shop 1 to 2, and back"
    assert text =~ "up, by the analysis\n    {add_module,till_new}\n"
    assert text =~ "{update,till_server,{advanced,[]},[till_new]}"
    assert text =~ "gifts 1: new, is started"
    assert text =~ "audit 1: goes, is stopped"
    refute text =~ "scales"
    relup = Path.join(new, "releases/2/relup")
    appup = Path.join(new, "lib/till-2/ebin/till.appup")
    assert text =~ "wrote #{relup}" and text =~ "wrote #{appup}"

    assert {:ok, [{~c"2", [{~c"1", [], up}], [{~c"1", [], down}]}]} = :file.consult(relup)
    assert {:code_change, :up, [{:till_server, []}]} in up
    assert {:apply, {:application, :start, [:gifts, :permanent]}} in up
    assert {:apply, {:application, :stop, [:audit]}} in up
    assert {:code_change, :down, [{:till_server, []}]} in down
    assert {:apply, {:application, :start, [:audit, :permanent]}} in down
    assert {:ok, [{~c"2", [{~c"1", [_ | _]}], [{~c"1", [_ | _]}]}]} = :file.consult(appup)

    # The same again: what was made here is made again, also after the code has changed.
    before = {File.read!(relup), File.read!(appup)}
    assert {0, ^text, ""} = run(["--from", old, "--to", new])
    assert {File.read!(relup), File.read!(appup)} == before
    {vsn, modules, more} = till("2")
    till = {vsn, [Upgrade.erlang(:till_more, "") | modules], more}
    Upgrade.make(new, "2", till: till, scales: plain(:scales, "1"))
    assert {0, text, ""} = run(["--from", old, "--to", new])
    assert text =~ "up, by the analysis\n    {add_module,till_more}\n"
    assert text =~ "wrote #{appup}"
  end

  test "takes what the authors of an application have written, each direction by itself", %{
    tmp_dir: dir
  } do
    [old, new] = releases(dir, till: till("2", "code_change(_, S, _) -> {ok, S}."))
    assert {1, "", text} = run(["--from", old, "--to", new])
    assert text =~ "state_changed_without_code_change" and text =~ "--restart APP"
    file = Path.join(new, "lib/till-2/ebin/till.appup")
    refute File.exists?(file)
    refute File.exists?(Path.join(new, "releases/2/relup"))

    # Theirs to answer for; a regular expression covers as well.
    own = ~S|{"2", [{<<"1(\\.[0-9]+)*">>, [{restart_application, till}]}], []}.|
    File.write!(file, own)
    accept = ["--accept", "state_changed_without_code_change"]
    assert {1, "", _dangerous} = run(["--from", old, "--to", new])
    assert {0, text, ""} = run(["--from", old, "--to", new | accept])
    assert text =~ "up, by its own appup\n    {restart_application,till}\n"
    assert text =~ "down, by the analysis\n"
    File.write!(file, String.replace(own, "[]}", ~S|[{"1", [{restart_application, till}]}]}|))
    assert {0, text, ""} = run(["--from", old, "--to", new])
    assert text =~ "down, by its own appup\n"
    assert File.read!(file) =~ "[0-9]"
    out = Path.join(dir, "out")

    # One for another version does not count, and stays as it is.
    other = String.replace(own, ~S|{"2"|, ~S|{"3"|)
    File.write!(file, other)
    options = ["--from", old, "--to", new, "--out", out, "--restart", "till"]
    assert {0, text, ""} = run(options)
    assert text =~ "up, by a restart of the application"
    assert File.read!(file) == other
    assert File.ls!(out) == ["relup"]
  end

  test "says what is not fit for it, and what to do", %{tmp_dir: dir} do
    [old, new] = releases(dir)
    run = fn old, new -> Relup.run(from: old, to: new) end
    say = fn {:error, error} -> Exception.message(error) end

    assert say.(run.(old, old)) =~ "both are shop 1: what repairs one version is a patch"
    assert say.(run.(dir, new)) =~ "is no release: give the folder"
    assert {2, "", text} = run(["--from", old])
    assert text =~ "--to RELEASE is needed"
    assert {1, "", text} = run(["--from", old, "--to", new, "--restart", "scales"])
    assert text =~ "--restart scales: there is no application"

    others = Upgrade.make(Path.join(dir, "erts"), "2", [till: till("2")], erts: ~c"99.1")
    assert say.(run.(old, others)) =~ "another runtime system cannot come live"

    bare =
      Upgrade.make(Path.join(dir, "bare"), "2", [till: till("2")], system: [:kernel, :stdlib])

    assert say.(run.(old, bare)) =~ "shop 2 has no sasl"

    tar = Path.join(dir, "shop-2.tar.gz")
    File.write!(tar, "")
    assert say.(run.(old, tar)) =~ "is a file: unpack it"

    # What belongs to Elixir and has no appup, as Elixir has none.
    [older, newer] =
      for {name, vsn} <- [{"older", "1"}, {"newer", "2"}] do
        apps = [till: till(vsn), eex: {"1.14.#{vsn}", [], []}]
        Upgrade.make(Path.join(dir, name), vsn, apps)
      end

    assert say.(run.(older, newer)) =~ "eex is 1.14.1 in one release and 1.14.2 in the other"

    changed = Upgrade.erlang(:scales_sup, "-export([f/0]). f() -> 1.")
    same = [till: till("2"), scales: {"1", [changed], []}]
    same = Upgrade.make(Path.join(dir, "same"), "2", same)
    assert say.(run.(old, same)) =~ "the version is: scales 1 (scales_server, scales_sup)"

    # A module that the resource file names and nobody has built.
    File.rm!(Path.join(new, "lib/gifts-1/ebin/gifts_server.beam"))
    text = say.(run.(old, new))
    assert text =~ "release_handler would not carry out the way to shop 2"
    refute File.exists?(Path.join(new, "releases/2/relup"))
  end

  test "says what release_handler will not do", %{tmp_dir: dir} do
    [old, new] = releases(dir)
    File.write!(Path.join(new, "releases/2/runtime.exs"), "import Config")
    assert {0, text, ""} = run(["--from", old, "--to", new])
    assert text =~ "note: runtime.exs and other config providers do not run"
  end

  test "refuses a protocol with other implementations that nothing could load", %{tmp_dir: dir} do
    {{name, bytes}, [before, later], _implementation} = protocol(Path.join(dir, "protocol"))

    make = fn folder, vsn, consolidated ->
      apps =
        [scales: plain(:scales, "1")] ++ if(vsn == "2", do: [gifts: plain(:gifts, "1")], else: [])

      Upgrade.make(Path.join(dir, folder), vsn, apps, consolidated: [consolidated])
    end

    [old, new] = releases = [make.("old", "1", before), make.("new", "2", later)]
    assert {1, "", text} = run(["--from", old, "--to", new])
    assert text =~ "no application of the release has the protocol #{name} of shop 1"

    for root <- releases,
        do: File.write!(Path.join(root, "lib/scales-1/ebin/#{name}.beam"), bytes)

    assert {1, "", text} = run(["--from", old, "--to", new])
    assert text =~ "no application changes its version whose instructions could load them"
  end

  test "does not throw away the way from another version", %{tmp_dir: dir} do
    [old, new] = releases(dir)
    relup = Path.join(new, "releases/2/relup")
    File.write!(relup, ~S|{"2", [{"0", [], []}], []}.|)
    assert {:error, error} = Relup.run(from: old, to: new)
    assert Exception.message(error) =~ "has the way from 0 too"
    assert File.read!(relup) =~ ~S|{"0"|
  end

  describe "release_handler" do
    @describetag :starts_nodes
    @describetag timeout: 120_000

    test "goes up and down by it, with processes and their states", %{tmp_dir: dir} do
      {plain, [before, later], integers} = protocol(Path.join(dir, "protocol"))
      {vsn, modules, more} = till("2")
      till = {vsn, modules ++ [integers], more}

      [old, new] =
        releases(dir,
          till: till,
          old: [consolidated: [before]],
          new: [consolidated: [later]]
        )

      # The protocol is of the application that is the same in both.
      {name, bytes} = plain

      for root <- [old, new],
          do: File.write!(Path.join([root, "lib/scales-1/ebin", "#{name}.beam"]), bytes)

      assert {0, text, ""} = run(["--from", old, "--to", new])
      assert text =~ "protocols with other implementations: HotPatch.RelupTest.Weight"
      system = Upgrade.deploy(old, new)
      call = &Cluster.call(system.node, &1, &2, &3)
      state = fn -> call.(:gen_server, :call, [:till_server, :get]) end
      running = fn name -> call.(:erlang, :whereis, [name]) != :undefined end
      weight = fn -> call.(name, :impl_for, [1]) end

      # A boot script of mix release would have loaded the consolidated one.
      call.(:code, :load_binary, [name, ~c"weight", elem(before, 1)])
      :ok = call.(:gen_server, :call, [:till_server, {:add, :coin}])
      pid = call.(:erlang, :whereis, [:till_server])
      assert {state.(), weight.()} == {{1, {:v1, [:coin]}}, nil}
      assert {running.(:audit_server), running.(:gifts_server)} == {true, false}

      assert {:ok, ~c"1", []} = Upgrade.up(system)
      assert {state.(), weight.()} == {{2, {:v2, [:coin], :new}}, elem(integers, 0)}
      assert {running.(:audit_server), running.(:gifts_server)} == {false, true}

      assert {:ok, ~c"1", []} = Upgrade.down(system)
      assert {state.(), weight.()} == {{1, {:v1, [:coin]}}, nil}
      assert {running.(:audit_server), running.(:gifts_server)} == {true, false}
      assert call.(:erlang, :whereis, [:till_server]) == pid
    end
  end

  # A protocol and an implementation as they are compiled, and the protocol consolidated without it and with it.
  defp protocol(folder) do
    compiled =
      Code.compile_string("""
      defprotocol HotPatch.RelupTest.Weight do
        def of(thing)
      end

      defimpl HotPatch.RelupTest.Weight, for: Integer do
        def of(number), do: number
      end
      """)

    # It is consolidated from its file.
    File.mkdir_p!(folder)

    for {name, bytes} <- compiled do
      File.write!(Path.join(folder, "#{name}.beam"), bytes)
      forget(name)
    end

    Code.prepend_path(folder)
    name = HotPatch.RelupTest.Weight

    consolidated =
      for implementations <- [[], [Integer]] do
        {:ok, bytes} = Protocol.consolidate(name, implementations)
        {name, bytes}
      end

    Code.delete_path(folder)
    for {name, _bytes} <- compiled, do: forget(name)
    {plain, [implementation]} = Enum.split_with(compiled, &match?({^name, _bytes}, &1))
    {hd(plain), consolidated, implementation}
  end

  defp forget(module) do
    :code.purge(module)
    :code.delete(module)
  end
end
