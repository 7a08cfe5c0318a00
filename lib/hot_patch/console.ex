defmodule HotPatch.Console do
  @moduledoc """
  The admin page: System/Patch and System/Nodes, and the same as JSON.

  It is off unless configured. With a port it is served by OTP's own HTTP server:

      config :hot_patch,
        console: [
          port: 4040,
          accounts: [%{name: "alice", role: :admin, password: "pbkdf2-sha512$..."}],
          tokens: [%{name: "deploy", role: :admin, sha256: "..."}]
        ]

    * `:port` - to listen on; without it nothing listens, and a Plug application forwards to
      `HotPatch.Console.Plug`. Where it is taken (several nodes on a host) it is tried again
    * `:ip` - to listen on; default: `{127, 0, 0, 1}`, the loopback interface only
    * `:tls` - options of `:ssl`, such as `[certfile: "...", keyfile: "..."]`; default: none. Set it before you
      listen on anything but loopback
    * `:accounts` - who may log in: `:name`, `:role` (`:viewer` sees, `:admin` acts) and `:password`, a hash made by
      `mix hot_patch.password`
    * `:tokens` - for scripts, `Authorization: Bearer ...`: `:name`, `:role` and `:sha256`, made by
      `mix hot_patch.password --token`
    * `:login` - a module with the behaviour `HotPatch.Console.Login`, in place of the accounts
    * `:hosts` - names under which browsers reach it, such as `["patch.example.com"]`, beside the name and the
      addresses of the machine on which it listens (`localhost` on loopback). A request with another `Host` gets
      nothing. Behind a proxy, name what the browser shows; within a Plug application nothing is
      checked unless names are given
    * `:session_minutes` - default: 480
    * `:max_connections` - default: 100. Where there are more, those go that have not sent a request yet, from
      the address that has the most of them, the newest first
    * `:request_seconds`, `:upload_seconds` - how long the head of a request and a form may take to arrive, and
      an archive; default: 15 and 120

  A release has to bring the server along: `extra_applications: [:inets, :ssl]` in the host's `mix.exs`.
  A configuration that is wrong is logged, and the console stays off: the system starts all the same. One that is
  changed while the system runs takes effect with `reload/0`, which a configuration change of the application
  (`c:Application.config_change/3`, `config:` of a patch) calls by itself.

  The console is a function from a request to a response, `call/1`, over the public functions of `HotPatch`; a
  server asks `head/1` before it reads a body.
  """

  use Supervisor, restart: :temporary

  alias HotPatch.Console.Accounts
  alias HotPatch.Console.Config
  alias HotPatch.Console.EventStream
  alias HotPatch.Console.Inets
  alias HotPatch.Console.Operations
  alias HotPatch.Console.Pipeline
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Sessions
  alias HotPatch.Support.BackoffSupervisor

  @doc "Starts the console as it is configured, or as the options say; `:ignore` where it is off."
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options \\ []) do
    case Keyword.get(options, :console, HotPatch.Host.Config.current().console) do
      off when off in [nil, false] ->
        :ignore

      options ->
        case Config.new(options) do
          {:ok, config} ->
            Supervisor.start_link(__MODULE__, config, name: __MODULE__)

          {:error, text} ->
            HotPatch.Host.Config.warn(:console, "the console is off: #{text}")
            :ignore
        end
    end
  end

  @doc """
  Takes the configuration as it is now. Whose account or token has gone, or has another role or secret, is logged out at
  once, with all sessions and streams of events; others notice nothing, unless the address, the port or
  a limit is another: then the server listens anew.

  A configuration that is wrong changes nothing.
  """
  @spec reload() :: :ok | {:error, String.t()}
  def reload do
    :ok = HotPatch.Host.Config.reload()
    options = HotPatch.Host.Config.current().console || false

    case {options && Config.new(options), Process.whereis(__MODULE__)} do
      {false, nil} -> :ok
      {false, pid} -> stop(pid)
      {{:ok, _config}, nil} -> start()
      {{:ok, config}, _pid} -> renew(config)
      {{:error, text}, _pid} -> as_it_was(text)
    end
  end

  defp as_it_was(text) do
    :ok = HotPatch.Host.Config.warn(:console, "the console goes on as it was: #{text}")
    {:error, text}
  end

  defp stop(pid) do
    :ok = Config.clear()
    _ = BackoffSupervisor.stop_child(__MODULE__)
    # One that somebody else has started.
    if Process.alive?(pid), do: Supervisor.stop(pid), else: :ok
  end

  # One that was off, or has ended, is still known to its supervisor.
  defp start do
    with {:error, reason} <- BackoffSupervisor.start_child(__MODULE__),
         do: {:error, "the console does not start: #{inspect(reason)}"}
  end

  defp renew(config) do
    former = Config.current()
    :ok = Config.put(config)
    :ok = Sessions.configure(config)
    :ok = Sessions.finish(Config.withdrawn(former, config))
    if Config.listener(former) == Config.listener(config), do: :ok, else: listen_anew(config)
  end

  defp listen_anew(config) do
    _ = Supervisor.terminate_child(__MODULE__, Inets)
    _ = Supervisor.delete_child(__MODULE__, Inets)

    for server <- server(config), do: {:ok, _pid} = Supervisor.start_child(__MODULE__, server)
    :ok
  end

  defp server(%Config{port: nil}), do: []
  defp server(config), do: [{Inets, config}]

  @doc """
  Ends all that a user of the console has on this node, sessions and streams of events: for a host with a login of
  its own, where somebody logs out or loses a role there.
  """
  @spec log_out(String.t()) :: :ok
  def log_out(name) do
    if Process.whereis(Sessions), do: Sessions.finish([{:user, name}]), else: :ok
  end

  @impl Supervisor
  def init(config) do
    :ok = Config.put(config)
    :ok = Accounts.prepare()
    :ok = EventStream.prepare()

    Supervisor.init([{Sessions, config}, {Operations, []} | server(config)],
      strategy: :one_for_one
    )
  end

  @doc """
  Judges a request by its head, `body` being `""`: how many bytes of its body may be read, or the answer
  with which it is refused before any of it is.
  """
  @spec head(Request.t()) :: {:read, non_neg_integer()} | {:refuse, Response.t()}
  defdelegate head(request), to: Pipeline

  @doc "Answers a request."
  @spec call(Request.t()) :: Response.t()
  defdelegate call(request), to: Pipeline

  @doc "The port on which the embedded server listens, `nil` while it does not."
  @spec port() :: :inet.port_number() | nil
  defdelegate port, to: Inets
end
