defmodule HotPatch.Test.Faults.Spaces do
  @moduledoc false
  # Nodes in network namespaces of their own, joined by a bridge: where a link is down packets
  # vanish, and nobody is told, as in a network that is really cut. Takes root.

  @type space :: String.t()

  @doc "Whether namespaces, bridges and pairs of interfaces can be made here."
  @spec available?() :: boolean()
  def available? do
    System.find_executable("ip") != nil and try_out()
  end

  defp try_out do
    group = group()
    spaces = make(group, 1)
    remove(spaces)
    true
  rescue
    _not_permitted -> false
  end

  @doc "Makes some, connected with each other and with this host."
  @spec make(pos_integer()) :: [space()]
  def make(count), do: make(group(), count)

  # Short, for names of interfaces are; and not that of another run on this host.
  defp group, do: rem(:erlang.phash2({System.pid(), System.unique_integer()}), 60_000)

  defp make(group, count) do
    ip!("link add #{bridge(group)} type bridge")
    ip!("addr add #{subnet(group)}.1/24 dev #{bridge(group)}")
    ip!("link set #{bridge(group)} up")

    for n <- 1..count do
      space = "hp#{group}n#{n}"
      ip!("netns add #{space}")
      ip!("link add #{outer(space)} type veth peer name eth0 netns #{space}")
      ip!("link set #{outer(space)} master #{bridge(group)}")
      ip!("link set #{outer(space)} up")
      ip!("-n #{space} addr add #{address(space)}/24 dev eth0")
      ip!("-n #{space} link set eth0 up")
      ip!("-n #{space} link set lo up")
      # For the answers to whoever has another address: this host.
      ip!("-n #{space} route add default via #{subnet(group)}.1")
      # Of its own, and not told to listen where this host's does.
      unset = [env: [{"ERL_EPMD_ADDRESS", nil}], stderr_to_stdout: true]
      {_output, 0} = System.cmd("ip", ~w(netns exec #{space} epmd -daemon), unset)
      space
    end
  end

  @doc "The address of a namespace; without one that of this host's loopback."
  @spec address(space() | nil) :: String.t()
  def address(nil), do: "127.0.0.1"

  def address(space) do
    {group, n} = parts(space)
    "#{subnet(group)}.#{10 + n}"
  end

  @doc "What to add to the options of `:peer.start/1` for a node there."
  @spec run_in(space() | nil) :: map()
  def run_in(nil), do: %{}

  def run_in(space) do
    erl = :erl |> Atom.to_string() |> System.find_executable() |> String.to_charlist()
    ip = "ip" |> System.find_executable() |> String.to_charlist()
    arguments = [~c"netns", ~c"exec", String.to_charlist(space), erl]
    %{connection: :standard_io, exec: {ip, arguments}}
  end

  @doc "Nothing gets in or out any more."
  @spec cut(space()) :: :ok
  def cut(space), do: ip!("link set #{outer(space)} down")

  @doc "All does again."
  @spec heal(space()) :: :ok
  def heal(space), do: ip!("link set #{outer(space)} up")

  @doc "Ends what runs in them, and removes them."
  @spec remove([space()]) :: :ok
  def remove([first | _] = spaces) do
    for space <- spaces do
      {pids, _status} = System.cmd("ip", ["netns", "pids", space], stderr_to_stdout: true)
      for pid <- String.split(pids), pid =~ ~r/\A\d+\z/, do: System.cmd("kill", ["-9", pid])
      ip!("netns del #{space}")
    end

    {group, _n} = parts(first)
    ip!("link del #{bridge(group)}")
  end

  defp parts(space) do
    [_, group, n] = Regex.run(~r/\Ahp(\d+)n(\d+)\z/, space)
    {String.to_integer(group), String.to_integer(n)}
  end

  # 10.16.0.0 and what follows it.
  defp subnet(group), do: "10.#{16 + div(group, 256)}.#{rem(group, 256)}"
  defp bridge(group), do: "hp#{group}b"
  defp outer(space), do: space <> "o"

  defp ip!(arguments) do
    case System.cmd("ip", String.split(arguments), stderr_to_stdout: true) do
      {_output, 0} -> :ok
      {output, _status} -> raise "ip #{arguments}: #{output}"
    end
  end
end
