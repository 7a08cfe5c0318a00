defmodule HotPatch.Test.Hosts do
  @moduledoc false
  # Nodes as a release has them: each a process of the operating system that boots HotPatch and the
  # exchange by itself, and so also comes back from `init:restart/0`. They know each other, and have calls
  # in progress and traffic on them.

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Load
  alias HotPatch.Test.NodeTag

  import HotPatch.Test.Until

  @enforce_keys [:node, :home, :port, :os_pid]
  defstruct @enforce_keys

  @type t :: %__MODULE__{node: node(), home: Path.t(), port: port(), os_pid: String.t()}

  @boot_within 30_000

  @doc """
  Starts connected nodes; they end with the calling test. `config` is what `config :hot_patch` says
  on the first of them beside its folders.
  """
  @spec start(pos_integer(), keyword(), pos_integer()) :: [t()]
  def start(count, config, calls) do
    NodeTag.check!()
    group = "host#{System.unique_integer([:positive])}"
    names = for n <- 1..count, do: :"#{group}_#{n}_#{System.pid()}@127.0.0.1"

    ports =
      for {name, n} <- Enum.with_index(names) do
        {name, open(name, List.delete(names, name), if(n == 0, do: config, else: []))}
      end

    hosts = for {name, port} <- ports, do: await(name, port)

    for host <- hosts,
        do: until(fn -> sees_all?(host.node, names) end, "#{host.node} sees the others")

    for host <- hosts, calls > 0, do: :ok = Cluster.call(host.node, Load, :start, [calls])
    hosts
  end

  @doc "Ends a node as a power cut would."
  @spec kill(t()) :: :ok
  def kill(host) do
    {_output, _status} = System.cmd("kill", ["-9", host.os_pid], stderr_to_stdout: true)
    :ok
  end

  @doc "The folder of a node."
  @spec home(node()) :: Path.t()
  def home(node), do: Path.join([Builds.tmp(), "hosts", Atom.to_string(node)])

  defp open(name, peers, config) do
    home = home(name)
    lib = Path.join([home, "lib", "exchange-1.0.0"])
    File.mkdir_p!(lib)
    File.cp_r!(Builds.ebin("shipped"), Path.join(lib, "ebin"))

    File.write!(
      Path.join(home, "sys.config"),
      :io_lib.format("~tp.~n", [settings(home, peers, config)])
    )

    Port.open({:spawn_executable, System.find_executable("erl")}, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      args: args(name, home, lib)
    ])
  end

  defp settings(home, peers, config) do
    [
      kernel: [inet_dist_use_interface: {127, 0, 0, 1}, prevent_overlapping_partitions: false],
      logger: [level: :error],
      exchange: [lines_per_trunk: 100_000],
      hot_patch:
        Keyword.merge(
          [data_dir: Path.join(home, "data"), peers: peers, release: {"exchange", "1.0.0"}],
          config
        )
    ]
  end

  defp args(name, home, lib) do
    paths = for path <- Cluster.code_path(), arg <- ["-pa", List.to_string(path)], do: arg

    paths ++
      ["-pa", Path.join(lib, "ebin"), "-name", Atom.to_string(name), "-noinput"] ++
      ["-setcookie", Atom.to_string(Node.get_cookie()), "-config", Path.join(home, "sys")] ++
      [
        "-eval",
        "{ok, _} = application:ensure_all_started(exchange), {ok, _} = application:ensure_all_started(hot_patch)."
      ]
  end

  defp await(name, port) do
    until(fn -> Node.connect(name) == true and up?(name) end, "#{name} is up", @boot_within)
    os_pid = Cluster.call(name, System, :pid, [])

    ExUnit.Callbacks.on_exit(fn ->
      System.cmd("kill", ["-9", os_pid], stderr_to_stdout: true)
      File.rm_rf!(home(name))
    end)

    %__MODULE__{node: name, home: home(name), port: port, os_pid: os_pid}
  end

  defp up?(name) do
    started = Cluster.call(name, Application, :started_applications, [])
    List.keymember?(started, :hot_patch, 0)
  catch
    # Between two breaths of its boot.
    :error, _ -> false
  end

  defp sees_all?(node, names), do: names -- [node | Cluster.call(node, Node, :list, [])] == []
end
