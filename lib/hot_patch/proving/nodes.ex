defmodule HotPatch.Proving.Nodes do
  @moduledoc false
  # The nodes on which a patch is proved: each a copy of the release in a folder of its own, started by the
  # release's own script, on the loopback interface.

  alias HotPatch.Error
  alias HotPatch.Proving.Load
  alias HotPatch.Proving.Release
  alias HotPatch.Support.Hex
  alias HotPatch.Support.Table

  @type one :: %{
          index: pos_integer(),
          node: node(),
          folder: Path.t(),
          script: Path.t(),
          log: Path.t(),
          port: port() | nil
        }
  @type t :: [one()]

  # Starts a node, and ends it with the first line that comes, or when nobody is there any more who could
  # send one: this VM may be killed. Then what it has left on disk goes, too. The output of the node goes to a
  # file, also when nobody reads any more; its script becomes the program itself, so the number stays.
  @guarded """
  exec 3<&0
  "$0" start > "$1" 2>&1 < /dev/null 3<&- &
  node=$!
  {
    if read -r _; then kill -KILL $node; else trap '' TERM; kill -KILL $node; rm -rf "$2"; fi
  } <&3 > /dev/null 2>&1 &
  guard=$!
  exec 3<&- < /dev/null 2> /dev/null
  wait $node
  status=$?
  kill $guard 2> /dev/null
  exit $status
  """

  # Milliseconds: how long a call may take, and how often it is looked.
  @within 5_000
  @look_every 100

  @doc "Copies the release for each node; nothing runs yet."
  @spec prepare(Release.t(), pos_integer(), Path.t(), Path.t()) ::
          {:ok, t()} | {:error, Error.t()}
  def prepare(release, count, work, logs) do
    tag = Hex.random() |> binary_part(0, 8)

    with :ok <- made(logs), :ok <- distributed(), do: copied(release, {count, tag}, work, logs)
  end

  defp made(logs) do
    with {:error, posix} <- File.mkdir_p(logs),
         do: {:error, Error.new(:file, "cannot make #{logs}: #{:file.format_error(posix)}")}
  end

  defp copied(release, {count, tag}, work, logs) do
    # Of this VM, which lives for one call; and as many as it was told.
    cookie = String.to_atom(Hex.random())

    Enum.reduce_while(count..1//-1, {:ok, []}, fn index, {:ok, nodes} ->
      folder = Path.join(work, "node#{index}")

      case File.cp_r(release.folder, folder) do
        {:ok, _files} ->
          node = String.to_atom("rehearsal#{index}_#{tag}@127.0.0.1")
          true = Node.set_cookie(node, cookie)

          one = %{
            index: index,
            node: node,
            folder: folder,
            script: Path.join(folder, release.script),
            log: Path.join(logs, "node#{index}.log"),
            port: nil
          }

          {:cont, {:ok, [one | nodes]}}

        {:error, posix, path} ->
          text = "cannot copy the release for a node: #{path}: #{:file.format_error(posix)}"
          {:halt, {:error, Error.new(:file, text)}}
      end
    end)
  end

  # It only calls; the name server of this machine is the nodes' too.
  defp distributed do
    _ = System.cmd("epmd", ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])

    if Node.alive?() do
      :ok
    else
      own = String.to_atom("hot_patch_rehearsal_#{System.pid()}@127.0.0.1")

      case :net_kernel.start(own, %{name_domain: :longnames, hidden: true, dist_listen: false}) do
        {:ok, _pid} ->
          :ok

        {:error, reason} ->
          {:error, Error.new(:build, "distribution does not start here: #{inspect(reason)}")}
      end
    end
  end

  @doc "Starts them; each is up when HotPatch answers there. The nodes have ports then, also of a failure."
  @spec boot(t(), module(), pos_integer()) :: {:ok | {:error, String.t()}, t()}
  def boot(nodes, load, within) do
    nodes = Enum.map(nodes, &start(&1, load))
    deadline = now() + within

    case Enum.find_value(nodes, &up(&1, deadline)) do
      nil ->
        for one <- nodes,
            other <- nodes,
            one.node < other.node,
            do: :erpc.call(one.node, Node, :connect, [other.node], @within)

        {:ok, nodes}

      text ->
        {{:error, text}, nodes}
    end
  end

  defp start(one, load) do
    {:ok, port} = free_port()

    environment =
      [
        {"RELEASE_NODE", "#{one.node}"},
        {"RELEASE_DISTRIBUTION", "name"},
        {"RELEASE_COOKIE", "#{cookie(one.node)}"},
        {"RELEASE_TMP", Path.join(one.folder, "tmp")},
        {"RELEASE_ROOT", one.folder},
        {"ERL_EPMD_ADDRESS", "127.0.0.1"},
        {"ERL_AFLAGS", "-kernel inet_dist_use_interface {127,0,0,1}"},
        {"HOT_PATCH_REHEARSAL", "#{one.index}"},
        {"PORT", "#{port}"}
      ] ++ Load.environment(load, one.index)

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :exit_status,
        args: ["-c", @guarded, one.script, one.log, Path.dirname(one.folder)],
        cd: one.folder,
        env: for({name, value} <- environment, do: {to_charlist(name), to_charlist(value)})
      ])

    %{one | port: port}
  end

  # As this VM was told it.
  defp cookie(node), do: :erlang.get_cookie(node)

  defp free_port do
    with {:ok, socket} <- :gen_tcp.listen(0, ip: {127, 0, 0, 1}),
         {:ok, port} <- :inet.port(socket),
         :ok <- :gen_tcp.close(socket),
         do: {:ok, port}
  end

  # nil when it is; else why it is not.
  defp up(one, deadline) do
    cond do
      text = ended(one) -> text
      managed?(one.node) -> nil
      now() > deadline -> "#{one.node} does not come up, or does not run HotPatch: see #{one.log}"
      true -> later(fn -> up(one, deadline) end)
    end
  end

  @doc "Why a node is no longer there; nil if it is."
  @spec ended(one()) :: String.t() | nil
  def ended(%{port: port} = one) do
    receive do
      {^port, {:exit_status, status}} ->
        send(self(), {port, {:exit_status, status}})
        "#{one.node} has ended with status #{status}: see #{one.log}"
    after
      0 -> nil
    end
  end

  @doc "Whether a node has started all that it starts, runs HotPatch, and is free."
  @spec managed?(node()) :: boolean()
  def managed?(node) do
    # HotPatch comes before the applications that depend on it.
    Node.connect(node) == true and
      match?({:started, _status}, :erpc.call(node, :init, :get_status, [], @within)) and
      Enum.any?(:erpc.call(node, HotPatch, :nodes, [], @within), fn info ->
        info.node == node and info.managed? and info.operation == nil
      end)
  rescue
    _error -> false
  catch
    _kind, _reason -> false
  end

  defp later(fun) do
    receive do
    after
      @look_every -> fun.()
    end
  end

  @doc "Ends them. Those that have ended already are no obstacle."
  @spec stop(t()) :: :ok
  def stop(nodes) do
    started = for %{port: port} <- nodes, port != nil, do: port
    # One that has ended takes no order, and its port is closed.
    for port <- started, Port.info(port) != nil, do: send(port, {self(), {:command, "end\n"}})
    Enum.each(started, &await_end(&1, now() + @within))
  end

  defp await_end(port, deadline) do
    receive do
      {^port, {:exit_status, _status}} -> :ok
    after
      max(0, deadline - now()) -> if Port.info(port) != nil, do: Port.close(port)
    end
  end

  @doc "Their names."
  @spec names(t()) :: [node()]
  def names(nodes), do: Enum.map(nodes, & &1.node)

  @doc "How many they are, in words."
  @spec count(t()) :: String.t()
  def count(nodes), do: Table.count(length(nodes), "node", "nodes")

  defp now, do: System.monotonic_time(:millisecond)
end
