defmodule HotPatch.Console.Inets.Heads do
  @moduledoc false
  # Looks from outside at the connections that have not sent a request yet: silent ones, and such as are
  # still in its head. None of our code runs in there, and OTP's HTTP server takes as many as come. Their
  # time is bounded here (of the server the older versions count it from the connection on, the newer ones anew
  # with every byte), and so is their number: where there are too many connections some of them go, so that those
  # who have something to say find room.

  alias HotPatch.Console.Inets.Head

  @typedoc "Connections, when each was first seen, in milliseconds of monotonic time, and whether it was told to go."
  @type seen :: %{pid() => {since :: integer(), told? :: boolean()}}

  @typedoc "A connection that has sent no request, from where, and since when."
  @type waiting :: {pid(), address :: :inet.ip_address() | nil, since :: integer()}

  @doc """
  Ends those that were seen `seconds` ago and have not begun a request, and those that are too many; gives all that
  there are.
  """
  @spec sweep(server :: pid(), seen(), seconds :: pos_integer(), most :: pos_integer()) :: seen()
  def sweep(server, seen, seconds, most) do
    now = System.monotonic_time(:millisecond)

    {late, others} =
      Enum.split_with(connections(server), fn pid ->
        {since, _told?} = Map.get(seen, pid, {now, false})
        now - since >= seconds * 1000 and not Head.begun?(pid)
      end)

    surplus = others |> Enum.filter(&is_map_key(seen, &1)) |> surplus(seen, most)
    for pid <- late ++ surplus, do: finish(pid, Map.get(seen, pid))

    Map.merge(
      for(pid <- others, into: %{}, do: {pid, Map.get(seen, pid, {now, false})}),
      for(pid <- late ++ surplus, into: %{}, do: {pid, {since(seen, pid, now), true}})
    )
  end

  # Of those that the last look found already: who has come since may be about to speak.
  defp surplus(pids, _seen, most) when length(pids) <= most, do: []

  defp surplus(pids, seen, most) do
    waiting = for pid <- pids, not Head.heard?(pid), do: {pid, address(pid), elem(seen[pid], 0)}

    too_many(waiting, length(pids) - most)
  end

  defp since(seen, pid, now), do: seen |> Map.get(pid, {now, false}) |> elem(0)

  @doc """
  Which of the connections that wait go where there are so many too many: each time the newest of the address that
  has most of them.

      iex> alias HotPatch.Console.Inets.Heads
      iex> Heads.too_many([{:a1, :a, 1}, {:a2, :a, 2}, {:a3, :a, 3}, {:b1, :b, 4}], 2)
      [:a3, :a2]
  """
  @spec too_many([{pid, address, since}], non_neg_integer()) :: [pid]
        when pid: term(), address: term(), since: integer()
  def too_many(waiting, excess) do
    waiting
    |> Enum.group_by(fn {_pid, address, _since} -> address end)
    |> Enum.flat_map(fn {_address, of_one} ->
      of_one |> Enum.sort_by(&age/1) |> Enum.with_index(1)
    end)
    # The one that makes an address have the most goes before those that make it have fewer.
    |> Enum.sort_by(fn {connection, nth} -> {nth, age(connection)} end, :desc)
    |> Enum.take(excess)
    |> Enum.map(fn {{pid, _address, _since}, _nth} -> pid end)
  end

  # Of two that one look found, the process that was made later is the greater.
  defp age({pid, _address, since}), do: {since, pid}

  # What the server sends itself when a request takes too long. One that is still at its TLS handshake
  # does not hear it.
  defp finish(pid, {_since, true}), do: Process.exit(pid, :kill)
  defp finish(pid, _not_told), do: send(pid, :timeout)

  defp connections(server) do
    for instance <- children(server, :httpd_instance_sup),
        supervisor <- children(instance, :httpd_connection_sup),
        {_id, pid, _, _} when is_pid(pid) <- Supervisor.which_children(supervisor),
        do: pid
  catch
    # The server is about to end, which its owner is told.
    :exit, _reason -> []
  end

  defp children(supervisor, kind) do
    for {{^kind, _address, _port, _profile}, pid, _, _} when is_pid(pid) <-
          Supervisor.which_children(supervisor),
        do: pid
  end

  # Its socket is the connection's own, or with TLS that of the process that watches over it.
  defp address(pid) do
    case Process.info(pid, [:links, :monitored_by]) do
      [links: links, monitored_by: watchers] ->
        Enum.find_value([links | Enum.map(watchers, &links/1)], &peer/1)

      nil ->
        nil
    end
  end

  defp links(pid) when is_pid(pid) do
    case Process.info(pid, :links) do
      {:links, links} -> links
      nil -> []
    end
  end

  defp links(_port_or_name), do: []

  defp peer(links) do
    Enum.find_value(links, fn port ->
      with true <- is_port(port), {:ok, {address, _port}} <- :inet.peername(port) do
        address
      else
        _no_socket -> nil
      end
    end)
  end
end
