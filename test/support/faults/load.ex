defmodule HotPatch.Test.Faults.Load do
  @moduledoc false
  # Runs on a node under test: calls in progress, and somebody who talks in them without a
  # pause and knows how long each must be by now.

  use GenServer

  # Of a wait for an answer, and milliseconds between.
  @looks 50
  @between 100

  # Of the sample system, which only the nodes have.
  @compile {:no_warn_undefined, Exchange}

  @pairs [{"1234567", "7654321"}, {"withheld", "0301234"}, {"1234567", "0044123"}]

  @doc "Starts calls and their traffic on this node."
  @spec start(pos_integer()) :: :ok
  def start(count) do
    {:ok, _pid} = GenServer.start(__MODULE__, count, name: __MODULE__)
    :ok
  end

  @doc """
  Compares all calls with what was talked in them; gives what is wrong. No answer in between
  may have been lost or wrong.
  """
  @spec verify() :: [String.t()]
  def verify do
    if Process.whereis(__MODULE__),
      do: GenServer.call(__MODULE__, :verify, 50_000),
      else: ["the traffic has ended"]
  end

  @doc "Writes this node's log to a file."
  @spec log_to(Path.t()) :: :ok
  def log_to(path) do
    Logger.configure(level: :info)
    for id <- :logger.get_handler_ids(), do: :logger.remove_handler(id)

    :logger.add_handler(:file, :logger_std_h, %{
      config: %{file: HotPatch.Support.FileName.to_charlist(path)},
      formatter:
        {:logger_formatter, %{template: [:time, " ", :msg, "\n"], depth: 20, max_size: 2000}}
    })
  end

  @impl GenServer
  def init(count) do
    pids = Exchange.start_calls(Enum.take(Stream.cycle(@pairs), count))
    {:ok, %{calls: Map.new(pids, &{&1, 0}), queue: pids, wrong: []}, 0}
  end

  @impl GenServer
  def handle_call(:verify, _from, state) do
    wrong =
      for {pid, seconds} <- state.calls,
          text = difference(ask(pid, :info), seconds),
          do: "call #{inspect(pid)}: #{text}"

    {:reply, Enum.reverse(state.wrong) ++ wrong, state, 0}
  end

  # One second more in one call after another; a little air between, for other nodes.
  @impl GenServer
  def handle_info(:timeout, %{queue: []} = state),
    do: {:noreply, %{state | queue: Map.keys(state.calls)}, 1}

  def handle_info(:timeout, %{queue: [pid | queue]} = state) do
    seconds = state.calls[pid] + 1

    wrong =
      case difference(ask(pid, {:talk, 1}), seconds) do
        nil -> state.wrong
        text -> ["talking in #{inspect(pid)}: #{text}" | state.wrong]
      end

    {:noreply, %{state | calls: %{state.calls | pid => seconds}, queue: queue, wrong: wrong}, 0}
  end

  def handle_info(_late, state), do: {:noreply, state, 0}

  # As `Exchange.talk/2` and `Exchange.info/1`, but of the five seconds that they wait only those count
  # in which this node ran: while the whole host stands still nobody can answer, and when it goes on the
  # time of all who wait is over at once.
  defp ask(pid, request), do: wait(:gen_server.send_request(pid, request), @looks)

  defp wait(_request, 0), do: {:exit, :timeout}

  defp wait(request, looks) do
    case :gen_server.wait_response(request, @between) do
      {:reply, answer} -> answer
      {:error, {reason, _server}} -> {:exit, reason}
      :timeout -> wait(request, looks - 1)
    end
  end

  defp difference(%{seconds: seconds}, seconds), do: nil

  defp difference(answer, seconds),
    do: "expected #{seconds} seconds, got #{inspect(answer, limit: 20)}"
end
