defmodule HotPatch.Cluster.RollingRestart do
  @moduledoc false
  # An upgrade that comes by restarts: all nodes are asked first, then one after the other gets the files, lets go of its
  # work, and starts in the new release; the next begins only when that one serves, and was watched. It ends with the
  # first that does not: that node goes back by itself, those before it stay in the new release, the others in theirs.
  #
  # Nobody's operation may come between: all nodes are held, a node that was restarted again as soon as it is back. The
  # node that leads comes last, and is led by another, as nobody can wait for itself.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.CanaryAnalysis
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Draft
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Cluster.Progress
  alias HotPatch.Cluster.RolloutGroups
  alias HotPatch.Cluster.Transfer
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Store.Journal
  alias HotPatch.Telemetry
  alias HotPatch.Watch

  require HotPatch.Support.Log, as: Log

  # Milliseconds: for an answer; between two looks; beyond what a node may take by itself, for it finds out first; how
  # long a node may drain at most is its own affair, so that order has no end.
  @within 10_000
  @every 200
  @margin 10_000

  @doc "Takes the nodes into the release of an upgrade, one after the other."
  @spec run(Payload.t(), [node()], [node()], map()) :: {:ok, Report.t()} | {:error, Error.t()}
  def run(payload, nodes, unmanaged, options) do
    options = Map.put(options, :origin, :operator)
    what = %{id: options.id, kind: :apply, patch: payload.patch, by: options.by}

    Coordinator.run(what, fn tell ->
      metadata = %{patch: payload.patch, by: options.by, nodes: nodes}

      Telemetry.span(:apply, metadata, fn ->
        result = lead(payload, nodes, unmanaged, Map.put(options, :stop, Coordinator.stop()))
        :ok = tell.(result)

        {:ok, %{},
         %{result: with({:error, error} <- result, do: error.reason, else: (_ok -> :ok))}}
      end)
    end)
  end

  defp lead(payload, nodes, unmanaged, options) do
    operation = Draft.operation(payload, nodes, options)

    course = %{
      payload: payload,
      operation: operation,
      teller: Progress.teller(operation, nodes),
      report: Draft.report(payload, unmanaged, options),
      options: options,
      version: payload.manifest.upgrade.to,
      done: []
    }

    result =
      with {:ok, _granted} <- hold(nodes, course),
           {:ok, course} <- foreseen(nodes, course),
           do: each(order(course), course)

    _ = Cluster.call(nodes, :unlock, [self()], @within)
    ended(result, course)
  end

  defp hold(nodes, %{operation: operation, options: options}) do
    holder = Operation.holder(operation)
    waiting = %{stop: options.stop, timeout: options.timeout}

    with {:error, node, answer} <-
           Cluster.take(nodes, &Cluster.call_until(&1, :lock, [holder], waiting)) do
      {_nothing, error} = Outcome.not_reserved(node, answer, operation)
      {:error, error}
    end
  end

  # What all nodes say to it before the first is touched.
  defp foreseen(nodes, %{payload: payload, options: options} = course) do
    for node <- nodes, do: Progress.tell(course.teller, node, {:prepare, :running})
    {stripped, failed} = send_to(nodes, course)

    answers =
      for {node, answer} <- Cluster.call(nodes, :check, [stripped], options.timeout) do
        case failed do
          %{^node => text} -> {node, {:error, text}}
          _sent -> {node, answer}
        end
      end

    report = %{course.report | nodes: Enum.map(answers, &foreseen_on/1)}
    course = %{course | report: report}

    cond do
      order = Coordinator.asked() ->
        {:error, Coordinator.error(course.operation, order, :nothing_changed, "nothing was done")}

      Enum.any?(report.nodes, &(&1.error != nil or Status.refuses?(&1.status))) ->
        {_nothing, error} = Outcome.refused(report)
        _ = Outcome.note_refusal(error, course.operation)
        {:error, error}

      alone?(course) ->
        text =
          "apply #{payload.patch}: #{node()} is the only node to be restarted, and leads it: nobody would see whether it " <>
            "comes back. Lead it from another node of the system, or from one of your own that has HotPatch"

        {:error, Error.new(:refused, text, %{node: node()})}

      true ->
        {:ok, course}
    end
  end

  defp foreseen_on({node, {:ok, {:ok, %{files: files} = said}}}) do
    warnings = Map.get(said, :warnings, [])
    result(node, Report.FileResult.combine(files), files: files, warnings: warnings)
  end

  defp foreseen_on({node, {:ok, {:error, text}}}), do: result(node, :error, error: text)
  defp foreseen_on({node, {:error, text}}), do: result(node, :error, error: text)

  defp result(node, status, more),
    do: struct!(Report.NodeResult, [node: node, status: status] ++ more)

  defp send_to(nodes, course) do
    Transfer.run(course.payload, nodes, course.options.stop, fn node, done, total ->
      Progress.tell(course.teller, node, {:send, :running}, done: done, total: total)
    end)
  end

  # Those that are of another system, or there already, are none of it.
  defp concerned(course), do: for(%{status: :ok, node: node} <- course.report.nodes, do: node)

  defp alone?(course), do: concerned(course) == [node()]

  # One at a time whatever else is said; canaries first, hosts after each other, and whoever leads comes last.
  defp order(course) do
    one = %{course.options | max_concurrency: 1, one_per_host: true}
    nodes = course |> concerned() |> RolloutGroups.of(one) |> Enum.concat()
    Enum.sort_by(nodes, &(&1 == node()))
  end

  defp each([], course), do: {:ok, course}

  defp each([node | rest], course) do
    if order = Coordinator.asked() do
      stopped(order, course)
    else
      with {:ok, course} <- step(node, course), do: each(rest, course)
    end
  end

  # Nobody waits for itself: one that is there already leads.
  defp step(node, course) when node == node() do
    [helper | _] = course.done
    _ = Cluster.call([node], :unlock, [self()], @within)

    options =
      Map.drop(course.options, [:stop, :id]) |> Map.merge(%{nodes: [node], roster: [node]})

    options = Map.put(options, :id, Coordinator.new_id())

    case :erpc.call(helper, __MODULE__, :run, [course.payload, [node], [], options]) do
      {:ok, report} -> {:ok, put_in(course.report, Outcome.joined(course.report, report))}
      {:error, error} -> failed(node, error.message, course)
    end
  end

  defp step(node, course) do
    started = System.monotonic_time(:millisecond)
    Progress.tell(course.teller, node, {:prepare, :running})

    with :ok <- unpack(node, course),
         Progress.tell(course.teller, node, {:restart, :running}),
         :ok <- leave(node, course),
         :ok <- await(node, course) do
      took = System.monotonic_time(:millisecond) - started
      Progress.tell(course.teller, node, {:restart, :done})
      _ = hold([node], course)
      watched(node, served(node, took, course))
    else
      {:error, text} -> failed(node, text, course)
      {:stopped, order} -> stopped(order, course)
    end
  end

  defp unpack(node, course) do
    {stripped, failed} = send_to([node], course)

    with nil <- failed[node],
         [{_node, {:ok, :ok}}] <-
           Cluster.call([node], :unpack, [stripped], course.options.timeout) do
      :ok
    else
      [{_node, {:ok, {:no, files}}}] -> {:error, "cannot unpack it: #{refusing(files)}"}
      [{_node, {:ok, {:error, text}}}] -> {:error, text}
      [{_node, {:error, text}}] -> {:error, text}
      text -> {:error, text}
    end
  end

  defp refusing(files) do
    file = Enum.find(files, &Status.refuses?(&1.status))
    "#{file.path}: #{file.reason}"
  end

  defp leave(node, course) do
    %{operation: operation, options: options, payload: payload} = course

    facts = %{
      op: operation.id,
      patch: payload.patch,
      by: options.by,
      reason: options[:reason],
      from: options[:from],
      coordinator: node()
    }

    upgrade = payload.manifest.upgrade
    order = %{to: {upgrade.erts, upgrade.to}, seconds: seconds(options), facts: facts}
    true = Node.monitor(node, true)
    _ = Journal.add(:restart, Map.merge(facts, %{node: node, release: release(course)}))

    case Cluster.call([node], :leave, [order], :infinity) do
      [{_node, {:ok, :ok}}] -> :ok
      [{_node, {:ok, {:error, text}}}] -> {:error, text}
      [{_node, {:error, text}}] -> {:error, text}
    end
  end

  defp release(course), do: %{course.payload.release | version: course.version}

  defp seconds(options), do: max(1, div(options.timeout, 1_000))

  # It finds out by itself, so it is given a little longer than it takes.
  defp await(node, course) do
    timeout = 1_000 * seconds(course.options)

    with :ok <- ends(node, now() + timeout, course),
         do: serves(node, now() + timeout + @margin, course)
  end

  defp ends(node, deadline, course) do
    receive do
      {:nodedown, ^node} -> :ok
    after
      @every ->
        cond do
          order = Coordinator.asked() ->
            {:stopped, order}

          now() < deadline ->
            ends(node, deadline, course)

          true ->
            {:error,
             "it was told to end, and has not ended: see what its applications do in their stop"}
        end
    end
  end

  defp serves(node, deadline, %{version: version} = course) do
    state =
      with true <- Node.connect(node) == true,
           [{_node, {:ok, {release, state}}}] <-
             Cluster.call([node], :restarted, [version], @within),
           do: {release.version, state},
           else: (_not_there -> :away)

    cond do
      state == {version, :served} ->
        :ok

      match?({_any, :taken_back}, state) ->
        {:error,
         "it did not come to serve in #{version}, and has gone back to #{elem(state, 0)}; its own log says why"}

      order = Coordinator.asked() ->
        {:stopped, order}

      now() >= deadline ->
        {:error,
         "#{not_serving(state)}: see its log, and what its next start boots (HotPatch.releases/0)"}

      true ->
        receive after: (@every -> serves(node, deadline, course))
    end
  end

  defp not_serving(:away), do: "it is not back"
  defp not_serving({version, _state}), do: "it is back as #{version}, and does not serve"

  defp now, do: System.monotonic_time(:millisecond)

  defp served(node, took, course) do
    text = "restarted into #{Release.text(release(course))} within #{took} ms"

    nodes =
      for one <- course.report.nodes,
          do: if(one.node == node, do: %{one | warnings: one.warnings ++ [text]}, else: one)

    %{put_in(course.report.nodes, nodes) | done: course.done ++ [node]}
  end

  defp watched(_node, %{options: %{watch: false}} = course), do: {:ok, course}

  defp watched(node, course) do
    stop = course.options.stop
    limits = course.options.watch

    case CanaryAnalysis.before([node], [], limits, stop) do
      {:error, _node, text} ->
        back(node, "it cannot be watched: #{text}", course)

      :ok ->
        watch = CanaryAnalysis.afterwards([{node, 0}], limits, course.teller, stop)
        course = put_in(course.report.watch, watch)

        if watch.exceeded,
          do: back(node, "it was watched, and #{Watch.line(watch.exceeded)}", course),
          else: {:ok, course}
    end
  end

  # It serves, and not well.
  defp back(node, why, course) do
    course = %{course | done: course.done -- [node]}

    how =
      case Cluster.call([node], :restart_back, [course.version], @within) do
        [{_node, {:ok, :ok}}] -> "it is restarted into the release of before"
        [{_node, {:ok, {:error, text}}}] -> "it does not go back: #{text}"
        [{_node, {:error, text}}] -> "it does not go back: it #{text}"
      end

    failed(node, "#{why}; #{how}", course)
  end

  defp failed(node, text, course) do
    nodes =
      for one <- course.report.nodes,
          do: if(one.node == node, do: %{one | status: :error, error: text}, else: one)

    report = Outcome.finished(%{course.report | nodes: nodes})
    Progress.tell(course.teller, node, {:restart, :failed}, text: text)
    message = "apply #{report.patch}: on #{node} #{text}; #{how_far(course, node)}"
    {:error, Outcome.error(:failed, report, message)}
  end

  defp how_far(%{done: []} = course, _node),
    do: "no node runs #{course.version}, and nothing is done on the others"

  defp how_far(course, _node) do
    former = course.payload.release.version

    "in #{course.version} by now: #{Enum.join(course.done, ", ")}; all others stay as they were: when that is put right, " <>
      "apply it again on a node that runs #{former}"
  end

  defp stopped(order, %{done: []} = course) do
    how = "the next node is not restarted; one that has been told to goes on by itself"
    {:error, Coordinator.error(course.operation, order, :too_late, how)}
  end

  defp stopped(order, course) do
    how =
      "in #{course.version} by now: #{Enum.join(course.done, ", ")}; no more nodes are restarted"

    {:error, Coordinator.error(course.operation, order, :kept, how)}
  end

  defp ended({:ok, course}, _before) do
    Progress.tell(course.teller, nil, {:ended, :done})

    Log.info("HotPatch: all nodes were restarted into #{course.version}",
      patch: course.report.patch
    )

    {:ok, Outcome.finished(course.report)}
  end

  defp ended({:error, error}, course) do
    Progress.tell(course.teller, nil, {:ended, :failed}, text: error.message)
    Log.warning("HotPatch: #{Exception.message(error)}")
    {:error, error}
  end
end
