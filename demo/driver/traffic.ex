defmodule Demo.Traffic do
  @moduledoc false
  # The subscribers. Workers in this node keep talking on calls picked at random, over
  # distribution, and know what each call must answer; a watcher notices every call that ends
  # though nobody hung up.
  #
  # A call belongs to one worker, so what it must answer is known exactly. In between, workers
  # set up short calls of their own and hang them up, so that processes begin and end all the
  # time.

  alias Demo.Cluster

  @workers_per_node 2
  @think_ms 1
  @short_call_every 25
  @short_call_number "0201"
  @short_call_seconds 59
  @short_call_cents [0, 10]

  @enforce_keys [:workers, :watcher]
  defstruct @enforce_keys

  @type t :: %__MODULE__{workers: [{node(), pid()}], watcher: pid()}

  @typedoc "What a call must say of itself."
  @type expected :: {seconds :: non_neg_integer(), requests :: non_neg_integer()}

  @typedoc "How one node answered in one phase; times in microseconds."
  @type result :: %{
          answers: non_neg_integer(),
          median: non_neg_integer() | nil,
          p99: non_neg_integer() | nil,
          longest: non_neg_integer() | nil
        }

  @typedoc "What the books of a node must say of its calls."
  @type books :: %{
          lines: non_neg_integer(),
          seconds: non_neg_integer(),
          ended: non_neg_integer(),
          cents: non_neg_integer()
        }

  @doc "Starts the subscribers of calls in progress; nothing has been said on them yet."
  @spec start([{node(), [pid()]}]) :: t()
  def start(calls) do
    workers =
      for {node, pids} <- calls,
          part <- Enum.chunk_every(pids, div(length(pids) - 1, @workers_per_node) + 1) do
        {node, spawn_link(fn -> work(node, part) end)}
      end

    pids = Enum.flat_map(calls, fn {_node, pids} -> pids end)
    traffic = %__MODULE__{workers: workers, watcher: spawn_link(fn -> watch(pids) end)}
    _ = ask(traffic, :hello)
    traffic
  end

  @doc "Begins a phase by name; answers are counted by the phase in which they were asked for."
  @spec phase(t(), atom()) :: :ok
  def phase(traffic, phase) do
    _ = ask(traffic, {:phase, phase})
    :ok
  end

  @doc "Begins a phase, and waits until each node has given so many answers in it."
  @spec phase(t(), atom(), pos_integer()) :: :ok
  def phase(traffic, phase, least) do
    before = answers(traffic, phase)
    phase(traffic, phase)

    Cluster.wait_until("every node has answered in the phase #{phase}", fn ->
      traffic
      |> answers(phase)
      |> Enum.zip_with(before, &(&1 - &2))
      |> Enum.all?(&(&1 >= least))
    end)
  end

  defp answers(traffic, phase),
    do: for({_node, result} <- results(traffic, phase), do: result.answers)

  @doc "How the nodes did in a phase."
  @spec results(t(), atom()) :: [{node(), result()}]
  def results(traffic, phase) do
    for {node, times} <- by_node(ask(traffic, {:times, phase})) do
      {node, times |> Enum.concat() |> Enum.sort() |> List.to_tuple() |> summary()}
    end
  end

  @doc "How many answers came in all phases."
  @spec count(t()) :: non_neg_integer()
  def count(traffic), do: traffic |> ask(:count) |> Enum.map(&elem(&1, 1)) |> Enum.sum()

  @doc "What went wrong in all phases, in words."
  @spec problems(t()) :: [String.t()]
  def problems(traffic), do: traffic |> ask(:problems) |> Enum.flat_map(&elem(&1, 1))

  @doc "The calls that ended though nobody hung up, as `{pid, reason}`."
  @spec dropped(t()) :: [{pid(), term()}]
  def dropped(traffic), do: ask_one(traffic.watcher, :dropped)

  @doc """
  Reads the state of every call: how many are kept in which format, `:lost` for one that is
  not what it must be.
  """
  @spec audit(t()) :: %{optional(:shipped | :patched | :lost) => pos_integer()}
  def audit(traffic) do
    traffic
    |> ask(:audit)
    |> Enum.flat_map(fn {_node, formats} -> formats end)
    |> Enum.frequencies()
  end

  @doc "What the books of each node must say if not a second was lost. Stops the subscribers."
  @spec stop(t()) :: [{node(), books()}]
  def stop(traffic) do
    answers = ask(traffic, :stop)

    for {node, parts} <- by_node(answers) do
      {node, Enum.reduce(parts, &Map.merge(&1, &2, fn _key, one, other -> one + other end))}
    end
  end

  ## Talking to workers

  defp by_node(answers) do
    answers |> Enum.group_by(&elem(&1, 0), &elem(&1, 1)) |> Enum.sort()
  end

  defp ask(traffic, question) do
    asked = for {node, worker} <- traffic.workers, do: {node, send_question(worker, question)}
    for {node, reference} <- asked, do: {node, await_answer(reference)}
  end

  defp ask_one(pid, question), do: pid |> send_question(question) |> await_answer()

  defp send_question(pid, question) do
    reference = make_ref()
    send(pid, {question, self(), reference})
    reference
  end

  # Workers are linked, so there is no waiting for one that is gone.
  defp await_answer(reference), do: receive(do: ({^reference, answer} -> answer))

  ## A worker

  defp work(node, pids) do
    loop(%{
      node: node,
      pids: List.to_tuple(pids),
      expected: Map.new(pids, &{&1, {0, 0}}),
      phase: :calm,
      times: %{},
      count: 0,
      problems: [],
      turn: 0,
      ended: 0,
      cents: 0,
      short_seconds: 0
    })
  end

  defp loop(state) do
    receive do
      {:hello, asker, reference} ->
        send(asker, {reference, :ok})
        loop(state)

      {{:phase, phase}, asker, reference} ->
        send(asker, {reference, :ok})
        loop(%{state | phase: phase})

      {{:times, phase}, asker, reference} ->
        send(asker, {reference, Map.get(state.times, phase, [])})
        loop(state)

      {:count, asker, reference} ->
        send(asker, {reference, state.count})
        loop(state)

      {:problems, asker, reference} ->
        send(asker, {reference, state.problems})
        loop(state)

      {:audit, asker, reference} ->
        send(asker, {reference, Enum.map(state.expected, &format/1)})
        loop(state)

      {:stop, asker, reference} ->
        send(asker, {reference, books(state)})
    after
      @think_ms -> state |> Map.update!(:turn, &(&1 + 1)) |> take_turn() |> loop()
    end
  end

  defp take_turn(state) when rem(state.turn, @short_call_every) == 0, do: short_call(state)

  defp take_turn(state) do
    pid = elem(state.pids, :rand.uniform(tuple_size(state.pids)) - 1)
    more = :rand.uniform(5)
    {seconds, requests} = state.expected[pid]
    expected = {seconds + more, requests + 1}

    case timed(fn -> Exchange.talk(pid, more) end) do
      {:ok, %{seconds: seconds, requests: requests}, time} when {seconds, requests} == expected ->
        %{state | expected: %{state.expected | pid => expected}} |> record(time)

      {:ok, answer, time} ->
        state |> record(time) |> problem("#{inspect(answer)} instead of #{inspect(expected)}")

      {:failed, reason} ->
        problem(state, "a call did not answer: #{reason}")
    end
  end

  defp short_call(state) do
    with {:ok, {:ok, pid}, time1} <-
           timed(fn -> Cluster.call(state.node, Exchange, :start_call, [@short_call_number]) end),
         monitor = Process.monitor(pid),
         {:ok, %{seconds: @short_call_seconds, requests: 1}, time2} <-
           timed(fn -> Exchange.talk(pid, @short_call_seconds) end),
         {:ok, %{seconds: @short_call_seconds, cents: cents}, time3}
         when cents in @short_call_cents <- timed(fn -> Exchange.hang_up(pid) end),
         :normal <- receive(do: ({:DOWN, ^monitor, :process, _pid, reason} -> reason)) do
      state
      |> Map.update!(:ended, &(&1 + 1))
      |> Map.update!(:cents, &(&1 + cents))
      |> Map.update!(:short_seconds, &(&1 + @short_call_seconds))
      |> record(time1)
      |> record(time2)
      |> record(time3)
    else
      {:failed, reason} -> problem(state, "a short call did not answer: #{reason}")
      other -> problem(state, "a short call went wrong: #{inspect(other)}")
    end
  end

  defp timed(fun) do
    start = System.monotonic_time(:microsecond)
    answer = fun.()
    {:ok, answer, System.monotonic_time(:microsecond) - start}
  catch
    kind, reason -> {:failed, Exception.format_banner(kind, reason)}
  end

  defp record(state, time) do
    times = Map.update(state.times, state.phase, [time], &[time | &1])
    %{state | times: times, count: state.count + 1}
  end

  defp problem(state, text) do
    %{state | problems: ["#{state.node}: #{text}" | state.problems]}
  end

  # The state is a tuple in the shipped build and a map with these keys in the repaired one.
  @patched_keys Enum.sort([:id, :from, :to, :zone, :talked_ms, :requests])

  defp format({pid, {seconds, requests}}) do
    case :sys.get_state(pid) do
      {_id, _from, _to, ^seconds, ^requests} -> :shipped
      %{} = state -> patched_format(state, seconds, requests)
      _other -> :lost
    end
  catch
    :exit, _reason -> :lost
  end

  defp patched_format(%{talked_ms: ms, requests: requests} = state, seconds, requests)
       when ms == seconds * 1000 do
    if Enum.sort(Map.keys(state)) == @patched_keys, do: :patched, else: :lost
  end

  defp patched_format(_state, _seconds, _requests), do: :lost

  defp books(state) do
    talked = state.expected |> Map.values() |> Enum.map(&elem(&1, 0)) |> Enum.sum()

    %{
      lines: map_size(state.expected),
      seconds: talked + state.short_seconds,
      ended: state.ended,
      cents: state.cents
    }
  end

  defp summary({}), do: %{answers: 0, median: nil, p99: nil, longest: nil}

  defp summary(times) do
    size = tuple_size(times)

    %{
      answers: size,
      median: elem(times, div(size, 2)),
      p99: elem(times, div(size * 99, 100)),
      longest: elem(times, size - 1)
    }
  end

  ## The watcher

  defp watch(pids) do
    Enum.each(pids, &Process.monitor/1)
    watch_on([])
  end

  defp watch_on(dropped) do
    receive do
      {:DOWN, _monitor, :process, pid, reason} ->
        watch_on([{pid, reason} | dropped])

      {:dropped, asker, reference} ->
        send(asker, {reference, dropped})
        watch_on(dropped)
    end
  end
end
