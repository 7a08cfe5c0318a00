defmodule HotPatch.Console.Sessions do
  @moduledoc false
  # Who is logged in, on this node. A session is known by the digest of its cookie, so that what
  # is here is of no use as one. Forms carry a token of the session that is good for one use.
  #
  # Streams of events are told here whose they are, and are told in turn when that user's access has ended.

  use GenServer

  alias HotPatch.Console.Config
  alias HotPatch.Console.Lockout
  alias HotPatch.Console.Password
  alias HotPatch.Console.User

  @type t :: %{id: String.t(), user: User.t(), key: binary(), until: integer(), nth: integer()}

  @typedoc "Whose access a stream has: that of a session's user, or of a token's."
  @type subject :: {:user | :token, name :: String.t()}

  # Sessions in all, and of one user: who begins more ends their own oldest.
  @most 1_000
  @each 20

  # Streams of one user.
  @streams 20

  @uses 10_000

  @spec start_link(Config.t()) :: GenServer.on_start()
  def start_link(config), do: GenServer.start_link(__MODULE__, config, name: __MODULE__)

  @doc "Begins a session; the cookie's value is told this once."
  @spec begin(User.t()) :: {cookie :: String.t(), t()}
  def begin(user), do: GenServer.call(__MODULE__, {:begin, user})

  @doc "The session of a cookie."
  @spec fetch(String.t() | nil) :: {:ok, t()} | :error
  def fetch(nil), do: :error
  def fetch(cookie), do: cookie |> Password.digest() |> by_id()

  @doc "Whether a session goes on."
  @spec alive?(t()) :: boolean()
  def alive?(%{id: id}), do: by_id(id) != :error

  defp by_id(id) do
    case :ets.lookup(__MODULE__, id) do
      [{_id, %{until: until} = session, _spent}] ->
        if until > now(), do: {:ok, session}, else: :error

      [] ->
        :error
    end
  rescue
    # The table goes and comes again with the server.
    ArgumentError -> :error
  end

  @doc "Ends all that a user or a token has here: sessions, forms, streams of events."
  @spec finish([subject()] | :everybody) :: :ok
  def finish(subjects), do: GenServer.call(__MODULE__, {:finish, subjects})

  @doc """
  Has the calling process told when the access of a subject ends, by `{HotPatch.Console.Sessions, :ended}`; `:full`
  if the subject has too many streams.
  """
  @spec watch(subject()) :: :ok | :full
  def watch(subject), do: GenServer.call(__MODULE__, {:watch, subject, self()})

  @doc "Takes a new configuration."
  @spec configure(Config.t()) :: :ok
  def configure(config), do: GenServer.call(__MODULE__, {:configure, config})

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

  @doc "Seconds until a login may be tried, and whether its address has failed too often with other names."
  @spec wait(String.t(), String.t()) :: {non_neg_integer(), strained? :: boolean()}
  def wait(name, address), do: GenServer.call(__MODULE__, {:wait, name, address})

  @doc "Notes how a login ended."
  @spec tried(boolean(), String.t(), String.t()) :: :ok
  def tried(success?, name, address),
    do: GenServer.call(__MODULE__, {:tried, success?, name, address})

  @impl GenServer
  def init(config) do
    _ = :ets.new(__MODULE__, [:named_table, :protected, read_concurrency: true])
    {:ok, %{failures: %{}, watchers: %{}, lifetime: config.session_minutes * 60}}
  end

  @impl GenServer
  def handle_call({:begin, user}, _from, state) do
    make_room(user)
    cookie = Base.url_encode64(:crypto.strong_rand_bytes(32), padding: false)

    session = %{
      id: Password.digest(cookie),
      user: user,
      key: :crypto.strong_rand_bytes(32),
      until: now() + state.lifetime,
      nth: System.unique_integer([:monotonic])
    }

    :ets.insert(__MODULE__, {session.id, session, MapSet.new()})
    {:reply, {cookie, session}, state}
  end

  def handle_call({:finish, subjects}, _from, state) do
    for session <- all(),
        one_of?({:user, session.user.name}, subjects),
        do: :ets.delete(__MODULE__, session.id)

    for {_monitor, {pid, subject}} <- state.watchers,
        one_of?(subject, subjects),
        do: send(pid, {__MODULE__, :ended})

    {:reply, :ok, state}
  end

  def handle_call({:watch, subject, pid}, _from, state) do
    if Enum.count(state.watchers, &match?({_monitor, {_pid, ^subject}}, &1)) < @streams do
      {:reply, :ok, put_in(state.watchers[Process.monitor(pid)], {pid, subject})}
    else
      {:reply, :full, state}
    end
  end

  def handle_call({:configure, config}, _from, state),
    do: {:reply, :ok, %{state | lifetime: config.session_minutes * 60}}

  def handle_call({:spend, id, nonce}, _from, state) do
    {:reply, spend_once(:ets.lookup(__MODULE__, id), nonce), state}
  end

  def handle_call({:wait, name, address}, _from, state) do
    now = now()
    wait = Lockout.wait(state.failures, name, address, now)
    {:reply, {wait, Lockout.strained?(state.failures, address, now)}, state}
  end

  def handle_call({:tried, true, name, address}, _from, state),
    do: {:reply, :ok, Map.update!(state, :failures, &Lockout.succeeded(&1, name, address))}

  def handle_call({:tried, false, name, address}, _from, state),
    do: {:reply, :ok, Map.update!(state, :failures, &Lockout.failed(&1, name, address, now()))}

  @impl GenServer
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state),
    do: {:noreply, %{state | watchers: Map.delete(state.watchers, monitor)}}

  defp all, do: :ets.select(__MODULE__, [{{:_, :"$1", :_}, [], [:"$1"]}])

  defp one_of?(_subject, :everybody), do: true
  defp one_of?(subject, subjects), do: subject in subjects

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

  # Those that have run out, then the user's own oldest, then one of whoever has the most.
  defp make_room(user) do
    now = now()
    :ets.select_delete(__MODULE__, [{{:_, %{until: :"$1"}, :_}, [{:"=<", :"$1", now}], [true]}])
    _ = if id = surplus(all(), user), do: :ets.delete(__MODULE__, id)
    :ok
  end

  @doc false
  @spec surplus([t()], User.t()) :: String.t() | nil
  def surplus(sessions, user) do
    by_user = Enum.group_by(sessions, & &1.user.name)

    cond do
      length(Map.get(by_user, user.name, [])) >= @each ->
        oldest(by_user[user.name]).id

      length(sessions) >= @most ->
        by_user |> Map.values() |> Enum.max_by(&weight/1) |> oldest() |> Map.fetch!(:id)

      true ->
        nil
    end
  end

  # Of two users with as many a viewer gives way, and then whoever has been here longest.
  defp weight([session | _] = sessions),
    do: {length(sessions), session.user.role == :viewer, -oldest(sessions).nth}

  defp oldest(sessions), do: Enum.min_by(sessions, & &1.nth)

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
