defmodule HotPatch.Command.Target.WebTarget do
  @moduledoc false
  # A cluster by the interface of its page, with a token: for those who reach its web servers and not its nodes. All that
  # is asked for comes as text, as HTTP's own headers, or as a zip, because Elixir has no reader of JSON of its own.

  @behaviour HotPatch.Command.Target

  alias HotPatch.Command.Target
  alias HotPatch.Options.Argument
  alias HotPatch.Support.Printable

  @type t :: %__MODULE__{base: String.t(), token: String.t(), http: keyword()}
  @derive {Inspect, only: [:base]}
  @enforce_keys [:base, :token, :http]
  defstruct [:base, :token, :http]

  # Milliseconds: for a connection, for an answer, and between two questions how far an apply is.
  @connect 10_000
  @answer 120_000
  @again 500

  @doc "Looks whether there is such an interface. `cacert` is a file with the certificates to trust, nil for the system's."
  @spec open(String.t(), String.t() | nil, Path.t() | nil) :: {:ok, t()} | {:error, String.t()}
  def open(_url, token, _cacert) when token in [nil, ""] do
    {:error,
     "a token is missing: put one of config :hot_patch, console: [tokens: ...] into HOT_PATCH_TOKEN"}
  end

  def open(url, token, cacert) do
    for application <- [:inets, :ssl], do: {:ok, _} = Application.ensure_all_started(application)
    uri = URI.parse(url)

    with :ok <- private(uri),
         {:ok, ssl} <- ssl(uri, cacert) do
      target = %__MODULE__{
        base: String.trim_trailing(url, "/") <> "/api",
        token: String.trim(token),
        http: [timeout: @answer, connect_timeout: @connect, autoredirect: false] ++ ssl
      }

      with {:error, {text, _report}} <- ask(target, :get, "/nodes", "text/plain"),
           do: {:error, text},
           else: ({:ok, _answer} -> {:ok, target})
    end
  end

  # Who reads the token along may do what it may.
  defp private(%{scheme: scheme, host: host}) do
    if String.downcase(scheme) == "https" or loopback?(host) do
      :ok
    else
      {:error,
       "http://#{host} would send the token in clear text: use https, or a tunnel to this machine (ssh -L) and its address"}
    end
  end

  defp loopback?("localhost"), do: true

  defp loopback?(host) do
    case host && :inet.parse_address(String.to_charlist(host)) do
      {:ok, {127, _, _, _}} -> true
      {:ok, {0, 0, 0, 0, 0, 0, 0, 1}} -> true
      _name_or_elsewhere -> false
    end
  end

  defp ssl(%{scheme: scheme, host: host}, cacert) do
    if String.downcase(scheme) == "https" do
      with {:ok, trusted} <- trusted(cacert) do
        hostname = [match_fun: :public_key.pkix_verify_hostname_match_fun(:https)]

        {:ok,
         [
           ssl:
             [verify: :verify_peer, depth: 4, customize_hostname_check: hostname] ++
               [server_name_indication: String.to_charlist(host)] ++ trusted
         ]}
      end
    else
      {:ok, []}
    end
  end

  defp trusted(nil) do
    {:ok, [cacerts: :public_key.cacerts_get()]}
  rescue
    _error in [ErlangError, MatchError, FunctionClauseError] ->
      {:error, "this system has no certificates to trust: name a file of them with --cacert"}
  end

  defp trusted(file) do
    if File.regular?(file),
      do: {:ok, [cacertfile: String.to_charlist(file)]},
      else: {:error, "--cacert #{file} is no file"}
  end

  @impl Target
  def source(target) do
    %{
      digests: fn -> digests(told(ask(target, :get, "/build", "text/plain")).body) end,
      contents: fn paths -> files(target, paths) end
    }
  end

  # As sha256sum prints them.
  defp digests(text) do
    for line <- String.split(text, "\n", trim: true),
        [digest, path] <- [String.split(line, "  ", parts: 2)],
        into: %{},
        do: {path, digest}
  end

  defp files(target, paths) do
    form = URI.encode_query(for path <- paths, do: {"path[]", path})
    %{body: zip} = told(ask(target, {:post, form}, "/build/files", "application/zip"))
    {:ok, files} = :zip.unzip(zip, [:memory])
    for {path, bytes} <- files, into: %{}, do: {to_string(path), bytes}
  end

  # Nothing goes on without an answer.
  defp told({:ok, answer}), do: answer
  defp told({:error, {text, _report}}), do: raise(text)

  @impl Target
  def release(target) do
    with {:ok, answer} <- ask(target, :get, "/build", "text/plain") do
      [_all, name] = Regex.run(~r/filename="(.+)\.sha256"/, header(answer, "content-disposition"))
      {:ok, name}
    end
  end

  @impl Target
  def upload(target, zip, name) do
    query = URI.encode_query(file: name <> ".zip")

    with {:ok, answer} <-
           ask(target, {:post, "application/zip", zip}, "/patches?" <> query, "text/plain"),
         do: {:ok, answer |> header("location") |> Path.basename() |> URI.decode()}
  end

  @impl Target
  def delete(target, id) do
    with {:ok, _answer} <- ask(target, :delete, "/patches/#{encoded(id)}", "text/plain"), do: :ok
  end

  @impl Target
  def plan(target, id, options) do
    query = options |> form() |> URI.encode_query()

    with {:ok, answer} <-
           ask(target, :get, "/patches/#{encoded(id)}/plan?" <> query, "text/plain"),
         do: {:ok, answer.body}
  end

  @impl Target
  def apply(target, id, options, bars?) do
    if is_list(options[:watch]),
      do:
        {:error,
         {"limits of a watch cannot be given through #{target.base}: --watch takes those of its configuration",
          nil}},
      else: begin(target, id, options, bars?)
  end

  defp begin(target, id, options, bars?) do
    form = options |> Keyword.delete(:progress) |> form() |> URI.encode_query()
    path = "/patches/#{encoded(id)}/apply"

    # It goes on there, whatever becomes of this connection.
    with {:ok, begun} <- ask(target, {:post, form}, path, "text/plain", "respond-async") do
      wait("/operations/" <> (begun |> header("location") |> Path.basename()), target, bars?, "")
    end
  end

  defp wait(path, target, bars?, shown) do
    case ask(target, :get, path, "text/plain") do
      {:ok, %{status: 202, body: progress}} ->
        if bars? and progress != shown, do: IO.write(:stderr, Printable.lines(progress))
        receive(do: (:never -> :ok), after: (@again -> wait(path, target, bars?, progress)))

      {:ok, answer} ->
        {:ok, %{text: answer.body, everywhere?: header(answer, "x-everywhere") == "yes"}}

      {:error, failure} ->
        {:error, failure}
    end
  end

  @impl Target
  def rollback_line(target, id) do
    ~s(curl -H "authorization: Bearer $HOT_PATCH_TOKEN" -d reason=... #{target.base}/patches/#{encoded(id)}/rollback)
  end

  @impl Target
  def permanent_line(_target, version),
    do: "HotPatch.make_permanent(#{inspect(version)}) in a shell of a node"

  # Options as a form has them. What stands between us and the interface may be a parser that keeps one value of a
  # name, where the name does not say that it may have several.
  defp form(options) do
    for {name, value} <- options, text <- fields(name, value), do: {"#{name}[]", text}
  end

  defp fields(:config, lines), do: [Enum.map_join(lines, "\n", &line/1)]
  defp fields(_name, values) when is_list(values), do: Enum.map(values, &field/1)
  defp fields(_name, value), do: [field(value)]

  defp line(text) when is_binary(text) do
    {:ok, _setting} = Argument.setting(text)
    text
  end

  # A role is meant for a shell: there is no node of such a name, which the interface says.
  defp field({:role, role}), do: "role:#{role}"
  defp field(value), do: "#{value}"

  defp encoded(id), do: URI.encode(id, &URI.char_unreserved?/1)

  defp ask(target, method, path, accept, prefer \\ nil) do
    url = String.to_charlist(target.base <> path)
    headers = headers(target, accept, prefer)

    answer =
      case method do
        {:post, form} ->
          request = {url, headers, ~c"application/x-www-form-urlencoded", form}
          :httpc.request(:post, request, target.http, body_format: :binary)

        {:post, type, body} ->
          request = {url, headers, String.to_charlist(type), body}
          :httpc.request(:post, request, target.http, body_format: :binary)

        method ->
          :httpc.request(method, {url, headers}, target.http, body_format: :binary)
      end

    answered(answer, target)
  end

  defp headers(target, accept, prefer) do
    [
      {~c"authorization", ~c"Bearer #{target.token}"},
      {~c"accept", String.to_charlist(accept)}
      | if(prefer, do: [{~c"prefer", String.to_charlist(prefer)}], else: [])
    ]
  end

  defp answered({:ok, {{_http, status, _phrase}, headers, body}}, _target) when status < 300,
    do: {:ok, %{status: status, headers: headers, body: body}}

  defp answered({:ok, {{_http, status, _phrase}, headers, body}}, target) do
    case type(headers) do
      "text/plain" <> _ ->
        [text | report] = String.split(body, "\n\n", parts: 2)
        {:error, {String.trim_trailing(text), List.first(report)}}

      _of_somebody_else ->
        {:error,
         {"#{target.base} answers with #{status}, and is not HotPatch's interface#{hint(status)}",
          nil}}
    end
  end

  defp answered({:error, reason}, target),
    do: {:error, {"#{target.base} does not answer: #{reason(reason)}", nil}}

  # A pipeline for browsers sends others to its login, or does not take what they ask for.
  defp hint(status) when status in [301, 302, 303, 307, 308, 401, 403, 406],
    do:
      ": give the address of a mount for scripts, with no login and no pipeline for browsers before it"

  defp hint(_status), do: ""

  defp reason({:failed_connect, details}), do: "no connection (#{why(details)})"
  defp reason(reason), do: inspect(reason, limit: 5)

  defp why(details) do
    case List.keyfind(details, :inet, 0) do
      {:inet, _options, {:tls_alert, {alert, _text}}} -> "TLS: #{alert}"
      {:inet, _options, reason} -> inspect(reason, limit: 5)
      _other -> inspect(details, limit: 5)
    end
  end

  defp type(headers), do: header(%{headers: headers}, "content-type") || ""

  defp header(%{headers: headers}, name) do
    case List.keyfind(headers, String.to_charlist(name), 0) do
      {_name, value} -> to_string(value)
      nil -> nil
    end
  end
end
