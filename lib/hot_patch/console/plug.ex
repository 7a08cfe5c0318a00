# A library that the host has or not: without it this module is not there.
if Code.ensure_loaded?(Plug.Conn) do
  defmodule HotPatch.Console.Plug do
    @moduledoc """
    The console within a Plug or Phoenix application.

    In a Phoenix endpoint, or any pipeline of plugs, before `Plug.Parsers`:

        plug HotPatch.Console.Plug, at: "/admin/patches"

    In a `Plug.Router` that parses no bodies before:

        forward "/admin/patches", to: HotPatch.Console.Plug

    The console itself is configured as ever, `config :hot_patch, console: [...]`, without a `:port`. Behind a proxy
    see to it that `conn.remote_ip` and `conn.scheme` are the client's: the one is what the journal and the
    lock-out know, by the other the session's cookie is secure.
    """

    @behaviour Plug

    alias HotPatch.Console
    alias HotPatch.Console.Request
    alias HotPatch.Console.Response

    @piece 64 * 1024
    @piece_within 15_000

    @impl Plug
    def init(options) do
      at = options |> Keyword.get(:at, "/") |> String.split("/", trim: true)
      %{at: at}
    end

    @impl Plug
    def call(conn, %{at: at}) do
      if List.starts_with?(conn.path_info, at),
        do: conn |> answer(at) |> Plug.Conn.halt(),
        else: conn
    end

    defp answer(conn, at) do
      with {:ok, request} <- request(conn, at),
           {:read, limit} <- Console.head(request),
           {:ok, body, conn} <- read(conn, request, limit, []) do
        respond(conn, Console.call(%{request | body: body}))
      else
        {:refuse, response} -> respond(conn, response)
        {:refuse, conn, status} -> respond(conn, %Response{status: status})
        :error -> respond(conn, %Response{status: 400})
      end
    end

    # Path and query as they came, for the console's own decoder.
    defp request(conn, at) do
      {base, path} = Enum.split(conn.path_info, length(at))

      with {:ok, path} <- Request.split(Enum.join(path, "/")),
           {:ok, query} <- Request.form(conn.query_string) do
        {:ok,
         %Request{
           method: conn.method,
           path: path,
           query: query,
           headers: Map.new(conn.req_headers),
           peer: conn.remote_ip |> :inet.ntoa() |> List.to_string(),
           secure?: conn.scheme == :https,
           base: Enum.map_join(conn.script_name ++ base, &("/" <> &1))
         }}
      end
    end

    defp read(conn, %Request{method: method}, _limit, []) when method in ["GET", "HEAD"],
      do: {:ok, "", conn}

    defp read(conn, request, limit, pieces) do
      unread!(conn)

      case Plug.Conn.read_body(conn,
             length: @piece,
             read_length: @piece,
             read_timeout: @piece_within
           ) do
        {:ok, piece, conn} -> whole(conn, limit, [pieces, piece])
        {:more, piece, conn} -> more(conn, request, limit, [pieces, piece])
        {:error, _timeout_or_gone} -> {:refuse, conn, 408}
      end
    end

    defp more(conn, request, limit, pieces) do
      if IO.iodata_length(pieces) > limit,
        do: {:refuse, conn, 413},
        else: read(conn, request, limit, [pieces])
    end

    defp whole(conn, limit, pieces) do
      body = IO.iodata_to_binary(pieces)
      if byte_size(body) > limit, do: {:refuse, conn, 413}, else: {:ok, body, conn}
    end

    # What a parser has taken is gone, and half a form is none.
    defp unread!(%{body_params: %{__struct__: Plug.Conn.Unfetched}}), do: :ok

    defp unread!(_conn) do
      raise "HotPatch.Console.Plug has to come before Plug.Parsers, which has read the body of this request"
    end

    defp respond(conn, %Response{body: {:stream, run}} = response) do
      conn = conn |> put_headers(response) |> Plug.Conn.send_chunked(response.status)

      run.(fn data ->
        case Plug.Conn.chunk(conn, data) do
          {:ok, _conn} -> :ok
          {:error, _gone} -> :closed
        end
      end)

      conn
    end

    defp respond(conn, response) do
      conn |> put_headers(response) |> Plug.Conn.send_resp(response.status, response.body)
    end

    defp put_headers(conn, response) do
      Enum.reduce(response.headers, conn, fn {name, value}, conn ->
        Plug.Conn.put_resp_header(conn, name, value)
      end)
    end
  end
end
