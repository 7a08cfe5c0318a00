defmodule Bench.Cluster.Nodes do
  # Small nodes that run HotPatch and the application to be patched, each with files and a data
  # directory of its own; connected with each other, but not with this VM, which only starts
  # them and is hidden. The first is the coordinator; one more, hidden too, is nobody's member.

  alias Bench.Cluster.Patch

  @small ~w(+S 1:1 +SDcpu 1:1 +SDio 1 +A 1 +sbwt none +sbwtdcpu none +sbwtdio none)
  @at_a_time 4

  @doc "Starts a cluster of `count` nodes on version 0 of the modules."
  def start(count, root, beams, helpers) do
    ebin = Path.join([root, "shipped", "ebin"])

    unless File.dir?(ebin) do
      File.mkdir_p!(ebin)
      for {module, beam} <- beams, do: File.write!(Path.join(ebin, "#{module}.beam"), beam)
    end

    [bystander | members] =
      0..count
      |> Task.async_stream(&start_one(&1, root, ebin, beams, helpers),
        max_concurrency: @at_a_time,
        timeout: :infinity
      )
      |> Enum.map(fn {:ok, node} -> node end)

    connect(members, bystander)
    %{nodes: members, bystander: bystander, root: root}
  end

  @doc "Ends all nodes, and removes what they have written."
  def stop(cluster) do
    [cluster.bystander | cluster.nodes]
    |> Task.async_stream(fn %{peer: peer} -> :peer.stop(peer) end, timeout: :infinity)
    |> Stream.run()

    File.rm_rf!(Path.join(cluster.root, "nodes"))
    :ok
  end

  @doc "What the coordinator has to know of the cluster."
  def seen_by_coordinator(%{nodes: [_coordinator | others] = nodes, bystander: bystander}) do
    %{
      others: Enum.map(others, & &1.name),
      bystander: bystander.name,
      os_pids: Enum.map(nodes, & &1.os_pid)
    }
  end

  def call(node, module, function, args),
    do: :erpc.call(node.name, module, function, args, :infinity)

  defp start_one(n, root, ebin, beams, helpers) do
    name = :"bench_#{n}_#{System.unique_integer([:positive])}_#{System.pid()}"
    home = Path.join([root, "nodes", Atom.to_string(name)])
    app = Path.join([home, "lib", Patch.app()])
    File.mkdir_p!(Path.join(app, "ebin"))

    for file <- File.ls!(ebin),
        do: File.ln!(Path.join(ebin, file), Path.join([app, "ebin", file]))

    {:ok, peer, node} =
      :peer.start(%{
        name: name,
        host: ~c"127.0.0.1",
        longnames: true,
        wait_boot: 120_000,
        args: args(n, home, app)
      })

    os_pid = :erpc.call(node, :os, :getpid, [])
    node = %{peer: peer, name: node, os_pid: os_pid}
    for {module, code} <- helpers, do: load(node, module, code)
    if n > 0, do: boot(node, beams)
    node
  end

  defp load(node, module, code),
    do: {:module, ^module} = call(node, :code, :load_binary, [module, ~c"bench", code])

  defp boot(node, beams) do
    modules = Enum.map(beams, &elem(&1, 0))
    spec = [vsn: ~c"1.0.0", modules: modules, registered: [], applications: [:kernel, :stdlib]]
    :ok = call(node, :application, :load, [{:application, :bench_app, spec}])
    {:ok, _} = call(node, :application, :ensure_all_started, [:hot_patch])
    :ok = call(node, :code, :ensure_modules_loaded, [modules])

    for server <- Patch.servers(length(modules)),
        do: {:ok, _} = call(node, :gen_server, :start, [{:local, server}, server, [], []])

    :ok
  end

  defp connect([], _bystander), do: :ok

  defp connect([node | rest], bystander) do
    for other <- [bystander | rest],
        do: true = call(node, :net_kernel, :connect_node, [other.name])

    connect(rest, bystander)
  end

  # The coordinator has all processors, as the nodes of a real system do.
  defp args(n, home, app) do
    paths = for path <- :code.get_path(), path != ~c".", arg <- [~c"-pa", path], do: arg
    small = if n == 1, do: [], else: Enum.map(@small, &String.to_charlist/1)

    paths ++
      small ++
      if(n == 0, do: [~c"-hidden"], else: []) ++
      [
        ~c"-pa",
        String.to_charlist(Path.join(app, "ebin")),
        ~c"-setcookie",
        Atom.to_charlist(Node.get_cookie()),
        ~c"-connect_all",
        ~c"false",
        ~c"-kernel",
        ~c"inet_dist_use_interface",
        ~c"{127,0,0,1}",
        ~c"logger_level",
        ~c"none",
        ~c"-logger",
        ~c"level",
        ~c"none",
        ~c"-hot_patch",
        ~c"data_dir",
        ~c'<<"#{Path.join(home, "data")}">>',
        ~c"release",
        ~c'{<<"bench">>,<<"1.0.0">>}'
      ]
  end
end
