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
    * `:session_minutes` - default: 480
    * `:max_connections` - default: 100
    * `:request_seconds`, `:upload_seconds` - how long the head of a request and a form may take to arrive, and
      an archive; default: 15 and 120

  A release has to bring the server along: `extra_applications: [:inets, :ssl]` in the host's `mix.exs`.
  A configuration that is wrong is logged, and the console stays off: the system starts all the same.

  The console is a function from a request to a response, `call/1`, over the public functions of `HotPatch`; a
  server asks `head/1` before it reads a body.
  """

  use Supervisor, restart: :temporary

  alias HotPatch.Console.Accounts
  alias HotPatch.Console.Config
  alias HotPatch.Console.Gate
  alias HotPatch.Console.Inets
  alias HotPatch.Console.Operations
  alias HotPatch.Console.Request
  alias HotPatch.Console.Response
  alias HotPatch.Console.Sessions
  alias HotPatch.Console.Stream

  @doc "Starts the console as it is configured, or as the options say; `:ignore` where it is off."
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options \\ []) do
    case Keyword.get(options, :console, HotPatch.Config.current().console) do
      off when off in [nil, false] ->
        :ignore

      options ->
        case Config.new(options) do
          {:ok, config} ->
            Supervisor.start_link(__MODULE__, config, name: __MODULE__)

          {:error, text} ->
            HotPatch.Config.warn(:console, "the console is off: #{text}")
            :ignore
        end
    end
  end

  @impl Supervisor
  def init(config) do
    :ok = Config.put(config)
    :ok = Accounts.prepare()
    :ok = Stream.prepare()
    server = if config.port, do: [{Inets, config}], else: []
    Supervisor.init([{Sessions, config}, {Operations, []} | server], strategy: :one_for_one)
  end

  @doc """
  Judges a request by its head, `body` being `""`: how many bytes of its body may be read, or the answer
  with which it is refused before any of it is.
  """
  @spec head(Request.t()) :: {:read, non_neg_integer()} | {:refuse, Response.t()}
  defdelegate head(request), to: Gate

  @doc "Answers a request."
  @spec call(Request.t()) :: Response.t()
  defdelegate call(request), to: Gate

  @doc "The port on which the embedded server listens, `nil` while it does not."
  @spec port() :: :inet.port_number() | nil
  defdelegate port, to: Inets
end
