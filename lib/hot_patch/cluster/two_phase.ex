defmodule HotPatch.Cluster.TwoPhase do
  @moduledoc false
  # One operation on some nodes: take all, bring them what they lack, prepare on all, commit on
  # all. If one cannot prepare, none changes. A commit is held on each node, tried and standing
  # still, until all have come that far. Then it is decided: that all go on is written down
  # before the first is told, so that whoever dies now, all end in the same way; that all take
  # back is written nowhere, and what is written nowhere is not done.
  #
  # Runs in the coordinator's process, which the agents watch.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.ClockSkew
  alias HotPatch.Cluster.Comparison
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Cluster.Progress
  alias HotPatch.Cluster.Transfer
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Report
  alias HotPatch.Store.Decisions
  alias HotPatch.Support.FaultPoint

  # Milliseconds beyond the deadline of the pause for what comes before it, and for messages.
  @margin 1_000
  @abort_within 2_000

  @typedoc """
  What is carried out, and how. The nodes are the members of the operation. `report` is what is known of
  it so far. `options.stop`, if it is there, says whether it is to stop.
  """
  @type t :: %__MODULE__{
          payload: Payload.t(),
          operation: Operation.t(),
          report: Report.t(),
          teller: Progress.teller(),
          options: map()
        }
  @enforce_keys [:payload, :operation, :report, :teller, :options]
  defstruct [:payload, :operation, :report, :teller, :options]

  @doc """
  Carries an operation out on its members, to its end, and reports it; where all went well, with the
  number that it got. Told to stop, it leaves every node as it was, until it is decided that all go on.
  """
  @spec run(t()) ::
          {:done, Report.t(), seq :: pos_integer()} | {:stopped, Report.t()} | Outcome.t()
  def run(%__MODULE__{operation: operation} = run) do
    case reserve(run) do
      {:ok, granted} ->
        seqs = for {_node, {seq, _lead}} <- granted, do: seq
        above = Enum.max([operation.above | seqs])
        operation = %{operation | seq: operation.seq || above + 1}
        clocks = for {node, {_seq, lead}} <- granted, into: %{}, do: {node, lead}

        with {:done, report} <- phases(%{run | operation: operation}, clocks),
             do: {:done, report, operation.seq}

      {:error, node, answer} ->
        if Coordinator.stop?(run.options),
          do: {:stopped, run.report},
          else: Outcome.not_reserved(node, answer, operation)
    end
  end

  defp waiting(options, answered),
    do: %{answered: answered, stop: options[:stop], timeout: options.timeout}

  @doc "How long a node may hold, in milliseconds: longer than the coordinator waits for the last."
  @spec hold_timeout(map()) :: pos_integer()
  def hold_timeout(options), do: commit_timeout(options) + @margin

  defp commit_timeout(options), do: options.pause_timeout + @margin

  defp reserve(%{operation: operation, options: options} = run) do
    tell_all(run, :reserve)

    taken =
      Cluster.take(operation.members, fn some ->
        ClockSkew.compare(fn answered ->
          waiting = waiting(options, answered)
          Cluster.call_until(some, :reserve, [operation], waiting)
        end)
      end)

    if match?({:error, _node, _answer}, taken), do: abort(run)
    taken
  end

  defp phases(run, clocks) do
    {votes, prepare_us} = timed(fn -> prepare(run) end)
    report = %{run.report | nodes: Enum.map(votes, &Outcome.voted/1), prepare_us: prepare_us}

    cond do
      Coordinator.stop?(run.options) ->
        abort(run)
        {:stopped, run.report}

      # rule: wait-for-votes
      Enum.all?(votes, &match?({_node, {:ok, {:yes, _files}}}, &1)) ->
        decided(%{run | report: report}, clocks)

      true ->
        abort(run)
        Outcome.refused(report)
    end
  end

  defp decided(%{operation: operation, report: report} = run, clocks) do
    {{decision, nodes, gone}, commit_us} = timed(fn -> commit(run) end)

    report = %{
      report
      | nodes: nodes,
        commit_us: commit_us,
        skew_us: ClockSkew.skew(nodes, clocks)
    }

    if decision == :finish and not Operation.catching_up?(operation), do: Comparison.soon()

    if decision == :stop,
      do: {:stopped, Outcome.finished(report)},
      else: Outcome.decided(report, decision, gone)
  end

  defp prepare(%{operation: %{members: nodes}, teller: teller} = run) do
    {payload, failed} =
      Transfer.run(run.payload, nodes, run.options[:stop], fn node, done, total ->
        Progress.tell(teller, node, {:send, :running}, done: done, total: total)
      end)

    if failed == %{},
      do: ask_to_prepare(%{run | payload: payload}),
      else: Enum.map(nodes, &not_sent(&1, failed))
  end

  # One that has not got the patch votes no, and nobody needs to prepare for nothing.
  defp not_sent(node, failed) do
    case failed do
      %{^node => text} -> {node, {:error, text}}
      _ -> {node, {:ok, {:yes, []}}}
    end
  end

  defp ask_to_prepare(%{operation: operation, options: options} = run) do
    tell_all(run, :prepare)

    voted = fn node, vote ->
      state = if match?({:ok, {:yes, _files}}, vote), do: :done, else: :failed
      Progress.tell(run.teller, node, {:prepare, state}, text: Outcome.text(vote))
    end

    args = [operation, run.payload]
    waiting = waiting(options, voted)
    Cluster.call_until(operation.members, :prepare, args, waiting)
  end

  # A node that is late holds up the processes of all others: it is not waited for.
  defp commit(%{operation: operation, options: options} = run) do
    tell_all(run, :commit)

    answered = fn node, answer ->
      state = if answer == {:ok, :held}, do: :done, else: :failed
      Progress.tell(run.teller, node, {:commit, state}, text: Outcome.text(answer))
    end

    waiting = %{waiting(options, answered) | timeout: commit_timeout(options)}
    answers = Cluster.call_until(operation.members, :commit, [operation.ref], waiting)

    decision =
      if Coordinator.stop?(options),
        do: :stop,
        else: answers |> decision(options) |> written_down(operation)

    ended = Map.new(decide(run, to_be_told(answers, decision), told(decision)))
    answers = for {node, answer} <- answers, do: {node, known(answer, ended[node])}
    nodes = for {node, answer} <- answers, do: Outcome.committed(node, answer)
    {with_cause(decision, answers), nodes, for({node, {:error, _text}} <- answers, do: node)}
  end

  defp late?(answer), do: match?({:error, _text}, answer)

  defp known(answer, nil), do: answer
  # It cannot be asked now either, or knows nothing of it: what was said first says more.
  defp known({:error, text}, {:error, _other}), do: {:error, text}
  defp known({:error, text}, {:ok, {:error, _nothing}}), do: {:error, text}
  defp known(_answer, ended), do: ended

  # The cause that the node itself has told by now, instead of that it had not answered yet.
  defp with_cause({:take_back, what, cause, node}, answers) do
    case List.keyfind(answers, node, 0) do
      # It had not failed, and has ended as it was told.
      {^node, {:ok, {:ended, %{as_told?: true}}}} ->
        {:take_back, what, "it was not ready in time"}

      {^node, {:ok, {:ended, %{error: error}}}} when is_binary(error) ->
        {:take_back, what, error}

      _ ->
        {:take_back, what, cause}
    end
  end

  defp with_cause(decision, _answers), do: decision

  # One that is told to stop does not wait for those that have not come to hold. Else those that did
  # not answer are told, too: they say how it ended there, and when they only came late it ends as on
  # all others. Nobody stands still for them any more.
  defp to_be_told(answers, :stop),
    do: for({node, answer} <- answers, not match?({:ok, {:ended, _result}}, answer), do: node)

  # rule: late-are-told
  defp to_be_told(answers, _decision),
    do: for({node, answer} <- answers, answer == {:ok, :held} or late?(answer), do: node)

  defp told(:finish), do: :finish
  defp told(:stop), do: {:take_back, "it was cancelled"}
  defp told(take_back), do: {:take_back, elem(take_back, 1)}

  defp decide(%{operation: operation, options: options} = run, nodes, told) do
    answered = fn node, answer ->
      state = if match?({:ok, {:ended, %{error: nil}}}, answer), do: :done, else: :failed
      Progress.tell(run.teller, node, {:decide, state}, text: Outcome.text(answer))
    end

    # What is decided is told to the end.
    waiting = %{answered: answered, timeout: options.timeout}
    Cluster.call_until(nodes, :decide, [operation.ref, told], waiting)
  end

  # rule: wait-for-held
  defp decision(answers, options) do
    case Enum.split_with(answers, &match?({_node, {:ok, :held}}, &1)) do
      {_all, []} ->
        :finish

      {[_ | _], _failed} when options.on_failure == :keep ->
        :finish

      {_held, [{node, answer} | _]} ->
        {:take_back, "the commit failed on #{node}", Outcome.text(answer), node}
    end
  end

  # rule: journal-first
  defp written_down(:finish, operation) do
    # What a node has missed was decided when it was done without it.
    if Operation.catching_up?(operation), do: :finish, else: write_down(operation)
  end

  defp written_down(decision, _operation), do: decision

  defp write_down(operation) do
    case Decisions.put(Operation.to_record(operation)) do
      :ok ->
        FaultPoint.point(:decision_journaled)
        :finish

      {:error, {path, posix}} ->
        why = "cannot write #{path} on #{node()}: #{:file.format_error(posix)}"
        {:take_back, "the decision could not be written down", why}
    end
  end

  defp abort(%{operation: operation, options: options}) do
    # A node that does not answer lets go when this process ends. It may be why this is to stop.
    within =
      if Coordinator.stop?(options),
        do: min(options.timeout, @abort_within),
        else: options.timeout

    _ = Cluster.call(operation.members, :abort, [operation.ref], within)
    :ok
  end

  defp tell_all(%{operation: operation, teller: teller}, phase),
    do: Enum.each(operation.members, &Progress.tell(teller, &1, {phase, :running}))

  defp timed(fun) do
    {us, result} = :timer.tc(fun)
    {result, us}
  end
end
