defmodule HotPatch.Console.Page.Login do
  @moduledoc false

  use HotPatch.Console.Page.Template, [:login]

  alias HotPatch.Console.Accounts
  alias HotPatch.Console.Authorization
  alias HotPatch.Console.Page
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Router
  alias HotPatch.Console.Sessions

  @spec show(Router.request(), Router.access(), Router.form()) :: Router.response()
  def show(request, _access, _form), do: page(request, nil, next(Request.query(request, "next")))

  @spec log_in(Router.request(), Router.access(), Router.form()) :: Router.response()
  def log_in(request, _access, form) do
    next = next(field(form, "next"))

    case Accounts.log_in(request, field(form, "name"), field(form, "password")) do
      {:ok, user} ->
        {cookie, _session} = Sessions.begin(user)
        {name, value} = Authorization.set_cookie(request, cookie)
        request |> Response.redirect(next) |> Response.put(name, value)

      :wrong ->
        page(request, "The name or the password is wrong.", next, 401)

      :busy ->
        page(request, "Too many are logging in at this moment. Try again.", next, 503)

      {:wait, seconds} ->
        text = "Too many attempts. Try again in #{seconds} s."
        request |> page(text, next, 429) |> Response.put("retry-after", "#{seconds}")
    end
  end

  @spec log_out(Router.request(), Router.access(), Router.form()) :: Router.response()
  def log_out(request, access, _form) do
    :ok = Sessions.finish([Authorization.subject(access)])
    {name, value} = Authorization.set_cookie(request, nil)
    request |> Response.redirect("/login") |> Response.put(name, value)
  end

  defp page(request, error, next, status \\ 200) do
    content = login(%{error: error, next: next, base: request.base, request: request})
    Page.render(%{request: request, access: nil}, {"Log in", :login}, content, status)
  end

  # Only to pages of ours.
  defp next(path) when is_binary(path) do
    if path =~ ~r{\A(/[A-Za-z0-9._~%-]+)+\z}, do: path, else: "/patch"
  end

  defp next(nil), do: "/patch"

  defp field(form, name), do: form |> Map.get(name, [""]) |> hd()
end
