defmodule HotPatch.Console.Pipeline do
  @moduledoc false
  # The way of a request: first its head is judged, before any of its body is read, then all of it.

  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Commands
  alias HotPatch.Console.Config
  alias HotPatch.Console.HostNames
  alias HotPatch.Console.Page
  alias HotPatch.Console.Problem
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Router
  alias HotPatch.Support.Printable

  require HotPatch.Support.Log, as: Log

  @form_bytes 64 * 1024

  @doc "Judges a request by its head: how much of its body may be read, or the refusal."
  @spec head(Request.t()) :: {:read, non_neg_integer()} | {:refuse, Response.t()}
  def head(request) do
    with :ok <- on(request),
         {:ok, route} <- route(request),
         {:ok, access} <- access(request, route),
         :ok <- complete(request, route),
         :ok <- meant(access, request, route, {Request.header(request, "x-form-token"), :head}) do
      {:read, limit(route, request)}
    else
      {:off, response} -> {:refuse, response}
      {:error, problem} -> {:refuse, refusal(request, problem)}
    end
  end

  @doc "Answers a request."
  @spec call(Request.t()) :: Response.t()
  def call(request) do
    with :ok <- on(request),
         {:ok, route} <- route(request),
         {:ok, access} <- access(request, route),
         :ok <- complete(request, route),
         {:ok, form} <- form(request, route),
         token = Request.header(request, "x-form-token") || List.first(Map.get(form, "form", [])),
         :ok <- meant(access, request, route, {token, :call}) do
      request
      |> route.handler.(access, form)
      |> keep_session(request, access)
      |> Response.protect(request)
    else
      {:off, response} -> response
      {:error, problem} -> refusal(request, problem)
    end
  rescue
    error -> failed(request, :error, error, __STACKTRACE__)
  catch
    # A node or a server that is gone, mostly.
    kind, reason -> failed(request, kind, reason, __STACKTRACE__)
  end

  @doc "How long a form may be; what is longer is an archive."
  @spec form_bytes() :: pos_integer()
  def form_bytes, do: @form_bytes

  @doc "The largest body that is ever read."
  @spec largest() :: pos_integer()
  def largest do
    config = HotPatch.Host.Config.current()
    Enum.max([config.max_archive_bytes, config.max_release_bytes, @form_bytes])
  end

  # A host may forward to a console that is not configured; and what came under a name that is not the
  # console's gets none of its pages.
  defp on(request) do
    config = Config.current()
    host = Request.header(request, "host")

    cond do
      config == nil -> {:off, plain(request, 404, not_configured())}
      HostNames.known?(config, host) -> :ok
      true -> {:off, misdirected(request, host || "")}
    end
  end

  defp not_configured, do: "the console is not configured: config :hot_patch, console: [...]"

  defp misdirected(request, host) do
    text =
      "the console does not answer as \"#{host |> Printable.line() |> String.slice(0, 200)}\": " <>
        "config :hot_patch, console: [hosts: [...]] names the hosts under which it does"

    if Request.api?(request),
      do:
        Problem.new(421, :host, text) |> Problem.to_response(request) |> Response.protect(request),
      else: plain(request, 421, text)
  end

  defp plain(request, status, text) do
    text |> Response.text(status) |> Response.protect(request)
  end

  defp route(request) do
    case Router.find(request.method, request.path) do
      {:ok, route} ->
        {:ok, route}

      {:error, []} ->
        {:error, Problem.new(404, :no_such_page, "there is nothing at this address")}

      {:error, others} ->
        {:error, not_allowed(others)}
    end
  end

  defp not_allowed(others) do
    Problem.new(405, :method, "this address takes #{Enum.join(others, ", ")}", %{allow: others})
  end

  defp access(_request, %{role: :anybody}), do: {:ok, nil}

  defp access(request, route) do
    case Authorization.identify(request) do
      {:ok, %{user: user} = access} ->
        if HotPatch.Console.User.may?(user, route.role),
          do: {:ok, access},
          else:
            {:error,
             Problem.new(403, :role, "#{user.name} is a #{user.role}; this takes an admin")}

      {:error, :login} ->
        {:error, Problem.new(401, :login, "log in, or send a token: Authorization: Bearer ...")}

      {:error, :token} ->
        {:error, Problem.new(401, :token, "the token is not one of the configuration")}
    end
  end

  defp complete(request, route) do
    length = Request.content_length(request)
    limit = limit(route, request)

    cond do
      Request.header(request, "transfer-encoding") != nil or
          (length == nil and route.body == :archive) ->
        {:error, Problem.new(411, :length, "say with Content-Length how long the body is")}

      (length || 0) > limit ->
        {:error,
         Problem.new(413, :too_large, "the body has #{length} bytes, #{limit} are taken at most")}

      true ->
        :ok
    end
  end

  defp limit(%{body: :none}, _request), do: 0
  defp limit(%{body: :form}, _request), do: @form_bytes

  # What it really is says whoever reads it: a zip under the name of a tarball has its own limit there.
  defp limit(%{body: :archive}, request) do
    config = HotPatch.Host.Config.current()

    if Commands.tarball?(Request.query(request, "file")),
      do: config.max_release_bytes,
      else: config.max_archive_bytes
  end

  # Only a form's own token can be known from the head alone.
  defp meant(nil, request, %{body: :form}, {_token, _when}) do
    if Authorization.same_origin?(request), do: :ok, else: not_meant(:origin)
  end

  defp meant(nil, _request, _route, {_token, _when}), do: :ok
  defp meant(_access, _request, %{body: :none}, {_token, _when}), do: :ok

  defp meant(_access, request, %{body: :form}, {_token, :head}) do
    if Authorization.same_origin?(request), do: :ok, else: not_meant(:origin)
  end

  defp meant(access, request, _route, {token, stage}) do
    how = if stage == :head, do: :look, else: :spend
    with {:error, why} <- Authorization.meant(access, request, token, how), do: not_meant(why)
  end

  defp not_meant(:origin),
    do: {:error, Problem.new(403, :origin, "the request comes from another site's page")}

  defp not_meant(:form),
    do:
      {:error,
       Problem.new(403, :form, "the form is not one of this session: load the page again")}

  defp not_meant(:replayed),
    do:
      {:error,
       Problem.new(409, :replayed, "this form has been sent already: load the page again")}

  defp form(%Request{form: form}, %{body: :form}) when form != nil, do: {:ok, form}

  defp form(request, %{body: :form}) do
    case Request.form(request.body) do
      {:ok, form} -> {:ok, form}
      :error -> {:error, Problem.new(400, :form_text, "the body is no form: name=value&...")}
    end
  end

  defp form(_request, _route), do: {:ok, %{}}

  # The host's login has told us of somebody new.
  defp keep_session(response, request, %Authorization{cookie: cookie}) when cookie != nil do
    {name, value} = Authorization.set_cookie(request, cookie)
    Response.put(response, name, value)
  end

  defp keep_session(response, _request, _access), do: response

  defp refusal(request, problem) do
    request |> refuse(problem) |> allow(problem) |> Response.protect(request)
  end

  defp refuse(%Request{path: ["api" | _]} = request, problem) do
    response = Problem.to_response(%{problem | more: Map.delete(problem.more, :allow)}, request)

    if problem.status == 401,
      do: Response.put(response, "www-authenticate", ~s(Bearer realm="HotPatch")),
      else: response
  end

  # Where to go on once logged in, if that is a page to look at.
  defp refuse(%Request{method: "GET"} = request, %{reason: :login}) do
    location = Config.current().login.login_path(request)

    next =
      "/" <>
        Enum.map_join(request.path, "/", &URI.encode(&1, fn c -> URI.char_unreserved?(c) end))

    own? = location == request.base <> "/login"
    query = if own? and request.path != [], do: "?" <> URI.encode_query(next: next), else: ""
    %Response{status: 303, headers: [{"location", location <> query}]}
  end

  defp refuse(request, problem), do: Page.Problem.show(request, problem)

  defp allow(response, %{more: %{allow: methods}}),
    do: Response.put(response, "allow", Enum.join(methods, ", "))

  defp allow(response, _problem), do: response

  defp failed(request, kind, reason, stack) do
    Log.failed("HotPatch: the console failed at #{inspect(request)}:", kind, reason, stack)

    text = "this failed; the log of #{node()} says where"

    # A page may be what has failed.
    response =
      if Request.api?(request),
        do: Problem.to_response(Problem.new(500, :internal, text), request),
        else: Response.text(text, 500)

    Response.protect(response, request)
  end
end
