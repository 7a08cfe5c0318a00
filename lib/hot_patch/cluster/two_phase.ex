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
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Cluster.Progress
  alias HotPatch.Cluster.Reconciler
  alias HotPatch.Cluster.Transfer
  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Report
  alias HotPatch.Store.Decisions
  alias HotPatch.Support.FaultPoint

  # Milliseconds beyond the deadline of the pause for what comes before it, and for messages.
  @margin 1_000
  @abort_within 2_000

  @doc """
  Carries a payload out on these nodes, to its end, and reports it; where all went well, with the
  number that it got. `options.stop`, if it is there, says whether it is to stop: until it is decided that
  all go on, every node is then left as it was.
  """
  @spec run(Payload.t(), NodeAgent.operation(), [node()], Report.t(), Progress.teller(), map()) ::
          {:done, Report.t(), seq :: pos_integer()} | {:stopped, Report.t()} | Outcome.t()
  def run(payload, operation, nodes, report, teller, options) do
    case reserve(nodes, operation, teller, options) do
      {:ok, granted} ->
        seqs = for {_node, {seq, _lead}} <- granted, do: seq
        above = Enum.max([operation.above | seqs])
        operation = %{operation | seq: operation.seq || above + 1}
        clocks = for {node, {_seq, lead}} <- granted, into: %{}, do: {node, lead}
        known = %{report: report, clocks: clocks}

        with {:done, report} <- phases(payload, operation, nodes, known, teller, options),
             do: {:done, report, operation.seq}

      {:error, node, answer} ->
        if Coordinator.stop?(options),
          do: {:stopped, report},
          else: Outcome.not_reserved(node, answer, operation)
    end
  end

  defp waiting(options, answered), do: %{answered: answered, stop: options[:stop]}

  @doc "How long a node may hold, in milliseconds: longer than the coordinator waits for the last."
  @spec hold_timeout(map()) :: pos_integer()
  def hold_timeout(options), do: commit_timeout(options) + @margin

  defp commit_timeout(options), do: options.pause_timeout + @margin

  defp reserve(nodes, operation, teller, options) do
    tell_all(teller, nodes, :reserve)

    taken =
      Cluster.take(nodes, fn some ->
        ClockSkew.compare(fn answered ->
          waiting = waiting(options, answered)
          Cluster.call_until(some, :reserve, [operation], options.timeout, waiting)
        end)
      end)

    if match?({:error, _node, _answer}, taken), do: abort(nodes, operation, options)
    taken
  end

  defp phases(payload, operation, nodes, known, teller, options) do
    {votes, prepare_us} = timed(fn -> prepare(operation, payload, nodes, teller, options) end)
    report = %{known.report | nodes: Enum.map(votes, &Outcome.voted/1), prepare_us: prepare_us}

    cond do
      Coordinator.stop?(options) ->
        abort(nodes, operation, options)
        {:stopped, known.report}

      # rule: wait-for-votes
      Enum.all?(votes, &match?({_node, {:ok, {:yes, _files}}}, &1)) ->
        decided(operation, nodes, {report, known.clocks}, teller, options)

      true ->
        abort(nodes, operation, options)
        Outcome.refused(report)
    end
  end

  defp decided(operation, nodes, {report, clocks}, teller, options) do
    {{decision, nodes, gone}, commit_us} =
      timed(fn -> commit(operation, nodes, teller, options) end)

    report = %{
      report
      | nodes: nodes,
        commit_us: commit_us,
        skew_us: ClockSkew.skew(nodes, clocks)
    }

    if decision == :finish and operation.catching_up == nil, do: Reconciler.soon()

    if decision == :stop,
      do: {:stopped, Outcome.finished(report)},
      else: Outcome.decided(report, decision, gone)
  end

  defp prepare(operation, payload, nodes, teller, options) do
    {payload, failed} =
      Transfer.run(payload, nodes, options[:stop], fn node, done, total ->
        Progress.tell(teller, node, :send, :running, done: done, total: total)
      end)

    if failed == %{},
      do: ask_to_prepare(nodes, operation, payload, teller, options),
      else: Enum.map(nodes, &not_sent(&1, failed))
  end

  # One that has not got the patch votes no, and nobody needs to prepare for nothing.
  defp not_sent(node, failed) do
    case failed do
      %{^node => text} -> {node, {:error, text}}
      _ -> {node, {:ok, {:yes, []}}}
    end
  end

  defp ask_to_prepare(nodes, operation, payload, teller, options) do
    tell_all(teller, nodes, :prepare)

    voted = fn node, vote ->
      state = if match?({:ok, {:yes, _files}}, vote), do: :done, else: :failed
      Progress.tell(teller, node, :prepare, state, text: Outcome.text(vote))
    end

    waiting = waiting(options, voted)
    Cluster.call_until(nodes, :prepare, [operation, payload], options.timeout, waiting)
  end

  # A node that is late holds up the processes of all others: it is not waited for.
  defp commit(operation, nodes, teller, options) do
    tell_all(teller, nodes, :commit)

    answered = fn node, answer ->
      state = if answer == {:ok, :held}, do: :done, else: :failed
      Progress.tell(teller, node, :commit, state, text: Outcome.text(answer))
    end

    within = commit_timeout(options)
    waiting = waiting(options, answered)
    answers = Cluster.call_until(nodes, :commit, [operation.ref], within, waiting)

    decision =
      if Coordinator.stop?(options),
        do: :stop,
        else: answers |> decision(options) |> written_down(operation)

    ended =
      Map.new(decide(to_be_told(answers, decision), operation, told(decision), teller, options))

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
      {^node, {:ok, {:ended, %{error: error}}}} when is_binary(error) ->
        # It had not failed, and has ended as it was told.
        if String.starts_with?(error, what),
          do: {:take_back, what, "it was not ready in time"},
          else: {:take_back, what, error}

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

  defp decide(nodes, operation, told, teller, options) do
    Cluster.call(nodes, :decide, [operation.ref, told], options.timeout, fn node, answer ->
      state = if match?({:ok, {:ended, %{error: nil}}}, answer), do: :done, else: :failed
      Progress.tell(teller, node, :decide, state, text: Outcome.text(answer))
    end)
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

  # What a node has missed was decided when it was done without it.
  # rule: journal-first
  defp written_down(:finish, %{catching_up: nil} = operation) do
    case Decisions.put(NodeAgent.op(operation)) do
      :ok ->
        FaultPoint.point(:decision_journaled)
        :finish

      {:error, {path, posix}} ->
        why = "cannot write #{path} on #{node()}: #{:file.format_error(posix)}"
        {:take_back, "the decision could not be written down", why}
    end
  end

  defp written_down(decision, _operation), do: decision

  defp abort(nodes, operation, options) do
    # A node that does not answer lets go when this process ends. It may be why this is to stop.
    within =
      if Coordinator.stop?(options),
        do: min(options.timeout, @abort_within),
        else: options.timeout

    _ = Cluster.call(nodes, :abort, [operation.ref], within)
    :ok
  end

  defp tell_all(teller, nodes, phase),
    do: Enum.each(nodes, &Progress.tell(teller, &1, phase, :running))

  defp timed(fun) do
    {us, result} = :timer.tc(fun)
    {result, us}
  end
end
