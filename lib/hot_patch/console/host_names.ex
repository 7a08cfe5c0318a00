defmodule HotPatch.Console.HostNames do
  @moduledoc false
  # Under which names the console answers. A page elsewhere can give a name of its own the address of this
  # node (DNS rebinding), and a browser then takes the console for a part of that page's site: only the `Host`
  # header tells. Such a page has a name and no address, so an address is believed as far as it can be one
  # on which the console listens.

  @doc """
  The name or address in a `Host` header, without its port.

      iex> alias HotPatch.Console.HostNames
      iex> {HostNames.parse("Patch.Example.com:4040"), HostNames.parse("[::1]:4040"), HostNames.parse("10.0.0.7")}
      {{:ok, "patch.example.com"}, {:ok, {0, 0, 0, 0, 0, 0, 0, 1}}, {:ok, {10, 0, 0, 7}}}
      iex> {HostNames.parse("a b"), HostNames.parse("a@b"), HostNames.parse("")}
      {:error, :error, :error}
  """
  @spec parse(String.t() | nil) :: {:ok, String.t() | :inet.ip_address()} | :error
  def parse(nil), do: :error

  def parse(header) do
    case Regex.run(~r/\A(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::\d{1,5})?\z/, header) do
      [_, address] -> address(address)
      [_, "", name] -> name_or_address(name)
      nil -> :error
    end
  end

  @doc "Whether the console answers a request with this `Host` header."
  @spec known?(HotPatch.Console.Config.t(), String.t() | nil) :: boolean()
  # Within a host application: which names that has it knows itself.
  def known?(%{port: nil, hosts: []}, _header), do: true

  def known?(config, header) do
    case parse(header) do
      {:ok, host} -> configured?(host, config.hosts) or listens?(host, config)
      :error -> false
    end
  end

  defp configured?(host, hosts), do: Enum.any?(hosts, &(parse(&1) == {:ok, host}))

  defp listens?(_host, %{port: nil}), do: false

  # Through a tunnel or the address of another machine it may come by any address.
  defp listens?(address, %{ip: ip}) when is_tuple(address) do
    address == ip or unspecified?(ip) or (loopback?(address) and loopback?(ip))
  end

  defp listens?("localhost", %{ip: ip}), do: loopback?(ip) or unspecified?(ip)
  defp listens?(name, %{ip: ip}), do: not loopback?(ip) and name in names()

  # Of this machine, as it calls itself and as the nodes do.
  defp names do
    {:ok, short} = :inet.gethostname()
    node = Atom.to_string(node()) |> String.split("@") |> List.last()
    for name <- [to_string(short), to_string(:net_adm.localhost()), node], do: plain(name)
  end

  defp name_or_address(text) do
    case address(text) do
      {:ok, address} -> {:ok, address}
      :error -> {:ok, plain(text)}
    end
  end

  defp address(text) do
    case text |> String.to_charlist() |> :inet.parse_strict_address() do
      {:ok, address} -> {:ok, address}
      {:error, :einval} -> :error
    end
  end

  # A name may end with the dot of the root.
  defp plain(name), do: name |> String.downcase() |> String.trim_trailing(".")

  defp unspecified?(ip), do: ip in [{0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}]

  defp loopback?({127, _, _, _}), do: true
  defp loopback?({0, 0, 0, 0, 0, 0, 0, 1}), do: true
  defp loopback?({0, 0, 0, 0, 0, 0xFFFF, high, _low}), do: div(high, 256) == 127
  defp loopback?(_other), do: false
end
