defmodule HotPatch.Test.Console do
  @moduledoc false
  # A console on the test's own node, and requests to it.

  alias HotPatch.Console
  alias HotPatch.Console.Password
  alias HotPatch.Console.Request

  @password "correct horse battery"

  @doc "Accounts alice (admin) and eve (viewer), tokens of deploy (admin) and monitor (viewer)."
  @spec options(keyword()) :: keyword()
  def options(more \\ []) do
    hash = Password.hash(@password, 1_000)

    [
      accounts: [
        %{name: "alice", role: :admin, password: hash},
        %{name: "eve", role: :viewer, password: hash}
      ],
      tokens: [
        %{name: "deploy", role: :admin, sha256: Password.digest("token-of-deploy")},
        %{name: "monitor", role: :viewer, sha256: Password.digest("token-of-monitor")}
      ]
    ] ++ more
  end

  @spec start!(keyword()) :: pid()
  def start!(more \\ []),
    do: ExUnit.Callbacks.start_supervised!({Console, console: options(more)})

  @spec password() :: String.t()
  def password, do: @password

  @doc "A request, by method and path with its query. Options are fields of the struct."
  @spec request(String.t(), String.t(), keyword()) :: Request.t()
  def request(method, target, fields \\ []) do
    {path, query} =
      case String.split(target, "?", parts: 2) do
        [path, query] -> {path, query}
        [path] -> {path, ""}
      end

    {:ok, path} = Request.split(path)
    {:ok, query} = Request.form(query)

    request =
      struct!(%Request{method: method, path: path, query: query, peer: "192.0.2.7"}, fields)

    headers =
      Map.merge(
        %{"host" => "console.test", "content-length" => "#{byte_size(request.body)}"},
        request.headers
      )

    %{request | headers: headers}
  end

  @doc "Headers of somebody with a token."
  @spec token(String.t()) :: %{String.t() => String.t()}
  def token(name), do: %{"authorization" => "Bearer token-of-#{name}"}

  @doc "Logs in, and gives the headers that the browser sends from then on. `call` is the console."
  @spec log_in(String.t(), keyword(), (Request.t() -> struct())) :: %{String.t() => String.t()}
  def log_in(name, fields \\ [], call \\ &Console.call/1) do
    body = URI.encode_query(name: name, password: @password)
    response = call.(request("POST", "/login", [body: body] ++ fields))
    303 = response.status
    {"set-cookie", cookie} = List.keyfind!(response.headers, "set-cookie", 0)
    %{"cookie" => cookie |> String.split(";") |> hd()}
  end

  @doc "The token of a form on a page."
  @spec form_token(iodata(), String.t()) :: String.t()
  def form_token(html, action) do
    html = IO.iodata_to_binary(html)
    [_, rest] = String.split(html, action, parts: 2)
    [_, token] = Regex.run(~r/name="form" value="([^"]+)"/, rest)
    token
  end
end
