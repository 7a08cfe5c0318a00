defmodule HotPatch.Console.Operations do
  @moduledoc false
  # What was begun from this node's console: it goes on when the browser goes away, and how it
  # ended can be looked at afterwards. The journal keeps it for good, this server the reports of
  # the latest.

  use GenServer

  alias HotPatch.Error
  alias HotPatch.Support.Hex

  @type kind :: :apply | :rollback | :rehearse | :restart
  @type t :: %__MODULE__{
          id: String.t(),
          kind: kind(),
          subject: String.t(),
          by: String.t(),
          reason: String.t() | nil,
          started_at: DateTime.t(),
          ended_at: DateTime.t() | nil,
          result: {:ok, term()} | {:error, Exception.t()} | nil
        }
  @enforce_keys [:id, :kind, :subject, :by, :started_at]
  defstruct [:id, :kind, :subject, :by, :reason, :started_at, :ended_at, :result]

  @kept 50

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Begins an operation. `options` are those of the call, `by` among them."
  @spec begin(kind(), String.t(), keyword(), (() -> result)) :: String.t()
        when result: {:ok, term()} | {:error, Exception.t()}
  def begin(kind, subject, options, fun),
    do: GenServer.call(__MODULE__, {:begin, kind, subject, options, fun})

  @doc "How an operation ended, when it has."
  @spec await(String.t()) :: {:ok, t()} | :unknown
  def await(id), do: GenServer.call(__MODULE__, {:await, id}, :infinity)

  @doc "An operation as it is now."
  @spec fetch(String.t()) :: {:ok, t()} | :unknown
  def fetch(id), do: GenServer.call(__MODULE__, {:fetch, id})

  @doc "The latest operations, the last first."
  @spec list() :: [t()]
  def list, do: GenServer.call(__MODULE__, :list)

  @impl GenServer
  def init([]), do: {:ok, %{kept: [], running: %{}, waiting: %{}}}

  @impl GenServer
  def handle_call({:begin, kind, subject, options, fun}, _from, state) do
    operation = %__MODULE__{
      id: Hex.random(),
      kind: kind,
      subject: subject,
      by: options[:by],
      reason: options[:reason],
      started_at: DateTime.utc_now()
    }

    server = self()
    {_pid, monitor} = spawn_monitor(fn -> send(server, {:result, operation.id, fun.()}) end)
    state = %{state | kept: Enum.take([operation | state.kept], @kept)}
    {:reply, operation.id, put_in(state.running[monitor], operation.id)}
  end

  def handle_call({:await, id}, from, state) do
    case find(state, id) do
      %{ended_at: nil} -> {:noreply, update_in(state.waiting[id], &[from | &1 || []])}
      nil -> {:reply, :unknown, state}
      operation -> {:reply, {:ok, operation}, state}
    end
  end

  def handle_call({:fetch, id}, _from, state) do
    {:reply, if(operation = find(state, id), do: {:ok, operation}, else: :unknown), state}
  end

  def handle_call(:list, _from, state), do: {:reply, state.kept, state}

  @impl GenServer
  def handle_info({:result, id, result}, state), do: {:noreply, ended(state, id, result)}

  def handle_info({:DOWN, monitor, :process, _pid, reason}, state) do
    {id, running} = Map.pop(state.running, monitor)
    state = %{state | running: running}

    case find(state, id) do
      %{ended_at: nil, kind: kind, subject: subject} ->
        text = "#{kind} #{subject}: it died (#{inspect(reason, limit: 20)}); see the journal"
        error = %Error{reason: :internal, message: text}
        {:noreply, ended(state, id, {:error, error})}

      _has_ended ->
        {:noreply, state}
    end
  end

  defp find(state, id), do: Enum.find(state.kept, &(&1.id == id))

  defp ended(state, id, result) do
    kept =
      Enum.map(state.kept, fn
        %{id: ^id} = operation -> %{operation | result: result, ended_at: DateTime.utc_now()}
        other -> other
      end)

    {waiting, others} = Map.pop(state.waiting, id, [])
    state = %{state | kept: kept, waiting: others}
    operation = find(state, id)
    for from <- waiting, do: GenServer.reply(from, {:ok, operation})
    state
  end
end
