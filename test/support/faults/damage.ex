defmodule HotPatch.Test.Faults.Damage do
  @moduledoc false
  # What is done to files, disks and the network.

  alias HotPatch.Test.Cluster
  alias HotPatch.Test.SmallDisk

  import HotPatch.Test.Until

  # Milliseconds; a handshake with one that is gone takes some seconds.
  @connected_within 40_000

  @doc "Whether file systems can be mounted here."
  @spec mounts?() :: boolean()
  def mounts?, do: SmallDisk.available?()

  @doc "Cuts a file off at a random byte."
  @spec cut(Path.t()) :: :ok
  def cut(path) do
    bytes = File.read!(path)
    File.write!(path, binary_part(bytes, 0, :rand.uniform(byte_size(bytes)) - 1))
  end

  @doc "Flips some bits of a file."
  @spec flip(Path.t()) :: :ok
  def flip(path) do
    bytes = File.read!(path)
    at = :rand.uniform(byte_size(bytes)) - 1
    before = binary_part(bytes, 0, at)
    <<byte, rest::binary>> = binary_part(bytes, at, byte_size(bytes) - at)
    File.write!(path, [before, Bitwise.bxor(byte, :rand.uniform(255)), rest])
  end

  @doc "Mounts a small file system at a folder."
  @spec mount(Path.t(), pos_integer()) :: :ok
  def mount(folder, bytes) do
    File.mkdir_p!(folder)
    run!("mount", ["-t", "tmpfs", "-o", "size=#{bytes}", "tmpfs", folder])
  end

  @spec unmount(Path.t()) :: :ok
  def unmount(folder), do: run!("umount", ["-l", folder])

  @doc "Makes what is mounted at a folder read-only, or writable again."
  @spec read_only(Path.t(), boolean()) :: :ok
  def read_only(folder, yes?) do
    # Until files that are being written are closed it is busy.
    until(
      fn ->
        mode = if yes?, do: "ro", else: "rw"

        match?(
          {_, 0},
          System.cmd("mount", ["-o", "remount,#{mode}", folder], stderr_to_stdout: true)
        )
      end,
      "#{folder} is remounted"
    )

    :ok
  end

  @doc "Fills a file system but for some bytes, by a file."
  @spec fill(Path.t(), non_neg_integer()) :: :ok
  def fill(path, but) do
    {output, 0} = System.cmd("df", ["--output=avail", "-B1", Path.dirname(path)])
    available = output |> String.split() |> List.last() |> String.to_integer()
    File.write!(path, :binary.copy(<<0>>, max(available - but, 0)))
  end

  @doc "Cuts the network between two sets of nodes: what connects is refused."
  @spec cut_network([node()], [node()]) :: :ok
  def cut_network(some, others) do
    each_pair(some, others, fn a, b ->
      Cluster.call(a, :erlang, :set_cookie, [b, :no_way])
      Cluster.call(a, :erlang, :disconnect_node, [b])
    end)
  end

  @doc "Lets them connect again."
  @spec heal_network([node()], [node()]) :: :ok
  def heal_network(some, others) do
    each_pair(some, others, fn a, b ->
      Cluster.call(a, :erlang, :set_cookie, [b, Node.get_cookie()])
    end)

    for a <- some, b <- others, do: see(a, b)
    :ok
  end

  @doc "Waits until all nodes can connect with each other, and do."
  @spec connect([node()]) :: :ok
  def connect(nodes) do
    for a <- nodes, b <- nodes, a < b, do: see(a, b)
    :ok
  end

  # Whoever was cut off may not be reached from here yet.
  defp see(a, b) do
    until(fn -> connected?(a, b) end, "#{a} sees #{b} again", @connected_within)
  end

  defp connected?(a, b) do
    Cluster.call(a, Node, :connect, [b]) == true
  catch
    :error, {:erpc, :noconnection} -> false
  end

  @doc "Lets a number of milliseconds pass, where the moment is the fault."
  @spec pause(non_neg_integer()) :: :ok
  def pause(milliseconds) do
    receive do
    after
      milliseconds -> :ok
    end
  end

  defp each_pair(some, others, fun) do
    for a <- some, b <- others, {from, to} <- [{a, b}, {b, a}], do: fun.(from, to)
    :ok
  end

  defp run!(command, args) do
    {_output, 0} = System.cmd(command, args, stderr_to_stdout: true)
    :ok
  end
end
