defmodule HotPatch.Test.Faults.Machine do
  @moduledoc false
  # A node that can be killed and started again, with the same name, folders and data: it
  # boots as a release does, the modules of its applications from its own disk first, then
  # HotPatch, then the exchange.

  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster
  alias HotPatch.Test.Faults.Load
  alias HotPatch.Test.Faults.Spaces
  alias HotPatch.Test.NodeTag

  import HotPatch.Test.Until

  @enforce_keys [:node, :home, :lib, :data]
  defstruct [
    :node,
    :home,
    :lib,
    :data,
    :peer,
    :os_pid,
    :space,
    :user,
    peers: [],
    env: [],
    path: [],
    release: {"exchange", "1.0.0"}
  ]

  @typedoc """
  `space`: the network namespace that it runs in, see HotPatch.Test.Faults.Spaces. `env`: what is
  set in its environment. `path`: further folders of code. `user`: the number of the user as whom it
  runs, if that is another.
  """
  @type t :: %__MODULE__{
          node: node(),
          home: Path.t(),
          lib: Path.t(),
          data: Path.t(),
          peer: pid() | nil,
          os_pid: String.t() | nil,
          space: String.t() | nil,
          peers: [node()],
          env: [{charlist(), charlist()}],
          path: [Path.t()],
          user: non_neg_integer() | nil,
          release: {String.t(), String.t()} | nil
        }

  # How long a killed one may take to be gone.
  @gone_within 10_000
  @attempts 4

  @doc """
  Machines that know each other, not yet started. With `shared: true` they have their
  applications in one folder, and their data below one; with `spaces: names` each is in a network
  namespace of its own; with `below: folder` all that they have is below that, and with `env: list`
  that is set in their environment, and with `user: number` they run as that user, whose their data is.
  """
  @spec new(pos_integer(), keyword()) :: [t()]
  def new(count, options \\ []) do
    group = "m#{System.unique_integer([:positive])}"
    spaces = options[:spaces] || List.duplicate(nil, count)

    names =
      for {space, n} <- Enum.with_index(spaces, 1),
          do: :"#{group}_#{n}_#{System.pid()}@#{Spaces.address(space)}"

    machines =
      for {name, space} <- Enum.zip(names, spaces) do
        home =
          Path.join([options[:below] || Builds.tmp(), "machines", group, Atom.to_string(name)])

        common = if options[:shared], do: Path.dirname(home), else: home

        %__MODULE__{
          node: name,
          home: home,
          lib: Path.join(common, "lib"),
          data: Path.join(common, "data"),
          space: space,
          env: Keyword.get(options, :env, []),
          user: options[:user],
          peers: List.delete(names, name)
        }
      end

    Enum.each(machines, &install(&1, "shipped"))
    machines
  end

  @doc "One more machine, for a cluster that runs, with a fresh disk."
  @spec like(t(), [node()]) :: t()
  def like(machine, peers) do
    node = :"n#{System.unique_integer([:positive])}_#{System.pid()}@127.0.0.1"
    home = Path.join(Path.dirname(machine.home), Atom.to_string(node))

    new = %__MODULE__{
      node: node,
      home: home,
      lib: Path.join(home, "lib"),
      data: Path.join(home, "data"),
      peers: peers
    }

    install(new, "shipped")
    new
  end

  @doc "Puts a build of the exchange into the machine's folder of applications."
  @spec install(t(), String.t()) :: :ok
  def install(machine, build) do
    File.mkdir_p!(exchange(machine))
    File.cp_r!(Builds.ebin(build), Path.join(exchange(machine), "ebin"))
    :ok
  end

  @doc "Where the machine has the exchange."
  @spec exchange(t()) :: Path.t()
  def exchange(machine), do: Path.join(machine.lib, "exchange-1.0.0")

  @doc "The data directory of the machine's node."
  @spec data(t()) :: Path.t()
  def data(machine), do: Path.join(machine.data, Atom.to_string(machine.node))

  @doc "Starts machines, all at the same time."
  @spec start_all([t()]) :: [t()]
  def start_all(machines) do
    machines
    |> Enum.map(&Task.async(fn -> attempt(&1) end))
    |> Task.await_many(120_000)
    |> Enum.map(fn
      {:ok, machine} -> machine
      {:error, text} -> raise text
    end)
  end

  # One that fails is for the caller to hear of, not for those beside it.
  defp attempt(machine) do
    {:ok, start(machine)}
  catch
    class, reason -> {:error, Exception.format(class, reason, __STACKTRACE__)}
  end

  @doc """
  Starts a machine. Options: `arm: {point, nth}`, to be killed at a step of the start itself;
  then what is given back is dead. `before: fun` is called with the node when no
  application runs yet.
  """
  @spec start(t(), keyword()) :: t()
  def start(machine, options \\ []) do
    machine = boot(machine)
    call = &Cluster.call(machine.node, &1, &2, &3)

    {:ok, _} = call.(Application, :ensure_all_started, [:logger])
    :ok = call.(Load, :log_to, [Path.join(machine.home, "log")])
    # As a boot script does.
    :ok = call.(Application, :load, [:exchange])
    :ok = call.(:code, :ensure_modules_loaded, [call.(Application, :spec, [:exchange, :modules])])
    if arm = options[:arm], do: call.(HotPatch.Support.FaultPoint, :arm, Tuple.to_list(arm))
    if before = options[:before], do: before.(machine.node)

    try do
      {:ok, _} = call.(Application, :ensure_all_started, [:hot_patch])
      {:ok, _} = call.(Application, :ensure_all_started, [:exchange])

      if options[:arm] && call.(HotPatch.Support.FaultPoint, :disarm, []) == :reached,
        do: await_death(machine),
        else: machine
    catch
      :error, {:erpc, :noconnection} -> await_death(machine)
    end
  end

  @doc "Ends a machine as a power cut would."
  @spec kill(t()) :: t()
  def kill(machine) do
    {_output, _status} = System.cmd("kill", ["-9", machine.os_pid], stderr_to_stdout: true)
    await_death(machine)
  end

  @doc "Whether it runs no more."
  @spec dead?(t()) :: boolean()
  def dead?(machine), do: not File.exists?("/proc/#{machine.os_pid}")

  @doc "Waits for the end of one that is killed by itself, and until its name is free."
  @spec await_death(t()) :: t()
  def await_death(machine) do
    until(fn -> dead?(machine) end, "#{machine.node} is dead", @gone_within)
    [name, host] = machine.node |> Atom.to_string() |> String.split("@")
    {:ok, address} = host |> String.to_charlist() |> :inet.parse_address()

    until(
      fn ->
        {:ok, names} = :erl_epmd.names(address)

        not List.keymember?(names, String.to_charlist(name), 0) and
          machine.node not in Node.list(:connected)
      end,
      "the name #{name} is free",
      @gone_within
    )

    %{machine | peer: nil, os_pid: nil}
  end

  @doc "The folder of all machines of a cluster."
  @spec group(t()) :: Path.t()
  def group(machine), do: Path.dirname(machine.home)

  @doc "Ends all nodes of a group that run."
  @spec kill_all(Path.t()) :: :ok
  def kill_all(group) do
    names = for name <- File.ls!(group), name =~ "@", do: String.to_atom(name)

    for node <- names, pid = os_pid(node) do
      _ = System.cmd("kill", ["-9", pid], stderr_to_stdout: true)
      until(fn -> not File.exists?("/proc/#{pid}") end, "#{node} is gone", @gone_within)
    end

    :ok
  end

  defp os_pid(node) do
    Cluster.call(node, System, :pid, [])
  catch
    :error, {:erpc, _not_running} -> nil
  end

  defp boot(machine) do
    NodeTag.check!()
    File.mkdir_p!(machine.home)
    [name, host] = machine.node |> Atom.to_string() |> String.split("@")

    options = %{
      name: String.to_atom(name),
      host: String.to_charlist(host),
      longnames: true,
      wait_boot: 20_000,
      env: machine.env,
      args: args(machine)
    }

    options = options |> Map.merge(Spaces.run_in(machine.space)) |> Map.merge(run_as(machine))
    peer = start_peer(options, @attempts)

    # Its network may be cut; and its connections end when nothing comes by them for three seconds.
    if machine.space, do: :ok = Cluster.pipe(machine.node, peer)
    # A start that is told over a pipe does not connect by itself.
    until(fn -> Node.connect(machine.node) end, "#{machine.node} can be reached", @gone_within)
    %{machine | peer: peer, os_pid: Cluster.call(machine.node, System, :pid, [])}
  end

  defp run_as(%{user: nil}), do: %{}

  defp run_as(%{user: user} = machine) do
    File.mkdir_p!(machine.data)
    for folder <- [machine.home, machine.data], do: :ok = File.chown(folder, user)
    erl = :erl |> Atom.to_string() |> System.find_executable()
    arguments = ["--reuid=#{user}", "--regid=#{user}", "--clear-groups", erl]

    %{
      env: [{~c"HOME", String.to_charlist(machine.home)} | machine.env],
      exec:
        {String.to_charlist(System.find_executable("setpriv")),
         Enum.map(arguments, &String.to_charlist/1)}
    }
  end

  # A host that has much to do may let a start take too long; that is not what is tested.
  defp start_peer(options, attempts) do
    {:ok, peer, _node} = :peer.start(options)
    peer
  catch
    :exit, _reason when attempts > 1 -> start_peer(options, attempts - 1)
  end

  defp args(machine) do
    paths = for path <- Cluster.code_path(), arg <- [~c"-pa", path], do: arg
    peers = Enum.map_join(machine.peers, ",", &"'#{&1}'")

    Enum.concat([
      paths,
      [~c"-pa", ~c"#{exchange(machine)}/ebin"],
      for(folder <- machine.path, arg <- [~c"-pa", to_charlist(folder)], do: arg),
      [~c"-setcookie", Atom.to_charlist(Node.get_cookie())],
      [~c"-kernel", ~c"inet_dist_use_interface", interface(machine)],
      [~c"prevent_overlapping_partitions", ~c"false"],
      # Who is in a network of its own notices soon when that is cut.
      if(machine.space, do: [~c"net_ticktime", ~c"3"], else: []),
      [~c"-exchange", ~c"lines_per_trunk", ~c"100000"],
      # Byte by byte: the folder's name may have anything in it.
      [~c"-hot_patch", ~c"data_dir", List.flatten(:io_lib.format(~c"~w", [machine.data]))],
      [~c"-hot_patch", ~c"peers", ~c"[#{peers}]"],
      release(machine.release)
    ])
  end

  # None is that of a system without a release.
  defp release(nil), do: []

  defp release({name, vsn}),
    do: [~c"-hot_patch", ~c"release", ~c'{<<"#{name}">>,<<"#{vsn}">>}']

  defp interface(machine) do
    machine.space
    |> Spaces.address()
    |> String.replace(".", ",")
    |> then(&String.to_charlist("{#{&1}}"))
  end
end
