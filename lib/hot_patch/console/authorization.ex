defmodule HotPatch.Console.Authorization do
  @moduledoc false
  # Who sends a request, and whether it may: by a token of the configuration, or by a login and its
  # session. What changes anything with a session needs a form's token, and must come from our
  # own pages.

  alias HotPatch.Console.Accounts
  alias HotPatch.Console.Config
  alias HotPatch.Console.Password
  alias HotPatch.Console.Request
  alias HotPatch.Console.Sessions
  alias HotPatch.Console.User

  @type t :: %__MODULE__{
          user: User.t(),
          session: Sessions.t() | nil,
          cookie: String.t() | nil,
          sha256: String.t() | nil
        }
  @derive {Inspect, only: [:user]}
  @enforce_keys [:user]
  defstruct [:user, :session, :cookie, :sha256]

  @doc """
  Who sends a request. `cookie` is set where the session has just begun: the host's login knows the
  user, and our forms need a session. `sha256` is that of a token.
  """
  @spec identify(Request.t()) :: {:ok, t()} | {:error, :login | :token}
  def identify(request) do
    case Request.header(request, "authorization") do
      nil -> by_login(Config.current().login, request)
      authorization -> by_token(String.split(authorization, " ", parts: 2))
    end
  end

  # The name of a scheme is the same in small letters (RFC 9110, 11.1).
  defp by_token([scheme, token]) do
    if String.downcase(scheme) == "bearer",
      do: token |> String.trim(" ") |> Password.digest() |> by_digest(),
      else: {:error, :token}
  end

  defp by_token(_no_scheme), do: {:error, :token}

  # Every one is compared: which of them it was is nobody's to measure.
  defp by_digest(digest) do
    case Enum.filter(Config.current().tokens, &Password.equal?(&1.sha256, digest)) do
      [%{name: name, role: role}] ->
        {:ok, %__MODULE__{user: %User{name: name, role: role}, sha256: digest}}

      [] ->
        {:error, :token}
    end
  end

  @doc "Whose access it is, as `HotPatch.Console.Sessions` knows it."
  @spec subject(t()) :: Sessions.subject()
  def subject(%__MODULE__{sha256: nil, user: user}), do: {:user, user.name}
  def subject(%__MODULE__{user: user}), do: {:token, user.name}

  @doc "Whether somebody who was let in would be now, as the same and with the same role."
  @spec goes_on?(t(), Request.t()) :: boolean()
  def goes_on?(access, request), do: Config.current() != nil and the_same?(access, request)

  defp the_same?(%__MODULE__{sha256: nil, user: user, session: session}, request) do
    login = Config.current().login
    Sessions.alive?(session) and (login == Accounts or login.user(request) == {:ok, user})
  end

  defp the_same?(%__MODULE__{sha256: digest, user: user}, _request),
    do: match?({:ok, %{user: ^user}}, by_digest(digest))

  defp by_login(Accounts, request) do
    case Sessions.fetch(cookie(request)) do
      {:ok, session} -> {:ok, %__MODULE__{user: session.user, session: session}}
      :error -> {:error, :login}
    end
  end

  defp by_login(login, request) do
    with {:ok, %User{} = user} <- login.user(request) do
      case Sessions.fetch(cookie(request)) do
        {:ok, %{user: ^user} = session} ->
          {:ok, %__MODULE__{user: user, session: session}}

        another_or_none ->
          :ok = end_role(another_or_none, user)
          {cookie, session} = Sessions.begin(user)
          {:ok, %__MODULE__{user: user, session: session, cookie: cookie}}
      end
    else
      :error -> {:error, :login}
    end
  end

  # The host has given its user another role: what was begun with the old one ends.
  defp end_role({:ok, %{user: %{name: name}}}, %User{name: name}),
    do: Sessions.finish([{:user, name}])

  defp end_role(_another_or_none, _user), do: :ok

  @doc "Whether a request that changes something is meant: it comes from a page of ours, once."
  @spec meant(t(), Request.t(), String.t() | nil, :look | :spend) ::
          :ok | {:error, :origin | :form | :replayed}
  def meant(access, request, token, how)
  def meant(%__MODULE__{session: nil}, _request, _token, _how), do: :ok

  def meant(%__MODULE__{session: session}, request, token, how) do
    cond do
      not same_origin?(request) -> {:error, :origin}
      how == :look -> if Sessions.token?(session, token), do: :ok, else: {:error, :form}
      true -> spent(Sessions.spend(session, token))
    end
  end

  defp spent(:ok), do: :ok
  defp spent(:spent), do: {:error, :replayed}
  defp spent(:wrong), do: {:error, :form}

  @doc "Whether a browser says that a request comes from one of our pages; others say nothing."
  @spec same_origin?(Request.t()) :: boolean()
  def same_origin?(request) do
    site = Request.header(request, "sec-fetch-site")
    origin = Request.header(request, "origin")
    site in [nil, "same-origin", "none"] and (origin == nil or origin in own_origins(request))
  end

  # A proxy may have taken the TLS off, and tell the name and the port apart.
  defp own_origins(request) do
    host = Request.header(request, "host")
    names = if request.port, do: [host, "#{host}:#{request.port}"], else: [host]
    for scheme <- ["http", "https"], name <- names, do: "#{scheme}://#{name}"
  end

  @doc "The header that hands out a session's cookie, or takes it back (`nil`)."
  @spec set_cookie(Request.t(), String.t() | nil) :: {String.t(), String.t()}
  def set_cookie(request, value) do
    path = if request.base == "", do: "/", else: request.base
    ends = if value, do: "", else: "; Max-Age=0"
    secure = if request.secure?, do: "; Secure", else: ""

    {"set-cookie",
     "#{Accounts.cookie_name(request)}=#{value}; Path=#{path}; HttpOnly; SameSite=Strict#{secure}#{ends}"}
  end

  defp cookie(request), do: Request.cookie(request, Accounts.cookie_name(request))
end
