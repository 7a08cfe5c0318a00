defmodule HotPatch.Cluster.Operation do
  @moduledoc false
  # One apply or rollback over the cluster: take all nodes, prepare on all, then commit on all. If one
  # node cannot prepare, none changes. A commit is held on each node, changed and standing
  # still, until all have come that far: if one fails, all take back. Runs in a process of
  # its own, which the agents watch: should it die, they let go by themselves.

  alias HotPatch.Agent.Payload
  alias HotPatch.Cluster
  alias HotPatch.Error
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Store.Journal
  alias HotPatch.Telemetry
  alias HotPatch.Trust

  require Logger

  # Milliseconds beyond the deadline of the pause for what comes before it, and for messages.
  @margin 1_000

  @doc """
  Carries a payload out on the given nodes, to its end. Of the options `id` and `seq` are
  those of an operation that has been decided already, for a node that catches up
  (`catching_up`).
  """
  @spec run(Payload.t(), [node()], [node()], map()) :: {:ok, Report.t()} | {:error, Error.t()}
  def run(payload, nodes, unmanaged, options) do
    starter = self()

    {coordinator, monitor} =
      spawn_monitor(fn ->
        metadata = %{patch: payload.patch, by: options.by, nodes: nodes}

        Telemetry.span(payload.kind, metadata, fn ->
          result = run_on(payload, nodes, unmanaged, options)
          send(starter, {self(), result})
          {:ok, %{}, %{result: reason(result)}}
        end)
      end)

    receive do
      {^coordinator, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^coordinator, reason} ->
        {:error,
         Error.new(
           :failed,
           "#{payload.kind} #{payload.patch}: the coordinator died (#{inspect(reason)}), the nodes take back " <>
             "by themselves what is not decided; see HotPatch.nodes()"
         )}
    end
  end

  defp reason({:ok, _report}), do: :ok
  defp reason({:error, error}), do: error.reason

  defp run_on(payload, nodes, unmanaged, options) do
    operation = %{
      ref: make_ref(),
      id: Map.get_lazy(options, :id, &new_id/0),
      seq: options[:seq],
      kind: payload.kind,
      scope: options.nodes || :all,
      cumulative?: payload.cumulative?,
      about: options[:about],
      signed_by: Trust.signer(payload),
      overridden: options[:overridden] || %{},
      reason: options[:reason],
      coordinator: self(),
      patch: payload.patch,
      by: options.by,
      transition: options.transition,
      purge: options.purge,
      pause_timeout: options.pause_timeout,
      # Longer than the coordinator waits for the last node, so that none gives up first.
      hold_timeout: commit_timeout(options) + @margin,
      catching_up: options[:catching_up]
    }

    report = %Report{
      operation: payload.kind,
      patch: payload.patch,
      status: :error,
      nodes: [],
      unmanaged: unmanaged,
      by: options.by,
      signed_by: operation.signed_by,
      overridden: operation.overridden,
      started_at: DateTime.utc_now()
    }

    Logger.info(
      "HotPatch: #{payload.kind} #{payload.patch} by #{options.by} on #{Enum.join(nodes, ", ")}",
      patch: payload.patch,
      by: options.by
    )

    with {:ok, last} <- reserve(Enum.sort(nodes), operation, options) do
      operation = %{operation | seq: operation.seq || last + 1}
      two_phases(operation, payload, nodes, report, options)
    end
  end

  defp new_id, do: Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)

  # The first node in the order of names decides between two coordinators at once.
  defp reserve([first | rest] = nodes, operation, options) do
    answers =
      case Cluster.call([first], :reserve, [operation], options.timeout) do
        [{_node, {:ok, {:ok, _seq}}}] = taken ->
          taken ++ Cluster.call(rest, :reserve, [operation], options.timeout)

        not_taken ->
          not_taken
      end

    case Enum.reject(answers, &match?({_node, {:ok, {:ok, _seq}}}, &1)) do
      [] ->
        {:ok, answers |> Enum.map(fn {_node, {:ok, {:ok, seq}}} -> seq end) |> Enum.max()}

      [{node, answer} | _] ->
        abort(nodes, operation, options)
        {:error, not_reserved(node, answer, operation)}
    end
  end

  defp not_reserved(node, {:ok, {:busy, holder}}, operation) do
    Error.new(
      :busy,
      "#{operation.kind} #{operation.patch}: nothing was changed, #{node} is busy: #{holder.kind} of " <>
        "#{holder.patch} by #{holder.by} from #{node(holder.coordinator)}; try again when that is done",
      %{
        node: node,
        holder: Map.take(holder, [:patch, :by]) |> Map.put(:node, node(holder.coordinator))
      }
    )
  end

  defp not_reserved(node, {:ok, {:unfinished, text}}, operation) do
    Error.new(
      :busy,
      "#{operation.kind} #{operation.patch}: nothing was changed, on #{node} an earlier operation is not " <>
        "ended on disk: #{text}; make room there or make it writable",
      %{node: node}
    )
  end

  defp not_reserved(node, {:error, text}, operation) do
    Error.new(
      :unreachable,
      "#{operation.kind} #{operation.patch}: nothing was changed, #{node} #{text}",
      %{
        nodes: [node]
      }
    )
  end

  defp two_phases(operation, payload, nodes, report, options) do
    {votes, prepare_us} = timed(fn -> prepare(operation, payload, nodes, options) end)
    report = %{report | nodes: Enum.map(votes, &voted/1), prepare_us: prepare_us}

    if Enum.all?(votes, &match?({_node, {:ok, {:yes, _files}}}, &1)) do
      {{decision, nodes}, commit_us} = timed(fn -> commit(operation, nodes, options) end)
      done(finished(%{report | nodes: nodes, commit_us: commit_us}), decision)
    else
      abort(nodes, operation, options)
      refused(finished(report), operation)
    end
  end

  defp prepare(operation, payload, nodes, options) do
    Cluster.call(nodes, :prepare, [operation, payload], options.timeout)
  end

  # A node that is late holds up the processes of all others: it is not waited for.
  defp commit(operation, nodes, options) do
    answers = Cluster.call(nodes, :commit, [operation.ref], commit_timeout(options))
    held = for {node, {:ok, :held}} <- answers, do: node
    decision = decision(answers)
    told = if decision == :finish, do: :finish, else: {:take_back, elem(decision, 1)}
    ended = Map.new(Cluster.call(held, :decide, [operation.ref, told], options.timeout))

    {decision,
     for({node, answer} <- answers, do: committed({node, Map.get(ended, node, answer)}))}
  end

  defp commit_timeout(options), do: options.pause_timeout + @margin

  defp decision(answers) do
    case Enum.find(answers, &(not match?({_node, {:ok, :held}}, &1))) do
      nil -> :finish
      {node, answer} -> {:take_back, "the commit failed on #{node}", cause(answer)}
    end
  end

  defp cause({:ok, {:ended, %{error: error}}}), do: error
  defp cause({_ok_or_error, {:error, text}}), do: text
  defp cause({:error, text}), do: text

  defp abort(nodes, operation, options) do
    # A node that does not answer lets go when this process ends.
    _ = Cluster.call(nodes, :abort, [operation.ref], options.timeout)
    :ok
  end

  defp voted({node, {:ok, {_vote, files}}}) when is_list(files) do
    %Report.Node{node: node, status: integral(files, nil), files: files}
  end

  defp voted({node, {:ok, {:failed, text}}}), do: failed(node, text)
  defp voted({node, {:error, text}}), do: failed(node, text)

  defp committed({node, {:ok, {:ended, result}}}) do
    struct!(
      Report.Node,
      Map.merge(result, %{node: node, status: integral(result.files, result.error)})
    )
  end

  defp committed({node, {:ok, {:error, text}}}), do: failed(node, text)
  defp committed({node, {:error, text}}), do: failed(node, text)

  defp failed(node, text), do: %Report.Node{node: node, status: :error, error: text}

  defp integral(files, nil), do: Status.combine(Enum.map(files, & &1.status))
  defp integral(_files, _error), do: :error

  defp finished(report) do
    now = DateTime.utc_now()

    %{
      report
      | status: Status.combine(Enum.map(report.nodes, & &1.status)),
        duration_us: DateTime.diff(now, report.started_at, :microsecond)
    }
  end

  defp done(report, decision) do
    Logger.info("HotPatch: #{report.operation} of #{report.patch} ended: #{report.status}",
      patch: report.patch,
      status: report.status
    )

    case {decision, Enum.filter(report.nodes, &(&1.error != nil))} do
      {:finish, []} ->
        {:ok, report}

      {:finish, [%Report.Node{node: node, error: error} | _]} ->
        failure(
          :failed,
          report,
          "#{report.operation} #{report.patch}: the commit failed on #{node}: #{error}"
        )

      {{:take_back, what, cause}, nodes} ->
        failure(
          :failed,
          report,
          "#{report.operation} #{report.patch}: #{what}: #{cause}; #{taken_back(nodes)}"
        )
    end
  end

  defp taken_back(nodes) do
    stuck = for %{restart_needed: text} = node when text != nil <- nodes, do: node.node
    unknown = for %{files: []} = node <- nodes, do: node.node

    case {stuck, unknown} do
      {[], []} -> "nothing was changed on any node"
      {[], _} -> "nothing was changed but on #{Enum.join(unknown, ", ")}, where it is not known"
      _ -> "the new code is current on #{Enum.join(stuck, ", ")}, see the report"
    end
  end

  defp refused(report, operation) do
    _ = note_refusal(report, operation)

    failure(
      :refused,
      report,
      "#{report.operation} #{report.patch}: refused, nothing was changed on any node: #{why(report)}"
    )
  end

  # A node that catches up tries again and again, and says in `nodes/0` what stands in its way.
  defp note_refusal(_report, %{catching_up: how}) when how != nil, do: :ok

  defp note_refusal(report, _operation) do
    Journal.add(:refused, %{
      kind: report.operation,
      patch: report.patch,
      by: report.by,
      status: report.status,
      error: why(report)
    })
  end

  defp failure(reason, report, message) do
    {:error, %Error{reason: reason, message: message, report: report}}
  end

  # The worst finding that refuses stands for all; the report has the rest.
  defp why(report) do
    files = for node <- report.nodes, file <- node.files, refuses?(file), do: {node.node, file}
    # What only waits for another file explains nothing.
    rank = fn {_node, file} -> {Status.code(file.status), file.reason =~ "held back with"} end

    case Enum.min_by(files, rank, fn -> nil end) do
      {node, file} ->
        "#{file.path} on #{node}: #{file.status}, #{file.reason}"

      nil ->
        %{node: node, error: error} = Enum.find(report.nodes, &(&1.error != nil))
        "#{node} #{error}"
    end
  end

  # A file that is not updated refuses only while old code is in use; then it is alone.
  defp refuses?(file), do: Status.refuses?(file.status) or file.status == :not_updated

  defp timed(fun) do
    {us, result} = :timer.tc(fun)
    {result, us}
  end
end
