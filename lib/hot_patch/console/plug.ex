defmodule HotPatch.Console.Plug do
  @moduledoc """
  The console within a Plug or Phoenix application.

  In a Phoenix router, behind the application's own pipelines:

      scope "/" do
        pipe_through [:browser, :require_admin]
        forward "/system", HotPatch.Console.Plug
      end

  or in an endpoint, or any pipeline of plugs:

      plug HotPatch.Console.Plug, at: "/admin/patches"

  The console itself is configured as ever, `config :hot_patch, console: [...]`, without a `:port`. Who is logged in
  to the application need not log in again: see `HotPatch.Console.Login`, which gets the `conn`.

  What comes before it is taken as it is:

    * `Plug.Parsers` - forms that it has read are taken from `conn.body_params`, an archive from a
      `Plug.Upload`. Other bodies it has to leave alone (`pass: ["*/*"]`), which is how the page uploads. Parsers keep one value of
      a name: a list is written `nodes[]=a&nodes[]=b`
    * `Plug.CSRFProtection` (`:protect_from_forgery`) - the page's forms carry its token beside their own. A script with
      a token has none, so it needs a mount of its own, behind no protection
    * `Plug.SSL`, `Plug.RewriteOn` - `conn.scheme`, `conn.host`, `conn.port` and `conn.remote_ip` are believed:
      behind a proxy see to it that they are the client's
    * `plug :accepts, ["html"]` - the page takes HTML beside its stream of events, and so gets the stream. A script does
      not, so it gets 406: the mount for scripts stands behind no pipeline for browsers
  """

  # Plug is an optional dependency: whoever adds it later finds this module as it is, which calls Plug only where
  # it is there.
  if Code.ensure_loaded?(Plug), do: @behaviour(Plug)

  alias HotPatch.Console
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Options

  @piece 64 * 1024
  @piece_within 15_000

  @doc false
  @spec init(keyword()) :: %{at: [String.t()]}
  def init(options) do
    at = options |> Keyword.get(:at, "/") |> String.split("/", trim: true)
    %{at: at}
  end

  @doc false
  @spec call(struct(), %{at: [String.t()]}) :: struct()
  def call(conn, %{at: at}) do
    if List.starts_with?(conn.path_info, at),
      do: plug(:halt, [answer(conn, at)]),
      else: conn
  end

  defp answer(conn, at) do
    with {:ok, request} <- request(conn, at),
         {:read, limit} <- Console.head(request),
         {:ok, request, conn} <- body(conn, request, limit) do
      respond(conn, Console.call(request))
    else
      {:refuse, response} -> respond(conn, response)
      {:refuse, conn, status} -> respond(conn, %Response{status: status})
      {:unclear, text} -> respond(conn, unclear(text))
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
         headers: conn.req_headers |> Map.new() |> asked_under(conn.host),
         peer: conn.remote_ip |> :inet.ntoa() |> List.to_string(),
         secure?: conn.scheme == :https,
         base: Enum.map_join(conn.script_name ++ base, &("/" <> &1)),
         port: conn.port,
         csrf: host_token(),
         conn: conn
       }}
    end
  end

  # A proxy's word, where the application takes it (Plug.RewriteOn), stands in the connection only.
  defp asked_under(%{"host" => header} = headers, host) do
    if name(header) == name(host), do: headers, else: Map.put(headers, "host", host)
  end

  defp asked_under(headers, host), do: Map.put(headers, "host", host)

  defp name(host), do: host |> String.replace(~r/:\d+\z/, "") |> String.downcase()

  # Of no meaning where the application does not protect its forms, and then nobody looks at it.
  defp host_token do
    if Code.ensure_loaded?(Plug.CSRFProtection),
      do: apply(Plug.CSRFProtection, :get_csrf_token, [])
  end

  defp body(conn, %Request{method: method} = request, _limit) when method in ["GET", "HEAD"],
    do: {:ok, request, conn}

  defp body(conn, request, limit) do
    case parsed(conn.body_params) do
      :none -> read(conn, request, limit)
      {:upload, upload} -> uploaded(conn, request, limit, upload)
      {:form, form} -> {:ok, %{request | form: form}, conn}
      {:unclear, text} -> {:unclear, text}
    end
  end

  # Who has parsed a request that has no type of content, or one that it lets pass, has read nothing.
  defp parsed(%{__struct__: Plug.Conn.Unfetched}), do: :none
  defp parsed(params) when params == %{}, do: :none

  defp parsed(params) do
    case Enum.find(Map.values(params), &match?(%{__struct__: Plug.Upload}, &1)) do
      nil -> form(params, Map.has_key?(params, "form"))
      upload -> {:upload, upload}
    end
  end

  defp form(params, page?) do
    cond do
      name = Enum.find_value(params, fn {name, value} -> if not values?(value), do: name end) ->
        {:unclear, "#{inspect(name)} must be a text or a list of texts"}

      name = not page? && Enum.find(lists(), &is_binary(params[&1])) ->
        {:unclear,
         "a parser of this application has read the form, and keeps one value of a name: " <>
           "write #{name}[]= for each one"}

      true ->
        {:form, Map.new(params, fn {name, value} -> {name, List.wrap(value)} end)}
    end
  end

  defp values?(value),
    do: is_binary(value) or (is_list(value) and Enum.all?(value, &is_binary/1))

  # Whoever names two nodes must not get one, because the other was lost on the way; the page names them in one text.
  # The same goes for files of the build.
  defp lists do
    options =
      for call <- [:apply, :rollback, :check, :plan],
          %{name: name, type: type} <- Options.fields_of_form(call),
          type in [:nodes, :node_names, :canary, :config],
          uniq: true,
          do: Atom.to_string(name)

    ["path" | options]
  end

  defp unclear(text) do
    %Response{status: 400, headers: [{"content-type", "text/plain; charset=utf-8"}], body: text}
  end

  defp uploaded(conn, request, limit, upload) do
    query = Map.put_new(request.query, "file", [upload.filename])

    case File.stat(upload.path) do
      {:ok, %{size: size}} when size > limit -> {:refuse, conn, 413}
      {:ok, _file} -> {:ok, %{request | query: query, body: File.read!(upload.path)}, conn}
      {:error, _gone} -> {:refuse, conn, 408}
    end
  end

  defp read(conn, request, limit) do
    with {:ok, body, conn} <- read(conn, limit, [], 0) do
      if byte_size(body) == (Request.content_length(request) || byte_size(body)),
        do: {:ok, %{request | body: body}, conn},
        else:
          {:unclear, "something before HotPatch.Console.Plug has read the body of this request"}
    end
  end

  defp read(conn, limit, pieces, size) do
    options = [length: @piece, read_length: @piece, read_timeout: @piece_within]

    case plug(:read_body, [conn, options]) do
      {_whole_or_more, piece, conn} when size + byte_size(piece) > limit -> {:refuse, conn, 413}
      {:ok, piece, conn} -> {:ok, IO.iodata_to_binary([pieces, piece]), conn}
      {:more, piece, conn} -> read(conn, limit, [pieces, piece], size + byte_size(piece))
      {:error, _timeout_or_gone} -> {:refuse, conn, 408}
    end
  end

  defp respond(conn, %Response{body: {:stream, run}} = response) do
    conn = plug(:send_chunked, [put_headers(conn, response), response.status])

    run.(fn data ->
      case plug(:chunk, [conn, data]) do
        {:ok, _conn} -> :ok
        {:error, _gone} -> :closed
      end
    end)

    conn
  end

  defp respond(conn, response) do
    plug(:send_resp, [put_headers(conn, response), response.status, response.body])
  end

  defp put_headers(conn, response) do
    conn = own_script(conn, :proplists.get_value("content-type", response.headers, ""))
    Enum.reduce(response.headers, conn, &put_header/2)
  end

  # What the application has set beside ours stays: its cookies, and its own rule on TLS.
  defp put_header({"set-cookie", _value} = header, conn),
    do: %{conn | resp_headers: [header | conn.resp_headers]}

  defp put_header({"strict-transport-security" = name, value}, conn) do
    if List.keymember?(conn.resp_headers, name, 0),
      do: conn,
      else: plug(:put_resp_header, [conn, name, value])
  end

  defp put_header({name, value}, conn), do: plug(:put_resp_header, [conn, name, value])

  # Our script says nothing of anybody, and Plug.CSRFProtection lets no other site embed one; we forbid
  # that ourselves (cross-origin-resource-policy).
  defp own_script(conn, "text/javascript" <> _), do: skip_protection(conn)
  defp own_script(conn, "application/javascript" <> _), do: skip_protection(conn)
  defp own_script(conn, _other), do: conn

  defp skip_protection(conn),
    do: plug(:put_private, [conn, :plug_skip_csrf_protection, true])

  defp plug(function, arguments), do: apply(Plug.Conn, function, arguments)
end
