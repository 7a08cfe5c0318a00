defmodule HotPatch.Console.Config do
  @moduledoc false
  # What `config :hot_patch, console: [...]` says, judged once when the console starts. An error names
  # the key at fault; passwords and tokens never get into one.

  alias HotPatch.Console.HostNames
  alias HotPatch.Console.Password
  alias HotPatch.Support.Printable

  @type account :: %{name: String.t(), role: :viewer | :admin, password: String.t()}
  @type token :: %{name: String.t(), role: :viewer | :admin, sha256: String.t()}
  @type t :: %__MODULE__{
          port: :inet.port_number() | nil,
          ip: :inet.ip_address(),
          tls: keyword() | nil,
          accounts: [account()],
          tokens: [token()],
          login: module(),
          hosts: [String.t()],
          session_minutes: pos_integer(),
          max_connections: pos_integer(),
          request_seconds: pos_integer(),
          upload_seconds: pos_integer()
        }
  # What is logged of it has no hashes.
  @derive {Inspect, only: [:port, :ip, :login]}
  defstruct port: nil,
            ip: {127, 0, 0, 1},
            tls: nil,
            accounts: [],
            tokens: [],
            login: HotPatch.Console.Accounts,
            hosts: [],
            session_minutes: 480,
            max_connections: 100,
            request_seconds: 15,
            upload_seconds: 120

  @key {__MODULE__, :current}

  @doc "Judges a configuration."
  @spec new(term()) :: {:ok, t()} | {:error, String.t()}
  def new(options) do
    with :ok <- keywords(options) do
      Enum.reduce_while(options, {:ok, %__MODULE__{}}, fn {key, value}, {:ok, config} ->
        case rule(key, value) do
          :ok -> {:cont, {:ok, Map.put(config, key, value)}}
          {:error, rule} -> {:halt, {:error, "config :hot_patch, console: #{key} #{rule}"}}
        end
      end)
    end
  end

  defp keywords(options) do
    if Keyword.keyword?(options) do
      case Keyword.keys(options) -- Enum.uniq(Keyword.keys(options)) do
        [] -> :ok
        [key | _] -> {:error, "config :hot_patch, console: #{key} is given twice"}
      end
    else
      {:error, "config :hot_patch, console: must be a keyword list"}
    end
  end

  @doc "The configuration in force; nil where the console is off."
  @spec current() :: t() | nil
  def current, do: :persistent_term.get(@key, nil)

  @doc "Takes the configuration out of force."
  @spec clear() :: :ok
  def clear do
    _ = :persistent_term.erase(@key)
    :ok
  end

  @doc "Whose access has gone, or is another, with a new configuration."
  @spec withdrawn(t(), t()) :: [{:user | :token, String.t()}] | :everybody
  def withdrawn(%{login: login}, %{login: other}) when login != other, do: :everybody

  def withdrawn(former, config) do
    for(
      {key, kind} <- [accounts: :user, tokens: :token],
      one <- Map.fetch!(former, key) -- Map.fetch!(config, key),
      do: {kind, one.name}
    )
  end

  @doc "What the embedded server is started with."
  @spec listener(t()) :: map()
  def listener(config),
    do: Map.take(config, [:port, :ip, :tls, :max_connections, :request_seconds, :upload_seconds])

  @doc "Puts a configuration in force."
  @spec put(t()) :: :ok
  def put(config), do: :persistent_term.put(@key, config)

  defp rule(:port, port) when port in 0..65_535, do: :ok
  defp rule(:port, _), do: {:error, "must be a port number, 0 to 65,535"}

  defp rule(:ip, ip) do
    if :inet.is_ip_address(ip),
      do: :ok,
      else: {:error, "must be an address such as {127, 0, 0, 1}"}
  end

  defp rule(:tls, tls) do
    if Keyword.keyword?(tls) and tls != [],
      do: :ok,
      else: {:error, "must be options of :ssl, such as [certfile: ..., keyfile: ...]"}
  end

  defp rule(:accounts, list), do: each(list, &account?/1, "a name, a role and a password")

  defp rule(:tokens, list) do
    with :ok <- each(list, &token?/1, "a name, a role and a sha256"),
         :ok <- something(list),
         do: told_apart(list)
  end

  defp rule(:hosts, hosts) do
    if is_list(hosts) and Enum.all?(hosts, &(is_binary(&1) and HostNames.parse(&1) != :error)),
      do: :ok,
      else: {:error, "must be a list of names, such as [\"patch.example.com\"]"}
  end

  defp rule(:login, module) do
    if is_atom(module) and Code.ensure_loaded?(module) and function_exported?(module, :user, 1),
      do: :ok,
      else: {:error, "must be a module with the behaviour HotPatch.Console.Login"}
  end

  defp rule(key, value)
       when key in [:session_minutes, :max_connections, :request_seconds, :upload_seconds] do
    if is_integer(value) and value in 1..100_000, do: :ok, else: {:error, "must be 1 to 100,000"}
  end

  defp rule(_key, _value) do
    known = %__MODULE__{} |> Map.from_struct() |> Map.keys() |> Enum.join(", ")
    {:error, "is not known; there are #{known}"}
  end

  defp each(list, good?, parts) do
    with true <- is_list(list),
         nil <- Enum.find_index(list, &(not good?.(&1))),
         names = Enum.map(list, & &1.name),
         true <- names == Enum.uniq(names) do
      :ok
    else
      index when is_integer(index) ->
        {:error,
         "number #{index + 1}: must be a map with #{parts}; mix hot_patch.password makes them"}

      false ->
        {:error, "must be a list of maps, each with a name of its own"}
    end
  end

  # As a script makes it of a variable that is not set: who sends nothing would be let in.
  @nothing :crypto.hash(:sha256, "") |> Base.encode16(case: :lower)

  defp something(tokens) do
    case Enum.find(tokens, &(&1.sha256 == @nothing)) do
      nil -> :ok
      %{name: name} -> {:error, "has for #{name} the sha256 of an empty text, which is no token"}
    end
  end

  # One token with two names would be whichever comes first, in role and journal.
  defp told_apart(tokens) do
    case tokens
         |> Enum.group_by(& &1.sha256, & &1.name)
         |> Enum.find(&match?({_, [_, _ | _]}, &1)) do
      nil ->
        :ok

      {_digest, names} ->
        {:error, "has one token for #{Enum.join(names, " and ")}: give each one of its own"}
    end
  end

  defp account?(%{name: name, role: role, password: hash}),
    do: person?(name, role) and Password.hash?(hash)

  defp account?(_other), do: false

  defp token?(%{name: name, role: role, sha256: digest}),
    do: person?(name, role) and is_binary(digest) and digest =~ ~r/\A[0-9a-f]{64}\z/

  defp token?(_other), do: false

  defp person?(name, role) do
    is_binary(name) and Printable.line(name) == name and byte_size(name) in 1..100 and
      role in [:viewer, :admin]
  end
end
