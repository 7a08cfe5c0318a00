defmodule Mix.Tasks.HotPatch.DeployTest do
  # As its users call it: a VM of its own, which connects to a running cluster, and a release of the repaired system.
  use ExUnit.Case, async: false

  import HotPatch.Test.Operator
  import HotPatch.Test.Until

  alias HotPatch.Build.Running
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.NextRelease

  @moduletag :tmp_dir
  @moduletag :starts_nodes

  defp deploy(arguments, token \\ nil) do
    cookie = Atom.to_string(Node.get_cookie())

    System.cmd("mix", ["hot_patch.deploy", "--cookie", cookie | arguments],
      stderr_to_stdout: true,
      env: [{"MIX_ENV", "test"}, {"HOT_PATCH_SKIP_NATIVE", "1"}, {"HOT_PATCH_TOKEN", token}]
    )
  end

  # Modules that differ between the two builds in nothing but their bytes are those of before.
  defp release(dir, build) do
    root = Path.join(dir, build)
    File.mkdir_p!(Path.join(root, "lib/exchange-1.0.0"))
    File.cp_r!(Builds.ebin(build), Path.join(root, "lib/exchange-1.0.0/ebin"))
    root
  end

  test "from a release to every node, and back", %{tmp_dir: dir} do
    [a, b] = nodes = Cluster.start(2)
    before = for node <- nodes, do: exchange_code(node)
    release = release(dir, "patched")
    to = ["--to", "#{a}", "--release", release]

    assert {output, 0} = deploy(to ++ ["--dry-run"])
    assert output =~ "Exchange.Billing" and output =~ "a dry run"
    assert hot_patch(a, :list, []).items == []

    # Nobody is there who could be asked.
    assert {output, 3} = deploy(to)
    assert output =~ "not confirmed: nothing was changed; --yes"
    assert hot_patch(a, :list, []).items == []
    assert Enum.map(nodes, &exchange_code/1) == before

    options = ~w(--yes --name rates --by alice --reason ticket --canary 1 --watch-for 100)
    assert {output, 0} = deploy(to ++ options)
    assert output =~ "2 nodes"

    [_, id] =
      Regex.run(~r/take it back: mix hot_patch.remote #{a} rollback (rates-[0-9a-f]{12})/, output)

    for node <- nodes, do: assert(id in applied(node))

    # The nodes were told what it takes the place of.
    {:ok, composition} = hot_patch(b, :composition, [id])

    assert %{change: :replace, replaces: %{md5: _}} =
             composition.manifest.modules["Elixir.Exchange.Billing"]

    assert {output, code} = deploy(to ++ ["--yes"])
    assert {code, output =~ "nothing differs"} == {0, true}, output

    left_old_code(nodes)
    assert {:ok, _} = hot_patch(b, :rollback, [id])
    assert Enum.map(nodes, &exchange_code/1) == before
  end

  defp applied(node) do
    for %{node: ^node, applied: applied} <- hot_patch(node, :nodes, []), id <- applied, do: id
  end

  test "the same through the page's interface, where nodes cannot be reached", %{tmp_dir: dir} do
    [a, b] = nodes = Cluster.start(2)
    before = for node <- nodes, do: exchange_code(node)
    url = "http://127.0.0.1:#{console(a)}"
    to = ["--to", url, "--release", release(dir, "patched"), "--name", "rates"]

    assert {output, 1} = deploy(to)
    assert output =~ "a token is missing" and output =~ "HOT_PATCH_TOKEN"
    assert {output, 1} = deploy(to, "token-of-nobody")
    assert output =~ "the token is not one of the configuration"
    assert {output, 1} = deploy(to, "token-of-monitor")
    assert output =~ "monitor is a viewer; this takes an admin"

    assert {output, 3} = deploy(to, "token-of-deploy")
    assert output =~ "Exchange.Billing" and output =~ "not confirmed: nothing was changed"
    assert hot_patch(a, :list, []).items == []

    options = ~w(--yes --canary 1 --watch-for 100)
    assert {output, 1} = deploy(to ++ options, "token-of-deploy")
    assert output =~ "limits of a watch cannot be given through #{url}/api"
    assert applied(a) == []

    assert {output, 0} = deploy(to ++ ["--yes", "--reason", "ticket 1"], "token-of-deploy")
    assert output =~ "2 nodes" and output =~ "take it back: curl"
    [id] = applied(a)
    assert applied(b) == [id]
    {:ok, journal} = hot_patch(a, :journal, [[patch: id]])
    assert Enum.any?(journal, &(&1.by == "deploy" and &1.reason == "ticket 1"))

    assert {output, 0} = deploy(to, "token-of-deploy")
    assert output =~ "nothing differs"
    left_old_code(nodes)
    assert {:ok, _} = hot_patch(b, :rollback, [id])
    assert Enum.map(nodes, &exchange_code/1) == before
  end

  defp console(node) do
    console = HotPatch.Test.Console.options(port: 0)
    :ok = Cluster.call(node, Application, :put_env, [:hot_patch, :console, console])
    Cluster.call(node, HotPatch.Console, :reload, [])
    until(fn -> Cluster.call(node, HotPatch.Console, :port, []) end, "the console listens")
  end

  test "a release of the next version is an upgrade, and runs as that" do
    %{old: old, new: new} = NextRelease.make()
    {node, _peer} = NextRelease.boot(old)
    :ok = NextRelease.ask(node, :shop_server, :sell)
    to = ["--to", "#{node}", "--release", new]

    assert {output, 2} = deploy(to ++ ["--accept", "on_load"])
    assert output =~ "are for patches"

    assert {output, 0} = deploy(to ++ ["--dry-run"])
    assert output =~ "an upgrade to 1.1.0" and output =~ "is not kept on #{node}"
    assert hot_patch(node, :list, []).items == []

    assert {output, 3} = deploy(to)
    assert output =~ "not confirmed: nothing was changed"
    assert NextRelease.ask(node, :shop_server) == {1, {:v1, 1}}

    assert {output, 0} = deploy(to ++ ["--yes"])
    assert NextRelease.ask(node, :shop_server) == {2, %{sold: 1}}
    assert output =~ "have a restart boot it: mix hot_patch.remote #{node} make-permanent 1.1.0"

    assert {output, 0} = deploy(to)
    assert output =~ "nothing differs"
  end

  test "wrong calls say what is wrong", %{tmp_dir: dir} do
    assert {output, 2} = deploy([])
    assert output =~ "--to is missing"
    assert {output, 2} = deploy(["--to", "a@b", "--sideways"])
    assert output =~ "--sideways"
    assert {output, 1} = deploy(["--to", "a@127.0.0.1", "--release", dir])
    assert output =~ "is no release"

    assert {output, 1} =
             deploy(["--to", "nobody@127.0.0.1", "--release", release(dir, "shipped")])

    assert output =~ "cannot be reached"

    shipped = ["--release", release(dir, "shipped")]
    assert {output, 1} = deploy(["--to", "http://shop.example.com" | shipped], "secret")
    assert output =~ "in clear text"
    refute output =~ "secret"
    assert {output, 1} = deploy(["--to", "http://127.0.0.1:1" | shipped], "secret")
    assert output =~ "http://127.0.0.1:1/api does not answer: no connection"
  end

  test "only what differs is asked for", %{tmp_dir: dir} do
    [a] = Cluster.start(1)
    test = self()

    ask = fn function, arguments ->
      send(test, {function, arguments})
      hot_patch(a, function, arguments)
    end

    source = %{
      digests: fn -> ask.(:build_digests, []) end,
      contents: fn paths -> ask.(:build_files, [paths]) end
    }

    folder = Path.join(dir, "mirror")
    assert {[], []} = Running.mirror(source, release(dir, "shipped"), folder)
    assert_received {:build_digests, []}

    assert received() == []

    for file <- File.ls!(Builds.ebin("shipped")) do
      own = Path.join([folder, "lib/exchange-1.0.0/ebin", file])
      assert File.read!(own) == File.read!(Path.join(Builds.ebin("shipped"), file))
    end
  end

  # OTP 26 and later write maps in another order in each VM.
  test "settings are compared by what they say", %{tmp_dir: dir} do
    near = release(dir, "shipped")
    there = Path.join(dir, "there")
    config = "releases/1.0.0/sys.config"

    for {root, text} <- [
          {near, "[{a, [{b, \#{x => 1, y => 2}}]}]."},
          {there, "[{a, [{b, \#{y => 2,x => 1}}]}]."}
        ] do
      file = Path.join(root, config)
      File.mkdir_p!(Path.dirname(file))
      File.write!(file, text)
    end

    digest = fn path -> Base.encode16(:crypto.hash(:sha256, File.read!(path)), case: :lower) end
    file = Path.join(there, config)

    source = %{
      digests: fn -> %{config => digest.(file)} end,
      contents: fn _ -> %{config => File.read!(file)} end
    }

    assert {differing, []} = Running.mirror(source, near, Path.join(dir, "mirror"))
    refute config in differing
    assert File.read!(Path.join([dir, "mirror", config])) == File.read!(Path.join(near, config))

    File.write!(file, "[{a, [{b, 2}]}].")
    assert {differing, []} = Running.mirror(source, near, Path.join(dir, "mirror2"))
    assert config in differing
  end

  defp received do
    receive do
      message -> [message | received()]
    after
      0 -> []
    end
  end
end
