defmodule HotPatch.Cluster.Rollout do
  @moduledoc false
  # An apply or rollback over the cluster, from the call to its report: in one step, or group
  # after group with a watch in between, and taken back by itself where it turns out badly.
  #
  # Runs in a process of its own, which the agents watch: should it die, they let go by
  # themselves, and what was only tried on some nodes is taken back by those.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.AutoRollback
  alias HotPatch.Cluster.CanaryAnalysis
  alias HotPatch.Cluster.CancelledOperation
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Draft
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Cluster.Progress
  alias HotPatch.Cluster.RolloutGroups
  alias HotPatch.Cluster.TwoPhase
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Options
  alias HotPatch.Report
  alias HotPatch.Telemetry
  alias HotPatch.Watch

  require HotPatch.Support.Log, as: Log

  # Milliseconds that nodes have to let go of what is cancelled.
  @unlock_within 2_000

  @doc """
  Carries a payload out on the given nodes, to its end. What the options do not say counts as in an
  operation that nobody has asked for. `id` and `seq` are those of an operation that has been decided
  already, for a node that catches up (`origin`).
  """
  @spec run(Payload.t(), [node()], [node()], map()) :: {:ok, Report.t()} | {:error, Error.t()}
  def run(payload, nodes, unmanaged, options) do
    options =
      Options.alone()
      |> Map.put(:origin, :operator)
      |> Map.merge(options)
      |> Map.put_new_lazy(:id, &Coordinator.new_id/0)

    what = %{id: options.id, kind: payload.kind, patch: payload.patch, by: options.by}

    lead(what, options, fn tell, options ->
      metadata = %{patch: payload.patch, by: options.by, nodes: nodes}

      Telemetry.span(payload.kind, metadata, fn ->
        result = run_on(payload, nodes, unmanaged, options)
        :ok = tell.(result)
        {:ok, %{}, %{result: reason(result)}}
      end)
    end)
  end

  # What a node does by itself it would only begin again, if it were told to stop.
  defp lead(what, %{origin: :operator} = options, fun),
    do: Coordinator.run(what, &fun.(&1, Map.put(options, :stop, Coordinator.stop())))

  defp lead(what, options, fun), do: Coordinator.unheard(what, &fun.(&1, options))

  defp reason({:ok, _report}), do: :ok
  defp reason({:error, error}), do: error.reason

  defp run_on(payload, nodes, unmanaged, options) do
    operation = Draft.operation(payload, nodes, options)
    teller = Progress.teller(operation, nodes)
    report = Draft.report(payload, unmanaged, options)

    Log.info(
      "HotPatch: #{payload.kind} #{payload.patch} by #{options.by} on #{Enum.join(nodes, ", ")}",
      patch: payload.patch,
      by: options.by
    )

    course = %{
      payload: payload,
      operation: operation,
      teller: teller,
      report: report,
      options: options,
      done: [],
      ops: [],
      left_out: []
    }

    result = course |> in_steps(RolloutGroups.of(nodes, options)) |> to_caller(operation)
    tell_end(teller, result)
    result
  end

  defp in_steps(%{options: %{watch: false}} = course, [nodes]), do: steps([nodes], course)

  # Between the steps nobody else's operation may come.
  defp in_steps(course, groups) do
    nodes = Enum.concat(groups)

    result =
      case lock(nodes, course) do
        {:ok, seq} -> steps(groups, update_in(course.operation.above, &max(&1, seq)))
        {:stopped, report} -> CancelledOperation.run(%{course | report: report}, false)
        not_locked -> not_locked
      end

    # One that does not answer is free when this process ends.
    within = if stop?(course), do: @unlock_within, else: course.options.timeout
    _ = Cluster.call(nodes, :unlock, [self()], within)
    result
  end

  defp lock(nodes, %{operation: operation, options: options} = course) do
    holder = Operation.holder(operation)
    waiting = %{stop: options[:stop], timeout: options.timeout}
    ask = &Cluster.call_until(&1, :lock, [holder], waiting)

    case Cluster.take(nodes, ask) do
      {:ok, granted} ->
        {:ok, granted |> Enum.map(&elem(&1, 1)) |> Enum.max()}

      {:error, node, answer} ->
        if stop?(course),
          do: {:stopped, course.report},
          else: Outcome.not_reserved(node, answer, operation)
    end
  end

  defp stop?(course), do: Coordinator.stop?(course.options)

  defp steps([nodes | rest], course) do
    last? = rest == []
    operation = step(nodes, last?, course)
    course = update_in(course.ops, &[operation.id | &1])

    with :go <- go_on(course),
         :ok <- watch_before(nodes, course),
         {:done, report, seq} <- carry_out(operation, course),
         course = joined(course, report, nodes, seq),
         {:calm, course} <- watch_after(nodes, course),
         :go <- go_on(course) do
      if last?, do: {:done, course.report}, else: steps(rest, course)
    else
      {:stop, course} -> CancelledOperation.run(course, last? and nodes -- course.done == [])
      {:stopped, report} -> course |> stopped(report) |> CancelledOperation.run(false)
      {:exceeded, course} -> taken_back(course, last?)
      {:nothing, error} -> AutoRollback.earlier(error, course)
      {:left, error} when last? -> {:left, AutoRollback.joined(error, course)}
      {_failed_or_left, error} -> AutoRollback.after_failure(error, nodes, last?, course)
    end
  end

  defp go_on(course), do: if(stop?(course), do: {:stop, course}, else: :go)

  # The step has changed nothing, as far as it is known; those before it have.
  defp stopped(%{done: []} = course, report), do: %{course | report: report}

  defp stopped(course, report) do
    %{course | report: Outcome.joined(course.report, report), left_out: report.nodes}
  end

  # The nodes of the next step need not know of this one, whose number it has to be above.
  defp joined(course, report, nodes, seq) do
    course = %{course | report: Outcome.joined(course.report, report), done: course.done ++ nodes}
    put_in(course.operation.above, seq)
  end

  # A step that is not the last counts only for those nodes, and only while we live.
  defp step(nodes, true, course),
    do: %{course.operation | members: nodes, ref: make_ref()}

  defp step(nodes, false, %{operation: operation, options: options}) do
    %{
      operation
      | id: Coordinator.new_id(),
        scope: nodes,
        members: nodes,
        tried_by: if(options.on_failure == :rollback, do: {node(), operation.course}),
        ref: make_ref()
    }
  end

  defp carry_out(operation, course) do
    TwoPhase.run(%TwoPhase{
      payload: course.payload,
      operation: operation,
      report: course.report,
      teller: course.teller,
      options: course.options
    })
  end

  defp watch_before(_nodes, %{options: %{watch: false}}), do: :ok

  defp watch_before(nodes, course) do
    modules = for %{beam: %{module: module}} <- course.payload.entries, do: module

    case CanaryAnalysis.before(nodes, modules, course.options.watch, fn -> stop?(course) end) do
      {:error, node, text} ->
        :ok = CanaryAnalysis.cancel(nodes)
        Outcome.not_reserved(node, {:error, text}, course.operation)

      :ok ->
        watched_before(nodes, course)
    end
  end

  defp watched_before(nodes, course) do
    with {:stop, course} <- go_on(course) do
      :ok = CanaryAnalysis.cancel(nodes)
      {:stop, course}
    else
      :go -> :ok
    end
  end

  defp watch_after(_nodes, %{options: %{watch: false}} = course), do: {:calm, course}

  defp watch_after(nodes, course) do
    stop = fn -> stop?(course) end
    ended = Map.new(course.report.nodes, &{&1.node, length(&1.killed)})
    changed = for node <- nodes, do: {node, Map.get(ended, node, 0)}
    watch = CanaryAnalysis.afterwards(changed, course.options.watch, course.teller, stop)
    course = put_in(course.report.watch, watch)
    {if(watch.exceeded, do: :exceeded, else: :calm), course}
  end

  defp taken_back(course, last?) do
    why = "it was watched, and #{Watch.line(course.report.watch.exceeded)}"
    {result, how, rollback} = AutoRollback.run(course.done, last?, why, course)
    report = %{course.report | rollback: rollback}
    text = "#{course.payload.kind} #{course.payload.patch}: #{why}; #{how}"

    case result do
      :nothing -> {:nothing, Outcome.error(:rolled_back, report, text)}
      _kept_or_failed -> {:failed, Outcome.error(:failed, report, text)}
    end
  end

  defp to_caller({:done, report}, _operation) do
    report = Outcome.finished(report)

    Log.info("HotPatch: #{report.operation} of #{report.patch} ended: #{report.status}",
      patch: report.patch,
      status: report.status
    )

    {:ok, report}
  end

  defp to_caller({_how, error}, operation) do
    _ = Outcome.note_refusal(error, operation)
    Log.warning("HotPatch: #{Exception.message(error)}")
    {:error, error}
  end

  defp tell_end(teller, {:ok, _report}), do: Progress.tell(teller, nil, {:ended, :done})

  defp tell_end(teller, {:error, error}),
    do: Progress.tell(teller, nil, {:ended, :failed}, text: error.message)
end
