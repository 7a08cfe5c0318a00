defmodule HotPatch.Host.Config do
  @moduledoc """
  What `config :hot_patch, ...` says on this node.

  It is read and validated once, when the application starts; what is changed in the
  application's environment later counts from the next start. A value that makes no sense never
  keeps a host from booting: it is logged with the option's name, it is listed in `:warnings` of
  `HotPatch.nodes/0`, and the default counts in its place. So does an option that HotPatch does not
  know. Of the two options that keep patches out, `:require_manifest` and `:require_signature`, a
  value that is no boolean counts as `true`.

  Paths and names may be strings or, as in an Erlang `sys.config`, lists of characters.

  ## Options

  #{HotPatch.Host.Config.Option.docs()}
  """

  alias HotPatch.Host.Config.Option

  require HotPatch.Support.Log, as: Log

  @type t :: %__MODULE__{
          data_dir: Path.t() | nil,
          peers: [node()],
          release: {String.t(), String.t()} | nil,
          roles: [atom()],
          hooks: [module()],
          live_view: boolean(),
          wrappers: [{module(), [term()]}],
          health: mfa() | nil,
          comes_back: boolean() | nil,
          drain_timeout: pos_integer(),
          journal_entries: pos_integer(),
          kept_releases: pos_integer() | nil,
          max_kept_bytes: pos_integer(),
          max_archive_bytes: pos_integer(),
          max_release_bytes: pos_integer(),
          max_entries: pos_integer(),
          max_unpacked_bytes: pos_integer(),
          max_name_bytes: pos_integer(),
          max_module_atoms: pos_integer(),
          max_atoms: pos_integer(),
          max_module_functions: pos_integer(),
          max_functions: pos_integer(),
          max_literal_words: pos_integer(),
          max_literal_depth: pos_integer(),
          max_added_literals: pos_integer(),
          max_module_memory: pos_integer(),
          max_memory: pos_integer(),
          require_manifest: boolean(),
          require_signature: boolean(),
          trusted_keys: [%{public: binary(), name: String.t() | nil}],
          bridge: :port | :nif,
          port_timeout: pos_integer(),
          port_memory: pos_integer() | :infinity | nil,
          loader_vm: :on | :off,
          console: term()
        }
  defstruct Option.defaults()

  @typedoc "What is wrong, by the option's name or by what else was looked at."
  @type warning :: {atom(), String.t()}

  @config {__MODULE__, :config}
  @warnings {__MODULE__, :warnings}

  # What HotPatch and OTP keep in the same environment, and is no configuration.
  @not_ours [:included_applications, :attached, :attached_nodes]

  @doc "The configuration in force; where the application is not started, as its environment is now."
  @spec current() :: t()
  def current do
    with nil <- :persistent_term.get(@config, nil), do: elem(new(environment()), 0)
  end

  @doc "What is wrong with the configuration and with what it names, one line each."
  @spec warnings() :: [String.t()]
  def warnings do
    texts = for {_what, text} <- :persistent_term.get(@warnings, []), do: text
    Enum.reverse(texts)
  end

  @doc "What is wrong with one option, `nil` if nothing is."
  @spec warning(atom()) :: String.t() | nil
  def warning(option) do
    with {_option, text} <- List.keyfind(:persistent_term.get(@warnings, []), option, 0), do: text
  end

  @doc "The same while the system runs: where data is kept and what patches are bound to stay."
  @spec reload() :: :ok
  def reload, do: load([:data_dir, :release])

  @doc """
  Reads the application's environment and puts it in force. `keep` are options whose values stay
  as they are now.
  """
  @spec load([atom()]) :: :ok
  def load(keep \\ []) do
    {config, warnings} = new(environment())
    config = struct!(config, Map.take(current(), keep))
    :persistent_term.put(@config, config)
    :persistent_term.put(@warnings, Enum.reverse(warnings))
    for {_option, text} <- warnings, do: Log.error("HotPatch: #{text}")
    :ok
  end

  @doc "The application has stopped."
  @spec forget() :: :ok
  def forget do
    _ = :persistent_term.erase(@config)
    _ = :persistent_term.erase(@warnings)
    :ok
  end

  @doc "Adds what was found later to be wrong with an option, or with what it names; logs it once."
  @spec warn(atom(), String.t()) :: :ok
  def warn(what, text) do
    warnings = :persistent_term.get(@warnings, [])

    if {what, text} not in warnings do
      :persistent_term.put(@warnings, [{what, text} | List.keydelete(warnings, what, 0)])
      Log.error("HotPatch: #{text}")
    end

    :ok
  end

  @doc "A configuration from an environment, and what is wrong with that."
  @spec new(keyword()) :: {t(), [warning()]}
  def new(environment) do
    Enum.reduce(environment, {%__MODULE__{}, []}, fn {option, value}, {config, warnings} ->
      case Option.read(option, value) do
        {:ok, value} -> {Map.put(config, option, value), warnings}
        {:wrong, value, text} -> {Map.put(config, option, value), warnings ++ [{option, text}]}
        {:unknown, text} -> {config, warnings ++ [{option, text}]}
      end
    end)
  end

  defp environment, do: Application.get_all_env(:hot_patch) |> Keyword.drop(@not_ours)

  # Of the console there are hashes of passwords.
  defimpl Inspect do
    def inspect(config, options),
      do: HotPatch.Support.Printable.inspected(%{config | console: :hidden}, options)
  end
end
