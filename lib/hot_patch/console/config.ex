defmodule HotPatch.Console.Config do
  @moduledoc false
  # What `config :hot_patch, console: [...]` says, judged once when the console starts. An error names
  # the key at fault; passwords and tokens never get into one.

  alias HotPatch.Console.Password

  @type account :: %{name: String.t(), role: :viewer | :admin, password: String.t()}
  @type token :: %{name: String.t(), role: :viewer | :admin, sha256: String.t()}
  @type t :: %__MODULE__{
          port: :inet.port_number() | nil,
          ip: :inet.ip_address(),
          tls: keyword() | nil,
          accounts: [account()],
          tokens: [token()],
          login: module(),
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
            session_minutes: 480,
            max_connections: 100,
            request_seconds: 15,
            upload_seconds: 120

  @key {__MODULE__, :current}

  @doc "Judges a configuration."
  @spec new(term()) :: {:ok, t()} | {:error, String.t()}
  def new(options) do
    if Keyword.keyword?(options) do
      Enum.reduce_while(options, {:ok, %__MODULE__{}}, fn {key, value}, {:ok, config} ->
        case rule(key, value) do
          :ok -> {:cont, {:ok, Map.put(config, key, value)}}
          {:error, rule} -> {:halt, {:error, "config :hot_patch, console: #{key} #{rule}"}}
        end
      end)
    else
      {:error, "config :hot_patch, console: must be a keyword list"}
    end
  end

  @doc "The configuration in force; nil where the console is off."
  @spec current() :: t() | nil
  def current, do: :persistent_term.get(@key, nil)

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
  defp rule(:tokens, list), do: each(list, &token?/1, "a name, a role and a sha256")

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

  defp account?(%{name: name, role: role, password: hash}),
    do: person?(name, role) and Password.hash?(hash)

  defp account?(_other), do: false

  defp token?(%{name: name, role: role, sha256: digest}),
    do: person?(name, role) and is_binary(digest) and digest =~ ~r/\A[0-9a-f]{64}\z/

  defp token?(_other), do: false

  defp person?(name, role) do
    is_binary(name) and String.printable?(name) and byte_size(name) in 1..100 and
      role in [:viewer, :admin]
  end
end
