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

  require HotPatch.Support.Log, as: Log

  # A password takes a tenth of a second of a processor; a flood of them shall not take them all. Beside
  # the counter stands how long the latest took, in milliseconds.
  @at_once 4
  @counter {__MODULE__, :counter}

  # Nobody's password is longer, and hashing a longer one is the sender's wish alone.
  @longest 1_000

  @doc "Makes the counter of logins under way."
  @spec prepare() :: :ok
  def prepare, do: :persistent_term.put(@counter, :atomics.new(2, []))

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
    account = Enum.find(Config.current().accounts, &(&1.name == name))

    case {Sessions.wait(name, request.peer), account} do
      {{0, true}, nil} ->
        attempt(request, name, nil, fn -> as_long(password) end)

      {{0, _}, _} ->
        alone(fn -> attempt(request, name, account, fn -> right?(account, password) end) end)

      {{seconds, _}, _} ->
        {:wait, seconds}
    end
  end

  # A flood of made-up names from one address costs no processor, and those behind the same proxy no attempt;
  # whether an account exists is not to be seen by the clock for all that.
  defp as_long(password) when byte_size(password) > @longest, do: false

  defp as_long(_password) do
    receive do
    after
      :atomics.get(:persistent_term.get(@counter), 2) -> false
    end
  end

  defp attempt(request, name, account, judge) do
    right? = judge.()
    :ok = Sessions.tried(right?, name, request.peer)
    log(right?, account, request.peer)
    if right?, do: {:ok, %User{name: account.name, role: account.role}}, else: :wrong
  end

  defp right?(_account, password) when byte_size(password) > @longest, do: false

  defp right?(account, password) do
    {microseconds, right?} =
      :timer.tc(fn ->
        if account,
          do: Password.verify(password, account.password),
          else: Password.verify_nobody(password)
      end)

    :ok = :atomics.put(:persistent_term.get(@counter), 2, div(microseconds, 1000))
    right?
  end

  defp log(true, %{name: name}, peer),
    do:
      Log.info("HotPatch: #{name} has logged in at the console from #{peer}", by: name, from: peer)

  # What was typed as a name may be a password: none is told that is not an account's.
  defp log(false, account, peer) do
    whom = if account, do: " as #{account.name}", else: ""
    Log.warning("HotPatch: a login#{whom} at the console from #{peer} has failed", from: peer)
  end

  defp alone(fun) do
    counter = :persistent_term.get(@counter)

    try do
      if :atomics.add_get(counter, 1, 1) > @at_once, do: :busy, else: fun.()
    after
      :atomics.sub(counter, 1, 1)
    end
  end
end
