defmodule HotPatch.Test.Cluster do
  @moduledoc false
  # Real nodes over real distribution on loopback. The test's own node is hidden, so that
  # the nodes form a cluster of their own; each has its own copy of the exchange on disk
  # and a data directory of its own.

  alias HotPatch.Host.SystemLibrary
  alias HotPatch.NodeAgent
  alias HotPatch.Support.Folder
  alias HotPatch.Test.Builds
  alias HotPatch.Test.NodeTag
  alias HotPatch.Test.Until

  @doc "Makes this VM a hidden node."
  @spec distribute!() :: :ok
  def distribute! do
    {_output, 0} = System.cmd("epmd", ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
    name = :"hot_patch_test_#{System.pid()}@127.0.0.1"
    {:ok, _pid} = :net_kernel.start(name, %{name_domain: :longnames, hidden: true})
    :ok
  end

  @doc """
  Starts connected nodes that run HotPatch and the shipped exchange; they end with the
  calling test.

  Options: `release: {name, vsn}`, `exchange: false`, `hot_patch: false`, `native: false` (HotPatch
  without its library), `args: [charlist]`.
  """
  @spec start(pos_integer(), keyword()) :: [node()]
  def start(count, options \\ []) do
    NodeTag.check!()

    nodes =
      1..count
      |> Enum.map(fn _ -> Task.async(fn -> start_node(options) end) end)
      |> Task.await_many(120_000)
      |> Enum.map(fn {peer, node} ->
        ExUnit.Callbacks.on_exit(fn -> stop(peer, node) end)
        node
      end)
      |> Enum.sort()

    connect(nodes)
    nodes
  end

  @doc "Connects nodes with each other."
  @spec connect([node()]) :: :ok
  def connect(nodes) do
    for a <- nodes, b <- nodes, a < b, do: true = call(a, Node, :connect, [b])
    :ok
  end

  # Longer than anything that is waited for takes.
  @call_within 60_000

  @doc """
  Calls a function on a node; what it raises is raised here. By its pipe where it has one, see
  `pipe/2`, else over the network.
  """
  @spec call(node(), module(), atom(), [term()]) :: term()
  def call(node, module, function, args) do
    case :persistent_term.get({__MODULE__, node}, nil) do
      nil -> :erpc.call(node, module, function, args, @call_within)
      peer -> call_by_pipe(peer, module, function, args)
    end
  end

  @doc """
  Waits until a node that joined has these patches, the newest first, and is free again: it is held for
  a moment longer than it takes to have them.
  """
  @spec caught_up(node(), [String.t()]) :: true
  def caught_up(node, patches) do
    up? = fn info ->
      info.operation == nil and Enum.filter(info.applied, &(&1 in patches)) == patches
    end

    Until.until(fn -> up?.(call(node, NodeAgent, :info, [])) end, "#{node} catches up")
  end

  @doc "Waits until no operation holds any of the nodes."
  @spec free([node()]) :: true
  def free(nodes) do
    free? = &(call(&1, NodeAgent, :holder, []) == nil)
    Until.until(fn -> Enum.all?(nodes, free?) end, "the nodes are free")
  end

  @doc """
  From now on a node that was started with `connection: :standard_io` is called by that: for one whose
  network is cut, or whose connections end when nothing comes by them for a few seconds.
  """
  @spec pipe(node(), pid()) :: :ok
  def pipe(node, peer), do: :persistent_term.put({__MODULE__, node}, peer)

  # What `:erpc` says, too, of what is raised there, and of a node that is gone.
  defp call_by_pipe(peer, module, function, args) do
    case :peer.call(peer, __MODULE__, :caught, [module, function, args], @call_within) do
      {:ok, result} -> result
      {:error, reason, stack} -> :erlang.error({:exception, reason, stack})
      {:exit, reason, _stack} -> exit({:exception, reason})
      {:throw, value, _stack} -> throw(value)
    end
  catch
    :exit, {reason, {:gen_server, :call, _}} -> :erlang.error({:erpc, lost(reason)})
  end

  defp lost(:timeout), do: :timeout
  defp lost(_gone), do: :noconnection

  @doc false
  @spec caught(module(), atom(), [term()]) :: {:ok, term()} | {atom(), term(), [term()]}
  def caught(module, function, args) do
    {:ok, apply(module, function, args)}
  catch
    class, reason -> {class, reason, __STACKTRACE__}
  end

  @doc """
  Stops a process of a node from running, as if it were in a long callback, until the
  process that this gives is sent `:resume`.
  """
  @spec hold(node(), pid()) :: pid()
  def hold(node, pid) do
    test = self()
    holder = Node.spawn(node, __MODULE__, :suspend_until_told, [test, pid])

    receive do
      {^holder, :held} -> holder
    after
      120_000 -> ExUnit.Assertions.flunk("#{inspect(pid)} could not be held")
    end
  end

  @doc false
  @spec suspend_until_told(pid(), pid()) :: :ok
  def suspend_until_told(test, pid) do
    # Lasts as long as this process.
    :erlang.suspend_process(pid)
    send(test, {self(), :held})
    receive(do: (:resume -> :ok))
  end

  @doc """
  Of the code path of this VM what a node needs: the libraries of Elixir, and what was built here. The
  folders of OTP every VM has by itself, and what else is installed on this machine is no part of the system.
  """
  @spec code_path() :: [charlist()]
  def code_path do
    otp = :code.lib_dir() ++ ~c"/"

    for path <- :code.get_path(),
        not List.starts_with?(path, otp),
        built?(path) or elixir?(path),
        do: path
  end

  defp built?(path), do: String.starts_with?(to_string(path), Mix.Project.build_path())

  defp elixir?(path),
    do: path |> to_string() |> Path.dirname() |> Path.basename() |> SystemLibrary.application?()

  @doc "Where a node has the exchange."
  @spec exchange(node()) :: Path.t()
  def exchange(node), do: Path.join([home(node), "lib", "exchange-1.0.0"])

  @doc "The folder of a node: its applications and data directory are below."
  @spec home(node()) :: Path.t()
  def home(node), do: Path.join([Builds.tmp(), "nodes", Atom.to_string(node)])

  @doc "All files below the exchange of a node, with their digests: to see that nothing changed."
  @spec disk(node()) :: %{Path.t() => binary()}
  def disk(node) do
    for {path, _stat} <- Folder.tree(exchange(node)), into: %{} do
      case File.read(path) do
        {:ok, bytes} -> {path, Base.encode16(:crypto.hash(:md5, bytes))}
        {:error, :eisdir} -> {path, "folder"}
        # Removed while they are looked at.
        {:error, :enoent} -> {path, "gone"}
      end
    end
  end

  defp start_node(options) do
    name = :"peer_#{System.unique_integer([:positive])}_#{System.pid()}"
    node = :"#{name}@127.0.0.1"
    if Keyword.get(options, :exchange, true), do: copy_exchange(node)
    unless Keyword.get(options, :native, true), do: copy_hot_patch(node)

    # Started from a process that lives as long as the test run, not from the task here.
    {:ok, peer, ^node} =
      :peer.start(%{
        name: name,
        host: ~c"127.0.0.1",
        longnames: true,
        wait_boot: 120_000,
        args: args(node, options)
      })

    start_applications(node, options)
    {peer, node}
  end

  defp start_applications(node, options) do
    {:ok, _} = call(node, Application, :ensure_all_started, [:logger])
    :ok = call(node, Logger, :configure, [[level: :none]])

    if Keyword.get(options, :hot_patch, true) do
      {:ok, _} = call(node, Application, :ensure_all_started, [:hot_patch])
    end

    if Keyword.get(options, :exchange, true) do
      {:ok, _} = call(node, Application, :ensure_all_started, [:exchange])
      # As a release does at boot.
      modules = call(node, Application, :spec, [:exchange, :modules])
      :ok = call(node, :code, :ensure_modules_loaded, [modules])
    end
  end

  defp copy_exchange(node) do
    File.mkdir_p!(exchange(node))
    File.cp_r!(Builds.ebin("shipped"), Path.join(exchange(node), "ebin"))
  end

  # In a folder of its own, without priv.
  defp copy_hot_patch(node) do
    target = Path.join([home(node), "lib", "hot_patch"])
    File.mkdir_p!(target)
    File.cp_r!(Application.app_dir(:hot_patch, "ebin"), Path.join(target, "ebin"))
  end

  defp args(node, options) do
    {name, vsn} = Keyword.get(options, :release, {"exchange", "1.0.0"})

    elsewhere =
      not (Keyword.get(options, :hot_patch, true) and Keyword.get(options, :native, true))

    paths =
      for path <- code_path(),
          not (elsewhere and List.to_string(path) =~ "/hot_patch/"),
          arg <- [~c"-pa", path],
          do: arg

    [
      [~c"-pa", String.to_charlist(exchange(node) <> "/ebin")],
      if(Keyword.get(options, :native, true),
        do: [],
        else: [~c"-pa", ~c"#{home(node)}/lib/hot_patch/ebin"]
      ),
      [~c"-setcookie", Atom.to_charlist(Node.get_cookie())],
      [
        ~c"-kernel",
        ~c"inet_dist_use_interface",
        ~c"{127,0,0,1}",
        ~c"prevent_overlapping_partitions",
        ~c"false"
      ],
      [~c"-exchange", ~c"lines_per_trunk", ~c"100000"],
      [~c"-hot_patch", ~c"data_dir", ~c'<<"#{Path.join(home(node), "data")}">>'],
      [~c"-hot_patch", ~c"release", ~c'{<<"#{name}">>,<<"#{vsn}">>}'],
      Keyword.get(options, :args, [])
    ]
    |> Enum.concat()
    |> then(&(paths ++ &1))
  end

  defp stop(peer, node) do
    :peer.stop(peer)
    File.rm_rf!(home(node))
  catch
    # The test itself has ended it.
    :exit, _ -> File.rm_rf!(home(node))
  end
end
