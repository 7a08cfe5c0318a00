defmodule HotPatch.ProvingTest do
  # A patch is tried on nodes of a release that are started for it, and are gone afterwards.
  use ExUnit.Case, async: false

  import HotPatch.Test.Until

  alias HotPatch.Error
  alias HotPatch.Proving
  alias HotPatch.Proving.Step
  alias HotPatch.Proving.Story
  alias HotPatch.Test.Archives
  alias HotPatch.Test.BootedRelease
  alias HotPatch.Test.Builds
  alias HotPatch.Test.NextRelease

  doctest HotPatch.Proving

  @moduletag :tmp_dir
  @moduletag timeout: 300_000

  @load """
  defmodule HotPatch.ProvingTest.Calls do
    @behaviour HotPatch.Proving.Load
    @number {"1234567", "7654321"}

    def start(nodes) do
      calls = for(node <- nodes, do: :erpc.call(node, Exchange, :start_calls, [List.duplicate(@number, 3)]))
      for pid <- List.flatten(calls), do: spawn(fn -> asks(pid) end)
      calls
    end

    # As long as there is somebody to be asked.
    defp asks(pid) do
      %{} = GenServer.call(pid, :info, :infinity)
      receive(do: (:never -> nil), after: (5 -> asks(pid)))
    catch
      :exit, _gone -> :ok
    end

    def check(nodes, calls) do
      # Whoever talks is metered, by a loop that comes to the new code with that.
      for pid <- List.flatten(calls), :erpc.call(node(pid), Process, :alive?, [pid]), do: GenServer.call(pid, {:talk, 1})
      lost = for node <- nodes, :erpc.call(node, System, :get_env, ["LOAD_NODE"]) == nil, do: node
      if lost == [], do: :ok, else: {:error, "no environment"}
    end

    def stop(_nodes, calls) do
      # Those of the node that was restarted are gone with it.
      left = for pid <- List.flatten(calls), :erpc.call(node(pid), Process, :alive?, [pid]), do: GenServer.call(pid, :info)
      if length(left) == 3, do: :ok, else: {:error, "\#{length(left)} calls are left"}
    end

    def environment(index), do: [{"LOAD_NODE", "\#{index}"}]
  end
  """

  defp patch(dir, build) do
    path = Path.join(dir, "#{build}.zip")
    File.write!(path, Archives.zip(Builds.changed(build)))
    path
  end

  defp options(dir, more) do
    load = Path.join(dir, "load.exs")
    File.write!(load, @load)
    root = BootedRelease.startable()
    on_exit(fn -> BootedRelease.remove(root) end)
    [from: root, load: load, logs: Path.join(dir, "logs"), watch: 300, timeout: 120_000] ++ more
  end

  defp outcomes(proving), do: for(step <- proving.steps, do: {step.name, step.outcome})

  defp nobody_left(%{nodes: [_ | _] = nodes}) do
    gone? = fn ->
      {names, 0} = System.cmd("epmd", ["-names"])
      not Enum.any?(nodes, &(names =~ hd(String.split("#{&1}", "@"))))
    end

    until(gone?, "the nodes are gone")
  end

  # As the script of a release has it: what boots is what start_erl.data names.
  @script """
  #!/bin/sh
  set -e
  [ "$1" = start ]
  root=$(cd "$(dirname "$0")/.." && pwd)
  read -r _erts version < "$root/releases/start_erl.data" || true
  export RELEASE_ROOT="$root"
  exec "ERLANG/bin/erl" -noinput -boot "$root/releases/$version/start" -boot_var RELEASE_LIB "$root/lib" \\
    -config "$root/releases/$version/sys" -mode embedded -sasl releases_dir "\\"$root/releases\\"" \\
    -hot_patch data_dir "\\"$root/data\\"" -name "$RELEASE_NODE" -setcookie "$RELEASE_COOKIE"
  """

  @sales """
  defmodule HotPatch.ProvingTest.Sales do
    @behaviour HotPatch.Proving.Load
    def start(nodes), do: for(node <- nodes, do: :erpc.call(node, :gen_server, :call, [:shop_server, :sell]))
    def check(nodes, _sold) do
      sold = for node <- nodes, do: :erpc.call(node, :gen_server, :call, [:shop_server, :get])
      if Enum.all?(sold, &match?({version, _state} when version in [1, 2], &1)), do: :ok, else: {:error, inspect(sold)}
    end
    def stop(nodes, _sold), do: check(nodes, nil)
  end
  """

  @tag :starts_nodes
  test "an upgrade goes the whole way, and what is restarted boots the new release", %{
    tmp_dir: dir
  } do
    %{old: old, new: new} = NextRelease.make()
    script = Path.join(old, "bin/shop")
    File.mkdir_p!(Path.dirname(script))
    File.write!(script, String.replace(@script, "ERLANG", "#{:code.root_dir()}"))
    File.chmod!(script, 0o755)
    load = Path.join(dir, "sales.exs")
    File.write!(load, @sales)

    options = [
      from: old,
      to: new,
      # Of a single node nobody but who rehearses can tell that it is back.
      nodes: 1,
      load: load,
      logs: Path.join(dir, "logs"),
      watch: 300,
      timeout: 120_000
    ]

    assert {:ok, proving} = Proving.run(options)
    assert proving.outcome == :ok, "#{proving}"
    steps = List.insert_at(Story.steps(), -3, :make_permanent)
    assert outcomes(proving) == for(name <- steps, do: {name, :ok})
    assert to_string(proving) =~ "the next start of each node boots 1.1.0"
    nobody_left(proving)
  end

  @tag :starts_nodes
  test "a good patch goes the whole way, and nothing is left but logs", %{tmp_dir: dir} do
    options = options(dir, patch: patch(dir, "patched"), nodes: 2, replay: 1)
    assert {:ok, %Proving{} = proving} = Proving.run(options)
    steps = List.insert_at(Story.steps(), 4, :replay)
    assert outcomes(proving) == for(name <- steps, do: {name, :ok}), to_string(proving)
    assert %{text: text} = Enum.find(proving.steps, &(&1.name == :replay))
    assert text =~ ~r/\A[1-9]\d* messages of \d+ processes played: [1-9]\d* alike, 0 not; /
    assert proving.outcome == :ok
    assert proving.patch =~ ~r/\Arehearsal-[0-9a-f]{12}\z/
    assert File.ls!(Path.join(dir, "logs")) |> Enum.sort() == ["node1.log", "node2.log"]
    assert to_string(proving) =~ "on live states: ok"
    nobody_left(proving)

    assert Path.wildcard(Path.join(System.tmp_dir!(), "hot_patch-rehearsal-#{System.pid()}-*")) ==
             []
  after
    :code.purge(HotPatch.ProvingTest.Calls)
    :code.delete(HotPatch.ProvingTest.Calls)
  end

  @tag :starts_nodes
  test "one that fails does so before it is applied, and the rest is skipped", %{tmp_dir: dir} do
    options = options(dir, patch: patch(dir, "broken"), nodes: 1)
    assert {:ok, %Proving{outcome: :failed} = proving} = Proving.run(options)

    first = proving |> outcomes() |> Enum.take(5)
    wanted = [boot: :ok, load: :ok, upload: :ok, rehearse: :failed, apply: :skipped]
    assert first == wanted, to_string(proving)
    assert %{text: text} = Enum.find(proving.steps, &(&1.outcome == :failed))
    assert text =~ "the new code of Exchange.Call failed"
    nobody_left(proving)

    xml = Proving.junit(proving)
    assert xml =~ ~s(tests="9" failures="1" skipped="5")
  after
    :code.purge(HotPatch.ProvingTest.Calls)
    :code.delete(HotPatch.ProvingTest.Calls)
  end

  @failing """
  defmodule HotPatch.ProvingTest.Failing do
    @behaviour HotPatch.Proving.Load
    def start(_nodes), do: spawn_link(fn -> exit(:no_more_calls) end)
    def check(_nodes, _pid), do: :ok
    def stop(_nodes, _pid), do: :ok
  end
  """

  @tag :starts_nodes
  test "a load that fails ends it with words, and one whose VM is killed leaves nothing", %{
    tmp_dir: dir
  } do
    load = Path.join(dir, "failing.exs")
    File.write!(load, @failing)
    options = options(dir, patch: patch(dir, "patched"), nodes: 1)
    assert {:ok, proving} = Proving.run(Keyword.put(options, :load, load))
    assert %{text: text} = failed = Enum.find(proving.steps, &(&1.outcome == :failed))
    assert text =~ "then a process of the load ended: :no_more_calls"
    assert failed.name in [:load, :rehearse], "#{proving}"
    nobody_left(proving)

    # Whoever has started the nodes is killed, as a VM is: what it has open is closed then.
    work = Path.join(dir, "work")
    test = self()

    starter =
      spawn(fn ->
        {:ok, release} = Proving.Release.unpack(options[:from], Path.join(work, "release"))
        {:ok, nodes} = Proving.Nodes.prepare(release, 1, work, Path.join(dir, "logs"))
        {:ok, [one]} = Proving.Nodes.boot(nodes, HotPatch.Proving.OwnStart, 60_000)
        send(test, {:up, one.node})
        receive(do: (:never -> :ok))
      end)

    assert_receive {:up, node}, 120_000
    Process.exit(starter, :kill)
    nobody_left(%{nodes: [node]})
    until(fn -> not File.exists?(work) end, "its folder is gone")
  end

  @tag :starts_nodes
  test "a crash at what the load asks is found before anything is applied", %{tmp_dir: dir} do
    files =
      Enum.map(
        Builds.changed("patched"),
        &if(elem(&1, 0) =~ "Exchange.Call.", do: Builds.planted(&1), else: &1)
      )

    zip = Path.join(dir, "planted.zip")
    File.write!(zip, Archives.zip(files))
    [json, junit] = for name <- ~w(result.json result.xml), do: Path.join(dir, name)
    options = options(dir, [])

    args =
      ~w(--patch #{zip} --replay 1 --json #{json} --junit #{junit} --timeout 120000) ++
        Enum.flat_map([:from, :load, :logs], &["--#{&1}", options[&1]])

    {told, table} =
      ExUnit.CaptureIO.with_io(fn ->
        ExUnit.CaptureIO.capture_io(:stderr, fn ->
          assert catch_exit(Mix.Tasks.HotPatch.Rehearse.run(args)) == {:shutdown, 1}
        end)
      end)

    assert told =~ "replay: the new code of Exchange.Call crashed at "
    assert table =~ ~r/rehearse +ok /
    assert table =~ ~r/replay +failed /
    assert table =~ ~r/apply +skipped /
    assert table =~ "crashes in the new code"
    assert table =~ "call :info"
    assert File.read!(json) =~ ~s("message":"call :info")
    assert File.read!(junit) =~ ~s(tests="10" failures="1" skipped="5")

    assert File.read!(junit) =~
             ~r/name="replay" time="[0-9.]+"><failure message="the new code of Exchange.Call/
  after
    :code.purge(HotPatch.ProvingTest.Calls)
    :code.delete(HotPatch.ProvingTest.Calls)
  end

  test "what cannot be begun is told, each with what is wrong", %{tmp_dir: dir} do
    zip = Path.join(dir, "fix.zip")
    File.write!(zip, "no zip")
    empty = Path.join(dir, "empty")
    File.mkdir_p!(Path.join(empty, "bin"))
    broken = Path.join(dir, "load.exs")
    File.write!(broken, "defmodule HotPatch.ProvingTest.NoLoad do\n def start(_), do: 1\nend")
    tar = Path.join(dir, "release.tar.gz")
    File.write!(tar, "no tar")
    logs = Path.join(dir, "logs")

    for {options, reason, text} <- [
          {[patch: zip], :invalid_option, "option :from is missing"},
          {[from: empty], :invalid_option, ":patch is needed"},
          {[from: empty, patch: "/nowhere/fix.zip"], :file, "cannot read /nowhere/fix.zip"},
          {[from: "/nowhere", patch: zip], :build, "/nowhere is no release"},
          {[from: empty, patch: zip], :build, "it has no bin/NAME"},
          {[from: tar, patch: zip], :build, "it is no tar"},
          {[from: empty, patch: zip, load: broken], :build, "one module with start/1"},
          {[from: empty, patch: zip, load: "/nowhere.exs"], :build, "/nowhere.exs"},
          {[from: empty, patch: zip, nodes: 0], :invalid_option, "option :nodes"}
        ] do
      assert {:error, %Error{} = error} = Proving.run([logs: logs] ++ options)
      assert {error.reason, error.message =~ text} == {reason, true}, error.message
    end
  end

  test "the script to start from is a load", %{tmp_dir: dir} do
    path = Path.join(dir, "load.exs")
    File.write!(path, Proving.load_script())
    assert {:ok, load} = Proving.Load.read(path)
    assert load == Module.concat([Load])
    assert load.start([]) == []
    assert load.check([], []) == :ok
    assert load.stop([], []) == :ok
  after
    :code.purge(Module.concat([Load]))
    :code.delete(Module.concat([Load]))
  end

  test "JUnit's XML holds whatever a step says" do
    proving = %Proving{
      outcome: :failed,
      patch: "a&b",
      logs: "logs",
      started_at: DateTime.utc_now(),
      duration_us: 1_500_000,
      steps: [
        %Step{name: :boot, outcome: :ok},
        %Step{name: :apply, outcome: :failed, text: "<\"x\">\n\e[2J", us: 2_000},
        %Step{name: :end, outcome: :skipped}
      ]
    }

    assert Proving.junit(proving) == """
           <?xml version="1.0" encoding="UTF-8"?>
           <testsuite name="hot_patch a&amp;b" tests="3" failures="1" skipped="1" time="1.500">
             <testcase classname="hot_patch.rehearse" name="boot" time="0.000"></testcase>
             <testcase classname="hot_patch.rehearse" name="apply" time="0.002"><failure message="&lt;&quot;x&quot;&gt;\\u{a}\\u{1b}[2J"/></testcase>
             <testcase classname="hot_patch.rehearse" name="end" time="0.000"><skipped/></testcase>
           </testsuite>
           """
  end
end
