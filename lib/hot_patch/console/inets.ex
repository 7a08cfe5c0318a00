defmodule HotPatch.Console.Inets do
  @moduledoc false
  # The console on OTP's own HTTP server. This process owns the server and starts it again; the
  # callback `do/1` runs in a process of the server, one for each connection.

  use GenServer

  alias HotPatch.Console.Config
  alias HotPatch.Console.Inets.Exchange
  alias HotPatch.Console.Inets.Heads
  alias HotPatch.Console.Pipeline

  require HotPatch.Support.Log, as: Log

  # Milliseconds until a port that is taken is tried again.
  @again 5_000

  # Milliseconds between looks for connections that say nothing; the shorter time where there are many.
  @look 500
  @look_soon 50

  # So many more than the configuration allows are let in until the next look, which finds out which of
  # all go.
  @spare 1_000

  @head_bytes 16 * 1024
  @uri_bytes 4 * 1024

  # So much of a body is read before its head is judged.
  @piece 64 * 1024

  @spec start_link(Config.t()) :: GenServer.on_start()
  def start_link(config), do: GenServer.start_link(__MODULE__, config, name: __MODULE__)

  @doc "The port on which it listens, or nil."
  @spec port() :: :inet.port_number() | nil
  def port do
    case Process.whereis(__MODULE__) do
      nil -> nil
      pid -> GenServer.call(pid, :port)
    end
  end

  @impl GenServer
  def init(config) do
    Process.flag(:trap_exit, true)
    state = %{config: config, server: nil, port: nil, warned?: false, seen: %{}}
    {:ok, state, {:continue, :listen}}
  end

  @impl GenServer
  def handle_continue(:listen, state), do: {:noreply, listen(state)}

  @impl GenServer
  def handle_call(:port, _from, state), do: {:reply, state.port, state}

  @impl GenServer
  def handle_info(:listen, %{server: nil} = state), do: {:noreply, listen(state)}

  def handle_info({:look, server}, %{server: server} = state) do
    %{request_seconds: seconds, max_connections: most} = state.config
    seen = Heads.sweep(server, state.seen, seconds, most)
    next = if map_size(seen) > div(most, 2), do: @look_soon, else: @look
    _ = Process.send_after(self(), {:look, server}, next)
    {:noreply, %{state | seen: seen}}
  end

  def handle_info({:EXIT, pid, _reason}, %{server: pid} = state),
    do: {:noreply, later(%{state | server: nil, port: nil})}

  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, %{server: server}) when server != nil,
    do: :inets.stop(:stand_alone, server)

  def terminate(_reason, _state), do: :ok

  defp listen(state) do
    with :ok <- applications(state.config),
         {:ok, server} <- start(state.config) do
      port = port_of(server)
      Log.info("HotPatch: the console listens on #{address(state.config)}, port #{port}")
      _ = Process.send_after(self(), {:look, server}, @look)
      %{state | server: server, port: port, warned?: false, seen: %{}}
    else
      {:error, reason} -> state |> warn(reason) |> later()
    end
  end

  defp applications(config) do
    needed = if config.tls, do: [:inets, :ssl], else: [:inets]

    Enum.reduce_while(needed, :ok, fn application, :ok ->
      case Application.ensure_all_started(application) do
        {:ok, _started} ->
          {:cont, :ok}

        {:error, _why} ->
          {:halt,
           {:error,
            "#{application} is not part of this release: extra_applications: [:inets, :ssl]"}}
      end
    end)
  end

  # A server that could not listen is one without children.
  defp start(config) do
    with {:ok, server} <- :inets.start(:httpd, options(config), :stand_alone) do
      if port_of(server) do
        {:ok, server}
      else
        Process.unlink(server)
        :ok = :inets.stop(:stand_alone, server)
        {:error, refused(config)}
      end
    end
  catch
    :exit, reason -> {:error, reason}
  end

  # It does not tell us why, but to the log; whether the port can be had is what one wants to know.
  defp refused(config) do
    case :gen_tcp.listen(config.port, ip: config.ip, reuseaddr: true) do
      {:ok, socket} ->
        :gen_tcp.close(socket)
        "OTP's HTTP server did not start; its own message in the log says why"

      {:error, posix} ->
        posix
    end
  end

  defp port_of(server) do
    Enum.find_value(Supervisor.which_children(server), fn
      {{:httpd_instance_sup, _address, port, _profile}, pid, _, _} when is_pid(pid) -> port
      _other -> nil
    end)
  end

  # Every request has a connection of its own: one that idles holds nothing up. OTP 29 takes no
  # keep_alive_timeout then, which is how older ones bound the time of a head: see Heads.
  defp options(config) do
    folder = String.to_charlist(System.tmp_dir!())

    [
      port: config.port,
      bind_address: config.ip,
      ipfamily: if(tuple_size(config.ip) == 8, do: :inet6, else: :inet),
      socket_type: socket_type(config.tls),
      server_name: ~c"hot_patch",
      # Asked for, and not used by any of our modules.
      server_root: folder,
      document_root: folder,
      modules: [Exchange],
      customize: HotPatch.Console.Inets.Head,
      server_tokens: :none,
      keep_alive: false,
      max_header_size: @head_bytes,
      max_uri_size: @uri_bytes,
      # What is larger than that the server refuses by itself; up to there we do, and say why.
      max_body_size: 4 * Pipeline.largest(),
      max_client_body_chunk: @piece,
      max_clients: config.max_connections + @spare
    ]
  end

  @doc "Options of a connection: who does not read what is sent is not waited for."
  @spec socket_options() :: keyword()
  def socket_options, do: [send_timeout: 15_000, send_timeout_close: true, nodelay: true]

  # Without TLS the server takes no options where the port is given: the connection gets them.
  defp socket_type(nil), do: :ip_comm
  defp socket_type(tls), do: {:ssl, Keyword.merge(socket_options(), tls)}

  defp address(config), do: config.ip |> :inet.ntoa() |> List.to_string()

  # Another node of this host may have the port: this one takes over when that is gone.
  defp warn(%{warned?: true} = state, _reason), do: state

  defp warn(state, reason) do
    Log.warning(
      "HotPatch: the console does not listen on port #{state.config.port} yet: #{why(reason)}"
    )

    %{state | warned?: true}
  end

  # The reason is deep inside of what the supervisors say of each other.
  defp why(text) when is_binary(text), do: text
  defp why(:eaddrinuse), do: "it is taken; it is tried again"
  defp why(posix) when is_atom(posix), do: "#{:inet.format_error(posix)}; it is tried again"

  defp why(reason) do
    if inside?(reason, :eaddrinuse),
      do: why(:eaddrinuse),
      else: inspect(reason, limit: 20, printable_limit: 200)
  end

  defp inside?(term, term), do: true
  defp inside?([head | tail], atom), do: inside?(head, atom) or inside?(tail, atom)
  defp inside?(tuple, atom) when is_tuple(tuple), do: inside?(Tuple.to_list(tuple), atom)

  defp inside?(map, atom) when is_map(map),
    do: inside?(Map.values(Map.delete(map, :__struct__)), atom)

  defp inside?(_other, _atom), do: false

  defp later(state) do
    Process.send_after(self(), :listen, @again)
    state
  end
end
