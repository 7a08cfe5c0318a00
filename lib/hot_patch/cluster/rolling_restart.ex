defmodule HotPatch.Cluster.RollingRestart do
  @moduledoc false
  # An upgrade that comes by restarts: all nodes are asked first, then one after the other gets the files, lets go of its
  # work, and starts in the new release; the next begins only when that one serves, and was watched. It ends with the
  # first that does not: that node goes back by itself, those before it stay in the new release, the others in theirs.
  # The way back is the same into the former release, which lies on the disk of each node.
  #
  # Nobody's operation may come between: all nodes are held, a node that was restarted again as soon as it is back. The
  # node that leads comes last, and is led by another, as nobody can wait for itself. Where there is no other, nobody
  # waits: the node says in its journal how it has ended.
  #
  # When all are there that is kept by all of them (HotPatch.Store.Rolled), for those that were away.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.CanaryAnalysis
  alias HotPatch.Cluster.Catalog
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Draft
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Cluster.Progress
  alias HotPatch.Cluster.RolloutGroups
  alias HotPatch.Cluster.Transfer
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Options
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Store.Journal
  alias HotPatch.Store.Rolled
  alias HotPatch.Telemetry
  alias HotPatch.Watch

  require HotPatch.Support.Log, as: Log

  # Milliseconds: for an answer; between two looks; beyond what a node may take by itself, for it finds out first; how
  # long a node may drain at most is its own affair, so that order has no end.
  @within 10_000
  @every 200
  @margin 10_000

  @doc "Takes the nodes into the release of an upgrade, or back, one after the other."
  @spec run(Payload.t(), [node()], [node()], map()) :: {:ok, Report.t()} | {:error, Error.t()}
  def run(payload, nodes, unmanaged, options) do
    options = Map.put_new(options, :origin, :operator)
    what = %{id: options.id, kind: payload.kind, patch: payload.patch, by: options.by}

    coordinate(what, options, fn tell, options ->
      metadata = %{patch: payload.patch, by: options.by, nodes: nodes}

      Telemetry.span(payload.kind, metadata, fn ->
        result = lead(payload, nodes, unmanaged, options)
        :ok = tell.(result)

        {:ok, %{},
         %{result: with({:error, error} <- result, do: error.reason, else: (_ok -> :ok))}}
      end)
    end)
  end

  # What a node misses it would only ask for again, if that were told to stop.
  defp coordinate(what, %{origin: :operator} = options, fun),
    do: Coordinator.run(what, &fun.(&1, Map.put(options, :stop, Coordinator.stop())))

  defp coordinate(what, options, fun),
    do: Coordinator.unheard(what, &fun.(&1, Map.put(options, :stop, fn -> false end)))

  @doc """
  Brings a node to where such restarts have led all others, for that node: it ends while this goes on. The others are
  held meanwhile, so that there is one at a time.
  """
  @spec bring(Rolled.t(), node()) :: :ok | {:busy, String.t()} | {:error, String.t()}
  def bring(missed, node) do
    with {:ok, payload} <- payload(missed) do
      options =
        Map.merge(Options.alone(), %{
          id: missed.id,
          origin: {:missed, missed.id},
          by: missed.by,
          reason: "catching up",
          nodes: [node],
          roster: [node],
          number: missed.seq,
          past: [],
          held: others(missed.name, node)
        })

      case run(payload, [node], [], options) do
        {:ok, _report} -> :ok
        {:error, %{reason: :busy, message: text}} -> {:busy, text}
        {:error, error} -> {:error, Exception.message(error)}
      end
    else
      {:error, error} -> {:error, Exception.message(error)}
    end
  end

  defp payload(%{kind: :apply} = missed) do
    with {:ok, composition, patch} <- Catalog.open(missed.patch) do
      {:ok, Payload.new(composition, patch.release, restart: :rolling)}
    end
  end

  defp payload(%{kind: :rollback, name: name} = missed) do
    to = %Release{name: name, version: missed.to}
    {:ok, Payload.rollback(missed.patch, to, restart: :rolling, leads_from: missed.from)}
  end

  # Of the same system, whatever version of it they run.
  defp others(name, node) do
    for %{managed?: true, release: %{name: ^name}} = info <- Cluster.infos(Cluster.everyone()),
        info.node != node,
        do: info.node
  end

  defp lead(payload, nodes, unmanaged, options) do
    operation = Draft.operation(payload, nodes, options)

    course =
      Map.merge(ways(payload), %{
        payload: payload,
        operation: operation,
        teller: Progress.teller(operation, nodes),
        report: Draft.report(payload, unmanaged, options),
        options: options,
        number: nil,
        past: [],
        done: []
      })

    held = nodes ++ Map.get(options, :held, [])

    result =
      with {:ok, _granted} <- hold(held, course),
           course = %{course | number: number(course), past: past(nodes, course)},
           {:ok, course} <- foreseen(nodes, course),
           {:ok, course} <- each(order(course), course) do
        completed(course)
        {:ok, course}
      end

    _ = Cluster.call(held, :unlock, [self()], @within)
    ended(result, course)
  end

  # From which version to which, and the runtime system of that: what lies on its disk each node knows best.
  defp ways(%Payload{kind: :apply, manifest: %{upgrade: upgrade}, release: release}),
    do: %{former: release.version, version: upgrade.to, erts: upgrade.erts}

  defp ways(%Payload{kind: :rollback, release: release, leads_from: former}),
    do: %{former: former, version: release.version, erts: nil}

  defp hold(nodes, %{operation: operation, options: options}) do
    holder = Operation.holder(operation)
    waiting = %{stop: options.stop, timeout: options.timeout}

    with {:error, node, answer} <-
           Cluster.take(nodes, &Cluster.call_until(&1, :lock, [holder], waiting)) do
      {_nothing, error} = Outcome.not_reserved(node, answer, operation)
      {:error, error}
    end
  end

  # By it a node knows which of such restarts are those that it has missed. Nobody else begins one meanwhile.
  defp number(%{options: %{number: number}}), do: number

  defp number(course) do
    known =
      for {_node, {:ok, seq}} <- Cluster.call(everyone(course), :rolled_seq, [], @within), do: seq

    Enum.max([0 | known]) + 1
  end

  # From which releases those that are to be restarted have come while they ran: they forget it with the restart.
  defp past(_nodes, %{options: %{past: past}}), do: past

  defp past(nodes, course) do
    Enum.find_value(Cluster.call(nodes, :history, [], @within), [], fn
      {_node, {:ok, %{release: release, lineage: [release | below]}}} ->
        if release.version == course.former, do: for(one <- below, do: one.version)

      _silent ->
        nil
    end)
  end

  defp everyone(course), do: [node() | others(course.payload.release.name, node())]

  # All are there: whoever was away is to follow. One that is brought there follows what is kept already, and what was
  # only begun (a system of one node) that node keeps itself.
  defp completed(%{options: %{origin: {:missed, _id}}}), do: :ok
  defp completed(%{done: []}), do: :ok

  defp completed(course) do
    everyone = everyone(course)
    entry = entry(course)

    # This node first: from then on it is known, whoever dies.
    for nodes <- [[node()], everyone -- [node()]],
        {node, answer} <- Cluster.call(nodes, :rolled, [[entry]], @within),
        answer != {:ok, :ok} do
      {_how, text} = answer
      Log.warning("HotPatch: #{node} does not keep that all were restarted: #{inspect(text)}")
    end

    :ok
  end

  defp entry(%{payload: payload, options: options, operation: operation} = course) do
    Rolled.new(%{
      id: Map.get(options, :part_of, operation.id),
      seq: course.number,
      kind: payload.kind,
      patch: payload.patch,
      name: payload.release.name,
      from: course.former,
      to: course.version,
      scope: Map.get(options, :of_all, operation.scope),
      past: course.past,
      by: options.by
    })
  end

  # What all nodes say to it before the first is touched.
  defp foreseen(nodes, %{options: options} = course) do
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

  # One at a time whatever else is said; canaries first, hosts after each other, and whoever leads comes last.
  defp order(course) do
    one = Map.merge(course.options, %{max_concurrency: 1, one_per_host: true})
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

  # Nobody waits for itself: another leads, one that is there already if there is.
  defp step(node, course) when node == node() do
    case course.done ++ others(course.payload.release.name, node) do
      [helper | _] -> led_by(helper, node, course)
      [] -> by_itself(node, course)
    end
  end

  defp step(node, course) do
    started = System.monotonic_time(:millisecond)
    Progress.tell(course.teller, node, {:prepare, :running})

    with :ok <- unpack(node, course),
         Progress.tell(course.teller, node, {:restart, :running}),
         :ok <- leave(node, %{}, course),
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

  # There is nobody else: this ends with it.
  defp by_itself(node, course) do
    Progress.tell(course.teller, node, {:prepare, :running})

    with :ok <- unpack(node, course),
         :ok <- leave(node, %{rolled: entry(course)}, course) do
      Progress.tell(course.teller, node, {:restart, :running})

      text =
        "it is being restarted into #{Release.text(release(course))}, and nobody waits for it or watches it: its journal " <>
          "will say how that ended (HotPatch.journal/1)"

      {:ok, put_in(course.report.nodes, changed(node, course, &left(&1, text)))}
    else
      {:error, text} -> failed(node, text, course)
    end
  end

  defp led_by(helper, node, course) do
    _ = Cluster.call([node], :unlock, [self()], @within)

    options =
      course.options
      |> Map.drop([:stop])
      |> Map.merge(%{
        id: Coordinator.new_id(),
        nodes: [node],
        roster: [node],
        number: course.number,
        past: course.past,
        part_of: course.operation.id,
        of_all: course.operation.scope
      })

    case :erpc.call(helper, __MODULE__, :run, [course.payload, [node], [], options]) do
      {:ok, report} -> {:ok, put_in(course.report, Outcome.joined(course.report, report))}
      {:error, error} -> failed(node, error.message, course)
    end
  end

  # What the way back leads to lies there.
  defp unpack(_node, %{payload: %{kind: :rollback}}), do: :ok

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

  # `keeps` is what the node itself is to note when it serves.
  defp leave(node, keeps, course) do
    %{operation: operation, options: options, payload: payload} = course

    facts = %{
      op: operation.id,
      patch: payload.patch,
      by: options.by,
      reason: options[:reason],
      from: options[:from],
      coordinator: node()
    }

    order = %{
      to: {course.erts, course.version},
      seconds: seconds(options),
      seq: course.number,
      facts: facts
    }

    true = node == node() or Node.monitor(node, true)
    _ = Journal.add(:restart, Map.merge(facts, %{node: node, release: release(course)}))

    case Cluster.call([node], :leave, [Map.merge(order, keeps)], :infinity) do
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

    nodes = changed(node, course, &%{&1 | warnings: &1.warnings ++ [text]})
    %{put_in(course.report.nodes, nodes) | done: course.done ++ [node]}
  end

  defp left(one, text), do: %{one | status: :not_updated, warnings: one.warnings ++ [text]}

  defp changed(node, course, fun),
    do: for(one <- course.report.nodes, do: if(one.node == node, do: fun.(one), else: one))

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
    nodes = changed(node, course, &%{&1 | status: :error, error: text})
    report = Outcome.finished(%{course.report | nodes: nodes})
    Progress.tell(course.teller, node, {:restart, :failed}, text: text)
    message = "#{report.operation} #{report.patch}: on #{node} #{text}; #{how_far(course, node)}"
    {:error, Outcome.error(:failed, report, message)}
  end

  defp how_far(%{done: []} = course, _node),
    do: "no node runs #{course.version}, and nothing is done on the others"

  defp how_far(course, _node) do
    again = if course.payload.kind == :apply, do: "apply it again", else: "roll it back again"

    "in #{course.version} by now: #{Enum.join(course.done, ", ")}; all others stay as they were: when that is put right, " <>
      "#{again} on a node that runs #{course.former}"
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

    if course.done != [] do
      Log.info("HotPatch: restarted into #{course.version}: #{Enum.join(course.done, ", ")}",
        patch: course.report.patch
      )
    end

    {:ok, Outcome.finished(course.report)}
  end

  defp ended({:error, error}, course) do
    Progress.tell(course.teller, nil, {:ended, :failed}, text: error.message)
    Log.warning("HotPatch: #{Exception.message(error)}")
    {:error, error}
  end
end
