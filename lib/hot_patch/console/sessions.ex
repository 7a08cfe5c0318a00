defmodule HotPatch.Console.Sessions do
  @moduledoc false
  # Who is logged in, on this node. A session is known by the digest of its cookie, so that what
  # is here is of no use as one. Forms carry a token of the session that is good for one use.

  use GenServer

  alias HotPatch.Console.Config
  alias HotPatch.Console.Lockout
  alias HotPatch.Console.Password
  alias HotPatch.Console.User

  @type t :: %{id: String.t(), user: User.t(), key: binary(), until: integer()}

  @most 1_000
  @uses 10_000

  @spec start_link(Config.t()) :: GenServer.on_start()
  def start_link(config), do: GenServer.start_link(__MODULE__, config, name: __MODULE__)

  @doc "Begins a session; the cookie's value is told this once."
  @spec begin(User.t()) :: {cookie :: String.t(), t()}
  def begin(user), do: GenServer.call(__MODULE__, {:begin, user})

  @doc "The session of a cookie."
  @spec fetch(String.t() | nil) :: {:ok, t()} | :error
  def fetch(nil), do: :error

  def fetch(cookie) do
    case :ets.lookup(__MODULE__, Password.digest(cookie)) do
      [{_id, %{until: until} = session, _spent}] ->
        if until > now(), do: {:ok, session}, else: :error

      [] ->
        :error
    end
  rescue
    # The table goes and comes again with the server.
    ArgumentError -> :error
  end

  @doc "Ends a session."
  @spec finish(t()) :: :ok
  def finish(session), do: GenServer.call(__MODULE__, {:finish, session.id})

  @doc "A token for one form."
  @spec token(t()) :: String.t()
  def token(session) do
    nonce = :crypto.strong_rand_bytes(12)
    Base.url_encode64(nonce <> mac(session, nonce), padding: false)
  end

  @doc "Whether a form's token is of this session; it may have been used."
  @spec token?(t(), String.t() | nil) :: boolean()
  def token?(session, token), do: nonce(session, token) != :error

  @doc "Uses a form's token, which can be done once."
  @spec spend(t(), String.t() | nil) :: :ok | :wrong | :spent
  def spend(session, token) do
    case nonce(session, token) do
      {:ok, nonce} -> GenServer.call(__MODULE__, {:spend, session.id, nonce})
      :error -> :wrong
    end
  end

  @doc "Seconds until a login may be tried."
  @spec wait(String.t(), String.t()) :: non_neg_integer()
  def wait(name, address), do: GenServer.call(__MODULE__, {:wait, name, address})

  @doc "Notes how a login ended."
  @spec tried(boolean(), String.t(), String.t()) :: :ok
  def tried(success?, name, address),
    do: GenServer.call(__MODULE__, {:tried, success?, name, address})

  @impl GenServer
  def init(config) do
    _ = :ets.new(__MODULE__, [:named_table, :protected, read_concurrency: true])
    {:ok, %{failures: %{}, lifetime: config.session_minutes * 60}}
  end

  @impl GenServer
  def handle_call({:begin, user}, _from, state) do
    make_room()
    cookie = Base.url_encode64(:crypto.strong_rand_bytes(32), padding: false)

    session = %{
      id: Password.digest(cookie),
      user: user,
      key: :crypto.strong_rand_bytes(32),
      until: now() + state.lifetime
    }

    :ets.insert(__MODULE__, {session.id, session, MapSet.new()})
    {:reply, {cookie, session}, state}
  end

  def handle_call({:finish, id}, _from, state) do
    :ets.delete(__MODULE__, id)
    {:reply, :ok, state}
  end

  def handle_call({:spend, id, nonce}, _from, state) do
    {:reply, spend_once(:ets.lookup(__MODULE__, id), nonce), state}
  end

  def handle_call({:wait, name, address}, _from, state),
    do: {:reply, Lockout.wait(state.failures, name, address, now()), state}

  def handle_call({:tried, true, name, address}, _from, state),
    do: {:reply, :ok, Map.update!(state, :failures, &Lockout.succeeded(&1, name, address))}

  def handle_call({:tried, false, name, address}, _from, state),
    do: {:reply, :ok, Map.update!(state, :failures, &Lockout.failed(&1, name, address, now()))}

  defp spend_once([{id, session, spent}], nonce) do
    cond do
      MapSet.member?(spent, nonce) ->
        :spent

      # Nobody sends so many forms in one session.
      MapSet.size(spent) >= @uses ->
        :ets.delete(__MODULE__, id)
        :wrong

      true ->
        :ets.insert(__MODULE__, {id, session, MapSet.put(spent, nonce)})
        :ok
    end
  end

  defp spend_once([], _nonce), do: :wrong

  defp make_room do
    now = now()
    :ets.select_delete(__MODULE__, [{{:_, %{until: :"$1"}, :_}, [{:"=<", :"$1", now}], [true]}])

    if :ets.info(__MODULE__, :size) >= @most do
      {id, _until} =
        :ets.foldl(fn {id, s, _}, oldest -> older({id, s.until}, oldest) end, nil, __MODULE__)

      :ets.delete(__MODULE__, id)
    end
  end

  defp older(one, nil), do: one
  defp older({_, until} = one, {_, oldest}) when until < oldest, do: one
  defp older(_one, oldest), do: oldest

  defp nonce(session, token) do
    with true <- is_binary(token),
         {:ok, <<nonce::binary-size(12), mac::binary-size(32)>>} <-
           Base.url_decode64(token, padding: false),
         true <- Password.equal?(mac, mac(session, nonce)) do
      {:ok, nonce}
    else
      _not_ours -> :error
    end
  end

  defp mac(session, nonce), do: :crypto.mac(:hmac, :sha256, session.key, nonce)

  defp now, do: System.monotonic_time(:second)
end
