defmodule HotPatch.ConsoleBrowserTest do
  # The console in a real browser, on a cluster of three nodes with calls and traffic on them. What is
  # done in the browser is in scenarios.cjs; here is the cluster, and what is done to it meanwhile.
  #
  #     script/test browser
  #
  # Screenshots of every page are left in _build/screenshots.
  use ExUnit.Case, async: false

  alias HotPatch.Console.Password
  alias HotPatch.Test.Archives
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Load
  alias HotPatch.Test.Hosts

  import HotPatch.Test.Until

  @moduletag :starts_nodes
  @moduletag :browser
  @moduletag timeout: 240_000

  @password "correct horse battery staple"
  @shots Path.expand("../../_build/screenshots", __DIR__)
  @playwright Path.expand("../../_build/browser/node_modules/playwright-core", __DIR__)

  test "the whole way, in Chromium" do
    hosts = Hosts.start(3, [console: console()], 200)

    port =
      until(
        fn -> Cluster.call(hd(hosts).node, HotPatch.Console, :port, []) end,
        "the console listens"
      )

    for host <- hosts, do: run_lazy(host.node)
    File.rm_rf!(@shots)
    File.mkdir_p!(@shots)

    browser = open(port, archives())
    assert 0 == converse(browser, %{hosts: hosts, held: nil})

    # The calls were there all the time, and are what they were.
    for host <- Enum.take(hosts, 1), do: assert([] == Cluster.call(host.node, Load, :verify, []))
  end

  defp console do
    hash = Password.hash(@password)
    accounts = [{"alice", :admin}, {"bob", :admin}, {"eve", :viewer}]

    [
      port: 0,
      accounts: for({name, role} <- accounts, do: %{name: name, role: role, password: hash})
    ]
  end

  defp open(port, archives) do
    node = System.find_executable("node") || flunk("node is not here: script/setup browser")

    chromium =
      System.find_executable("chromium") || flunk("chromium is not here: script/setup browser")

    assert File.dir?(@playwright), "playwright-core is not here: script/setup browser"

    Port.open({:spawn_executable, node}, [
      :binary,
      :exit_status,
      {:line, 10_000},
      args: [Path.join(__DIR__, "run.cjs")],
      env:
        for {name, value} <- [
              {"PLAYWRIGHT_CORE", @playwright},
              {"CHROMIUM", chromium},
              {"CONSOLE_URL", "http://127.0.0.1:#{port}"},
              {"SCREENSHOTS", @shots},
              {"ARCHIVES", archives},
              {"PASSWORD", @password}
            ] do
          {String.to_charlist(name), String.to_charlist(value)}
        end
    ])
  end

  defp converse(port, world) do
    receive do
      {^port, {:data, {_eol, "ask " <> words}}} ->
        {answer, world} = answer(words, world)
        Port.command(port, "#{answer}\n")
        converse(port, world)

      {^port, {:data, {_eol, line}}} ->
        IO.puts("    " <> line)
        converse(port, world)

      {^port, {:exit_status, status}} ->
        status
    end
  end

  # What a short call abroad costs tells which build runs.
  defp answer("price", %{hosts: [first | _]} = world),
    do: {Cluster.call(first.node, Exchange, :price, ["004620", 59]), world}

  defp answer("second", %{hosts: [_, second, _]} = world), do: {second.node, world}
  defp answer("third", %{hosts: [_, _, third]} = world), do: {third.node, world}

  # A process that does not suspend lets an operation stand where it is.
  defp answer("hold", %{hosts: [_, _, third]} = world) do
    {:ok, call} = Cluster.call(third.node, Exchange, :start_call, ["held", "0301234"])
    {"held", %{world | held: Cluster.hold(third.node, call)}}
  end

  defp answer("release", world) do
    send(world.held, :resume)
    {"released", world}
  end

  defp answer("kill", %{hosts: [_, _, third]} = world) do
    Hosts.kill(third)
    {"killed", world}
  end

  defp archives do
    folder = Path.join(Builds.tmp(), "archives")
    File.mkdir_p!(folder)

    [damaged | _] = patched = Builds.changed("patched")
    shipped = File.read!(Path.join(Builds.ebin("shipped"), "Elixir.Exchange.beam"))
    {path, bytes} = damaged

    mixed = [
      {path, binary_part(bytes, 0, 200)},
      {"exchange-1.0.0/priv/rates.csv", "country,cents\n46,45\n"},
      {"exchange-0.9.0/ebin/Elixir.Exchange.Call.beam",
       elem(Builds.changed("patched", "Call"), 1)},
      {"exchange-1.0.0/ebin/hot_patch_test_lazy.beam", lazy()},
      {"exchange-1.0.0/ebin/Elixir.Exchange.beam", shipped},
      Builds.changed("patched", "Trunk"),
      {"switchboard-2.0.0/ebin/hot_patch_test_elsewhere.beam",
       Builds.versioned(:hot_patch_test_elsewhere, 1)}
    ]

    for {name, files} <- %{
          "billing.zip" => patched,
          "mixed.zip" => mixed,
          "lazy.zip" => [{"exchange-1.0.0/ebin/hot_patch_test_lazy.beam", lazy()}],
          "names.zip" => [{"exchange-1.0.0/priv/&lt;img src=x onerror=alert(2)&gt;", "text"}],
          "refused.zip" => [{"../../etc/passwd", "root"}]
        },
        do: File.write!(Path.join(folder, name), Archives.zip(files))

    File.write!(Path.join(folder, "passwd.zip"), "/etc/passwd")
    File.write!(Path.join(folder, "large.zip"), :binary.copy(<<0>>, 11 * 1024 * 1024))
    folder
  end

  # What runs of it stays until a restart.
  defp run_lazy(node) do
    ebin = node |> Cluster.call(:code, :which, [Exchange]) |> Path.dirname()
    File.write!(Path.join(ebin, "hot_patch_test_lazy.beam"), lazy(0))
    {:module, _} = Cluster.call(node, :code, :load_file, [:hot_patch_test_lazy])
  end

  defp lazy(vsn \\ 1) do
    Builds.erlang("""
    -module(hot_patch_test_lazy).
    -vsn(#{vsn}).
    -on_load(start/0).
    -export([start/0]).
    start() -> ok.
    """)
  end
end
