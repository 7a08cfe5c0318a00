defmodule HotPatch.Cluster.Survey do
  @moduledoc false
  # Check and plan: every node is asked at once, nothing changes anywhere.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Analyses
  alias HotPatch.Cluster.ConversionRounds
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Transfer
  alias HotPatch.Error
  alias HotPatch.Host.Trust
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Plan
  alias HotPatch.Report
  alias HotPatch.Status

  @doc "What applying would give, by file and node."
  @spec check(Payload.t(), [node()], [node()], map()) :: {:ok, Report.t()} | {:error, Error.t()}
  def check(payload, nodes, unmanaged, options) do
    lead(:check, payload, options, fn options ->
      started_at = DateTime.utc_now()
      results = for answer <- ask(:check, payload, nodes, options), do: checked(answer)

      %Report{
        operation: :check,
        patch: payload.patch,
        status: Status.combine(Enum.map(results, & &1.status)),
        nodes: results,
        unmanaged: unmanaged,
        missing: options.missing,
        signed_by: Trust.signer(payload),
        disk: payload.disk,
        started_at: started_at,
        duration_us: DateTime.diff(DateTime.utc_now(), started_at, :microsecond)
      }
    end)
  end

  defp checked({node, %{files: files, warnings: warnings, strategy: strategy}}) do
    status = Report.FileResult.combine(files)

    %Report.NodeResult{
      node: node,
      status: status,
      files: files,
      warnings: warnings,
      strategy: strategy
    }
  end

  defp checked({node, {:error, text}}),
    do: %Report.NodeResult{node: node, status: :error, error: text}

  @doc "What applying would do, by node."
  @spec plan(Payload.t(), [node()], [node()], map()) :: {:ok, Plan.t()} | {:error, Error.t()}
  def plan(payload, nodes, unmanaged, options) do
    lead(:plan, payload, options, fn options ->
      {us, plans} = :timer.tc(fn -> plans(payload, nodes, options) end)

      %Plan{
        patch: payload.patch,
        disk: payload.disk,
        status: Status.combine(Enum.map(plans, & &1.status)),
        nodes: plans,
        unmanaged: unmanaged,
        missing: options.missing,
        duration_us: us
      }
    end)
  end

  # What a node was asked it finishes by itself; nobody waits for it.
  defp lead(call, payload, options, fun) do
    what = %{id: Coordinator.new_id(), kind: call, patch: payload.patch, by: options.by}

    Coordinator.run(what, fn tell ->
      result = fun.(Map.put(options, :stop, Coordinator.stop()))

      case Coordinator.asked() do
        nil -> tell.({:ok, result})
        order -> tell.({:error, stopped(what, order)})
      end
    end)
  end

  defp stopped(what, order),
    do: Coordinator.error(what, order, :nothing_changed, "nothing was changed on any node")

  defp plans(payload, nodes, options) do
    plans =
      for {node, answer} <- ask(:foresee, payload, nodes, options) do
        with {:error, text} <- answer,
             do: {%Plan.NodePlan{node: node, status: :error, error: text}, nil}
      end

    if options.stop.(),
      do: Enum.map(plans, &elem(&1, 0)),
      else: plans |> Analyses.add(payload, options.timeout) |> ConversionRounds.add(payload)
  end

  # Where the patch could not be brought there is nothing to ask.
  defp ask(question, payload, nodes, %{timeout: timeout, stop: stop}) do
    {payload, failed} = Transfer.run(payload, nodes, stop)
    asked = nodes -- Map.keys(failed)
    waiting = %{stop: stop, timeout: timeout}
    answers = Map.new(Cluster.call_until(asked, question, [payload], waiting))

    for node <- nodes do
      case failed do
        %{^node => text} -> {node, {:error, text}}
        _ -> {node, answer(answers[node])}
      end
    end
  end

  defp answer({:ok, {:ok, found}}), do: found
  defp answer({:ok, {:error, text}}), do: {:error, text}
  defp answer({:error, text}), do: {:error, text}
end
