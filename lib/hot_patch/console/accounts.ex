defmodule HotPatch.Console.Accounts do
  @moduledoc false
  # The accounts of the configuration: logging in with a name and a password, and the session
  # that follows. What stands in for the host application's own login where there is none.

  @behaviour HotPatch.Console.Login

  alias HotPatch.Console.Config
  alias HotPatch.Console.Password
  alias HotPatch.Console.Request
  alias HotPatch.Console.Sessions
  alias HotPatch.Console.User

  require HotPatch.Log, as: Log

  # A password takes a tenth of a second of a processor; a flood of them shall not take them all.
  @at_once 4
  @counter {__MODULE__, :counter}

  # Nobody's password is longer, and hashing a longer one is the sender's wish alone.
  @longest 1_000

  @doc "Makes the counter of logins under way."
  @spec prepare() :: :ok
  def prepare, do: :persistent_term.put(@counter, :atomics.new(1, []))

  @impl HotPatch.Console.Login
  def user(request) do
    with {:ok, session} <- Sessions.fetch(Request.cookie(request, cookie_name(request))),
         do: {:ok, session.user}
  end

  @impl HotPatch.Console.Login
  def login_path(request), do: request.base <> "/login"

  @doc "The name of the session cookie. The prefix makes browsers refuse it from elsewhere."
  @spec cookie_name(Request.t()) :: String.t()
  def cookie_name(%Request{secure?: true, base: ""}), do: "__Host-hot_patch"
  def cookie_name(_request), do: "hot_patch"

  @doc "Tries a name and a password."
  @spec log_in(Request.t(), String.t(), String.t()) ::
          {:ok, User.t()} | {:wait, pos_integer()} | :busy | :wrong
  def log_in(request, name, password) do
    case Sessions.wait(name, request.peer) do
      0 -> alone(fn -> attempt(request, name, password) end)
      seconds -> {:wait, seconds}
    end
  end

  defp attempt(request, name, password) do
    account = Enum.find(Config.current().accounts, &(&1.name == name))
    right? = right?(account, password)
    :ok = Sessions.tried(right?, name, request.peer)
    log(right?, name, request.peer)
    if right?, do: {:ok, %User{name: account.name, role: account.role}}, else: :wrong
  end

  defp right?(_account, password) when byte_size(password) > @longest, do: false
  defp right?(nil, password), do: Password.verify_nobody(password)
  defp right?(account, password), do: Password.verify(password, account.password)

  defp log(true, name, peer),
    do: Log.info("HotPatch: #{name} has logged in at the console", by: name, from: peer)

  # What was typed as a name may be a password.
  defp log(false, _name, peer),
    do: Log.warning("HotPatch: a login at the console has failed", from: peer)

  defp alone(fun) do
    counter = :persistent_term.get(@counter)

    try do
      if :atomics.add_get(counter, 1, 1) > @at_once, do: :busy, else: fun.()
    after
      :atomics.sub(counter, 1, 1)
    end
  end
end
