defmodule Bench.Upgrade.Nodes do
  # Nodes that run a release each from a folder of its own, as an operating system starts them: a VM that restarts
  # within itself goes on, and one that has ended is started again by `revive/1` only.

  alias Bench.Upgrade.Subject

  @within 60_000

  @doc "Starts so many on the former release, connected with each other, with modules of ours."
  def start(count, root, made, helpers) do
    nodes =
      for n <- 1..count do
        name = :"shop#{n}_#{System.unique_integer([:positive])}_#{System.pid()}@127.0.0.1"
        folder = Path.join(root, "n#{n}")
        File.rm_rf!(folder)
        {_, 0} = System.cmd("cp", ["-a", made.old, folder])
        File.cp!(made.tar, Path.join([folder, "releases", Path.basename(made.tar)]))
        releases(folder)
        spawn_vm(%{name: name, root: folder, os_pid: nil})
      end

    nodes = for node <- nodes, do: await(node)
    for a <- nodes, b <- nodes, a.name < b.name, do: connect(a, b)
    for node <- nodes, {module, code} <- helpers, do: load(node, module, code)
    nodes
  end

  # What release_handler wants to be there before the first start.
  defp releases(folder) do
    releases = to_charlist(Path.join(folder, "releases"))
    rel = to_charlist(Path.join([folder, "releases", Subject.old(), Subject.name() <> ".rel"]))
    handler = Subject.sasl(:release_handler)
    :ok = handler.create_RELEASES(to_charlist(folder), releases, rel, [])
  end

  @doc "Starts one that has ended, as whatever looks after it would: in the release that a start boots."
  def revive(node), do: node |> spawn_vm() |> await()

  @doc "Ends them."
  def stop(nodes) do
    for node <- nodes, do: System.cmd("kill", ["-9", node.os_pid], stderr_to_stdout: true)
    :ok
  end

  @doc "Calls a function on one."
  def call(node, module, function, args),
    do: :erpc.call(node.name, module, function, args, :infinity)

  defp connect(a, b), do: true = call(a, :net_kernel, :connect_node, [b.name])

  defp load(node, module, code),
    do: {:module, ^module} = call(node, :code, :load_binary, [module, ~c"bench", code])

  defp spawn_vm(node) do
    [_erts, version] =
      node.root |> Path.join("releases/start_erl.data") |> File.read!() |> String.split()

    folder = Path.join([node.root, "releases", version])

    args =
      ~w(-noinput -name #{node.name} -mode embedded) ++
        ["-boot", Path.join(folder, "start"), "-config", Path.join(folder, "sys")] ++
        ["-boot_var", "RELEASE_LIB", Path.join(node.root, "lib")] ++
        ["-setcookie", Atom.to_string(Node.get_cookie()), "+sbwt", "none"] ++
        ~w(-kernel inet_dist_use_interface {127,0,0,1} prevent_overlapping_partitions false) ++
        ["-sasl", "releases_dir", inspect(Path.join(node.root, "releases"))] ++
        ~w(-sasl sasl_error_logger false) ++
        ["-hot_patch", "data_dir", ~s(<<"#{Path.join(node.root, "data")}">>)]

    # As a release with an ERTS of its own: its root is the folder, where release_handler unpacks.
    erts = Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "bin"])

    env = [
      {~c"RELEASE_ROOT", to_charlist(node.root)},
      {~c"ROOTDIR", to_charlist(node.root)},
      {~c"BINDIR", to_charlist(erts)},
      {~c"EMU", ~c"beam"},
      {~c"PROGNAME", ~c"erl"}
    ]

    options = [:stderr_to_stdout, :binary, args: args, env: env]
    port = Port.open({:spawn_executable, Path.join(erts, "erlexec")}, options)
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    %{node | os_pid: Integer.to_string(os_pid)}
  end

  @doc "Waits until a node serves: until the server of its application that every start brings answers."
  def await(node) do
    wait(fn -> serves?(node) end, System.monotonic_time(:millisecond) + @within, node)
    node
  end

  @doc "Whether it does."
  def serves?(node) do
    :erpc.call(node.name, :gen_server, :call, [:shop_front, :get, 1_000], 2_000) == :ok
  catch
    _class, _not_there -> false
  end

  defp wait(fun, deadline, node) do
    cond do
      fun.() -> :ok
      System.monotonic_time(:millisecond) > deadline -> raise "#{node.name} does not serve"
      true -> receive(after: (10 -> wait(fun, deadline, node)))
    end
  end
end
