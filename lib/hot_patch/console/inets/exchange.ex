defmodule HotPatch.Console.Inets.Exchange do
  @moduledoc false
  # One request through OTP's HTTP server: its record becomes a request of the console, the
  # response goes to the socket. A body comes in pieces; the head is judged with the first.

  alias HotPatch.Console
  alias HotPatch.Console.Config
  alias HotPatch.Console.Inets.Head
  alias HotPatch.Console.Pipeline
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response

  require Record

  # As in inets/include/httpd.hrl, which a system without the sources of OTP does not have.
  Record.defrecordp(:mod,
    init_data: nil,
    data: [],
    socket_type: :ip_comm,
    socket: nil,
    config_db: nil,
    method: nil,
    absolute_uri: [],
    request_uri: nil,
    http_version: nil,
    request_line: nil,
    parsed_header: [],
    entity_body: nil,
    connection: nil
  )

  Record.defrecordp(:init_data, peername: nil, sockname: nil, resolve: nil)

  # Of a body that is refused, bytes and milliseconds.
  @drained 16 * 1024 * 1024
  @drain_within 2_000

  @doc false
  @spec unquote(:do)(tuple()) :: {:proceed, list()} | {:continue, term()}
  def unquote(:do)(mod) do
    _ =
      if mod(mod, :socket_type) == :ip_comm,
        do: :inet.setopts(mod(mod, :socket), HotPatch.Console.Inets.socket_options())

    case mod(mod, :entity_body) do
      # Which of the two it is depends on whether the first piece came together with the head.
      {:first, piece} -> first(mod, piece)
      {:continue, piece, :undefined} -> first(mod, piece)
      {:continue, piece, state} -> {:continue, add(mod, piece, state)}
      {:last, piece, state} -> last(mod, piece, state)
    end
  end

  # The server calls only for the body's next piece from here on: a refusal ends the connection.
  defp first(mod, piece) do
    with {:ok, request} <- request(mod),
         {:read, limit} <- Console.head(request) do
      if limit > Pipeline.form_bytes(), do: upload()
      {:continue, add(mod, piece, {[], limit})}
    else
      {:refuse, response} -> {:continue, refuse(mod, response)}
      :error -> {:continue, refuse(mod, %Response{status: 400})}
    end
  end

  # Only who is known gets this far; a form has the time of its head.
  defp upload do
    Head.within(Config.current().upload_seconds)
    Head.heard()
  end

  defp add(_mod, _piece, :refused), do: :refused

  defp add(mod, piece, {pieces, left}) do
    case left - byte_size(piece) do
      left when left >= 0 -> {[pieces, piece], left}
      _too_much -> refuse(mod, %Response{status: 413})
    end
  end

  defp refuse(mod, response) do
    if deliver(mod, response) == :ok, do: drain(mod)
    _ = :httpd_socket.close(mod(mod, :socket_type), mod(mod, :socket))
    :refused
  end

  # A connection that is closed while the client sends is reset, and with it goes our answer: what
  # comes is thrown away, for a moment and not without end.
  defp drain(mod) do
    socket = mod(mod, :socket)
    module = if secure?(mod(mod, :socket_type)), do: :ssl, else: :gen_tcp
    _ = module.shutdown(socket, :write)
    drain(module, socket, @drained, System.monotonic_time(:millisecond) + @drain_within)
  end

  defp drain(module, socket, left, until) do
    within = until - System.monotonic_time(:millisecond)

    with true <- left > 0 and within > 0,
         {:ok, data} <- module.recv(socket, 0, within),
         do: drain(module, socket, left - byte_size(data), until)
  end

  # All of a short body, of which no piece has come before.
  defp last(mod, body, :undefined) do
    Head.heard()

    response =
      with {:ok, request} <- request(mod),
           {:read, limit} when byte_size(body) <= limit <- Console.head(request) do
        Console.call(%{request | body: body})
      else
        {:refuse, response} -> response
        {:read, _less} -> %Response{status: 413}
        :error -> %Response{status: 400}
      end

    answered(mod, response)
  end

  defp last(mod, piece, state) do
    Head.heard()

    case add(mod, piece, state) do
      :refused ->
        answered()

      {pieces, _left} ->
        {:ok, request} = request(mod)
        answered(mod, Console.call(%{request | body: IO.iodata_to_binary([pieces])}))
    end
  end

  defp answered(mod, response) do
    Head.no_deadline()
    _ = deliver(mod, response)
    answered()
  end

  defp answered, do: {:proceed, [response: {:already_sent, 200, 0}]}

  defp request(mod) do
    {path, query} =
      case mod |> mod(:request_uri) |> IO.chardata_to_string() |> String.split("?", parts: 2) do
        [path, query] -> {path, query}
        [path] -> {path, ""}
      end

    with {:ok, parts} <- Request.split(path),
         {:ok, query} <- Request.form(query) do
      {:ok,
       %Request{
         method: mod |> mod(:method) |> List.to_string(),
         path: parts,
         query: query,
         headers: headers(mod(mod, :parsed_header)),
         peer: peer(mod(mod, :init_data)),
         secure?: secure?(mod(mod, :socket_type))
       }}
    end
  rescue
    # Not Unicode.
    _ in [UnicodeConversionError, ArgumentError] -> :error
  end

  defp headers(list) do
    for {name, value} <- list,
        into: %{},
        do: {List.to_string(name), :erlang.list_to_binary(value)}
  end

  defp peer(init_data) do
    case init_data(init_data, :peername) do
      {_port, address} -> List.to_string(address)
    end
  end

  defp secure?({kind, _options}), do: kind in [:ssl, :essl]
  defp secure?(_ip_comm), do: false

  defp deliver(mod, %Response{body: {:stream, run}} = response) do
    with :ok <- send_out(mod, head(response, [])), do: run.(&send_out(mod, &1))
  end

  defp deliver(mod, response) do
    length = IO.iodata_length(response.body)
    body = if mod(mod, :method) == ~c"HEAD", do: [], else: response.body
    send_out(mod, [head(response, [{"content-length", Integer.to_string(length)}]), body])
  end

  defp send_out(mod, data) do
    case :httpd_socket.deliver(mod(mod, :socket_type), mod(mod, :socket), data) do
      :ok -> :ok
      _closed -> :closed
    end
  end

  defp head(response, more) do
    phrase = :httpd_util.reason_phrase(response.status)

    [
      "HTTP/1.1 #{response.status} #{phrase}\r\n",
      for({name, value} <- more ++ response.headers, do: [name, ": ", value, "\r\n"]),
      "date: #{:httpd_util.rfc1123_date()}\r\nconnection: close\r\n\r\n"
    ]
  end
end
