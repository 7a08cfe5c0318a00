defmodule HotPatch.Cluster.RehearsalCall do
  @moduledoc false
  # A rehearsal over the cluster: all nodes are taken as for an apply, so that nobody changes what is tried, each
  # tries by itself, and all are let go.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Effects
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Cluster.Progress
  alias HotPatch.Cluster.Transfer
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Options
  alias HotPatch.Rehearsal
  alias HotPatch.Rehearsal.NodeResult
  alias HotPatch.Store.Journal
  alias HotPatch.Telemetry

  # Milliseconds that a node may need besides, to judge the patch and for messages; and to let go.
  @margin 10_000
  @abort_within 2_000

  @doc "Rehearses a patch on the given nodes."
  @spec run(Payload.t(), [node()], [node()], map()) :: {:ok, Rehearsal.t()} | {:error, Error.t()}
  def run(payload, nodes, unmanaged, options) do
    what = %{id: options.id, kind: :rehearse, patch: payload.patch, by: options.by}

    Coordinator.run(what, fn tell ->
      metadata = %{patch: payload.patch, by: options.by, nodes: nodes}

      Telemetry.span(:rehearse, metadata, fn ->
        result =
          led(payload, {nodes, unmanaged}, Map.put(options, :stop, Coordinator.stop()), what)

        :ok = tell.(result)
        {:ok, %{}, %{result: reason(result)}}
      end)
    end)
  end

  @doc "The rehearsal that an apply demands: nothing where it demands none, or where it has not failed."
  @spec demanded(Payload.t(), [node()], [node()], map()) :: :ok | {:error, Error.t()}
  def demanded(_payload, _nodes, _unmanaged, %{rehearse: false}), do: :ok

  def demanded(payload, nodes, unmanaged, options) do
    own = Map.merge(Options.defaults(:rehearse), options)

    case run(payload, nodes, unmanaged, Map.put(own, :id, Coordinator.new_id())) do
      {:ok, %{outcome: :failed} = rehearsal} -> {:error, refused(rehearsal)}
      {:ok, _passed} -> :ok
      error -> error
    end
  end

  defp refused(rehearsal) do
    text =
      "apply #{rehearsal.patch}: refused, nothing was changed on any node: it was rehearsed, and " <>
        "#{Rehearsal.failure(rehearsal)}"

    %Error{reason: :refused, message: text, report: rehearsal}
  end

  defp reason({:ok, rehearsal}), do: rehearsal.outcome
  defp reason({:error, error}), do: error.reason

  defp led(payload, {nodes, unmanaged}, options, what) do
    started_at = DateTime.utc_now()
    operation = operation(payload, nodes, options)
    teller = Progress.teller(Map.from_struct(operation), nodes)

    result =
      with {:ok, effective} <- Effects.of(payload.entries, payload.patch),
           {:ok, results} <- held(operation, payload, {options, effective}, teller) do
        rehearsal = %Rehearsal{
          patch: payload.patch,
          outcome: Rehearsal.Outcome.combine(Enum.map(results, & &1.outcome)),
          nodes: results,
          sample: options.sample,
          replay: options.replay,
          effects: options.effects,
          effective: effective,
          unmanaged: unmanaged,
          missing: options.missing,
          by: options.by,
          started_at: started_at,
          duration_us: DateTime.diff(DateTime.utc_now(), started_at, :microsecond)
        }

        {:ok, rehearsal}
      end

    result |> unless_stopped(what) |> ended(operation, options, teller)
  end

  defp operation(payload, nodes, options) do
    Operation.new(%{
      id: options.id,
      kind: :rehearse,
      patch: payload.patch,
      by: options.by,
      reason: options.reason,
      from: options.from,
      members: nodes,
      transition: payload.transition,
      on_load: payload.on_load,
      purge: payload.purge,
      disk: payload.disk,
      pause_timeout: options.pause_timeout,
      hold_timeout: options.pause_timeout
    })
  end

  # Whatever becomes of it, the nodes are free afterwards.
  defp held(%{members: nodes} = operation, payload, {options, effective}, teller) do
    tell_all(teller, nodes, :reserve)

    taken =
      Cluster.take(nodes, fn some ->
        Cluster.call_until(some, :reserve, [operation], Map.take(options, [:stop, :timeout]))
      end)

    try do
      case taken do
        {:ok, _granted} ->
          {:ok, tried(operation, payload, {options, effective}, teller)}

        {:error, node, answer} ->
          {:nothing, error} = Outcome.not_reserved(node, answer, operation)
          {:error, error}
      end
    after
      within = if options.stop.(), do: @abort_within, else: options.timeout
      _ = Cluster.call(nodes, :abort, [operation.ref], within)
    end
  end

  defp tried(%{members: nodes} = operation, payload, {options, effective}, teller) do
    {payload, failed} =
      Transfer.run(payload, nodes, options.stop, fn node, done, total ->
        Progress.tell(teller, node, {:send, :running}, done: done, total: total)
      end)

    asked = nodes -- Map.keys(failed)
    tell_all(teller, asked, :rehearse)

    waiting = %{
      stop: options.stop,
      timeout: time(options) + @margin,
      answered: &answered(teller, &1, &2)
    }

    args = [operation, payload, how(options, effective)]
    answers = Map.new(Cluster.call_until(asked, :rehearse, args, waiting))

    # A node that is told to let go has to be through with it before.
    silent = for {node, {:error, _text}} <- answers, do: node
    _ = Cluster.call(silent, :stop_rehearsal, [], @margin)

    for node <- nodes do
      case failed do
        %{^node => text} -> NodeResult.unknown(node, text)
        _sent -> found(node, answers[node])
      end
    end
  end

  defp how(options, effective) do
    without = if options.effects == :run, do: [], else: for(one <- effective, do: one.module)

    %{
      timeout: time(options),
      sample: options.sample,
      without: Enum.uniq(without),
      most_bytes: options.max_state_bytes,
      replay: options.replay && %{seconds: options.replay, values?: options.show == :values}
    }
  end

  # What comes from the live system takes as long as it is listened to.
  defp time(options), do: options.timeout + 1_000 * (options.replay || 0)

  defp found(_node, {:ok, {:ok, %NodeResult{} = result}}), do: result
  defp found(node, {:ok, {:error, text}}), do: NodeResult.unknown(node, text)
  defp found(node, {:error, text}), do: NodeResult.unknown(node, text)

  defp answered(teller, node, answer) do
    result = found(node, answer)
    state = if result.outcome == :failed, do: :failed, else: :done
    Progress.tell(teller, node, {:rehearse, state}, text: NodeResult.failure(result))
  end

  defp tell_all(teller, nodes, phase),
    do: Enum.each(nodes, &Progress.tell(teller, &1, {phase, :running}))

  defp unless_stopped(result, what) do
    case Coordinator.asked() do
      nil ->
        result

      order ->
        text = "nothing was changed on any node"
        {:error, Coordinator.error(what, order, :nothing_changed, text)}
    end
  end

  # It ran code on the states of processes of the system: that is written down.
  defp ended({:ok, rehearsal} = result, operation, options, teller) do
    _ =
      Journal.add(:rehearse, %{
        op: operation.id,
        kind: :rehearse,
        patch: rehearsal.patch,
        by: options.by,
        reason: options.reason,
        from: options.from,
        outcome: rehearsal.outcome,
        error: Rehearsal.failure(rehearsal),
        coordinator: node()
      })

    state = if rehearsal.outcome == :failed, do: :failed, else: :done
    Progress.tell(teller, nil, {:ended, state}, text: Rehearsal.failure(rehearsal))
    result
  end

  defp ended({:error, error} = result, _operation, _options, teller) do
    Progress.tell(teller, nil, {:ended, :failed}, text: error.message)
    result
  end
end
