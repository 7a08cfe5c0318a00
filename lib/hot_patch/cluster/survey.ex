defmodule HotPatch.Cluster.Survey do
  @moduledoc false
  # Check and plan: every node is asked at once, nothing changes anywhere.

  alias HotPatch.Agent.Payload
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Analyses
  alias HotPatch.Cluster.Transfer
  alias HotPatch.Plan
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Trust

  @doc "What applying would give, by file and node."
  @spec check(Payload.t(), [node()], [node()], map()) :: Report.t()
  def check(payload, nodes, unmanaged, options) do
    started_at = DateTime.utc_now()

    results =
      for {node, answer} <- ask(:check, payload, nodes, options.timeout) do
        case answer do
          {files, strategy} when is_list(files) ->
            status = Status.combine(Enum.map(files, & &1.status))
            %Report.Node{node: node, status: status, files: files, strategy: strategy}

          {:error, text} ->
            %Report.Node{node: node, status: :error, error: text}
        end
      end

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
  end

  @doc "What applying would do, by node."
  @spec plan(Payload.t(), [node()], [node()], map()) :: Plan.t()
  def plan(payload, nodes, unmanaged, options) do
    {us, plans} = :timer.tc(fn -> plans(payload, nodes, options.timeout) end)

    %Plan{
      patch: payload.patch,
      disk: payload.disk,
      status: Status.combine(Enum.map(plans, & &1.status)),
      nodes: plans,
      unmanaged: unmanaged,
      missing: options.missing,
      duration_us: us
    }
  end

  defp plans(payload, nodes, timeout) do
    plans =
      for {node, answer} <- ask(:foresee, payload, nodes, timeout) do
        case answer do
          %Plan.Node{} = plan -> plan
          {:error, text} -> %Plan.Node{node: node, status: :error, error: text}
        end
      end

    Analyses.add(plans, payload, timeout)
  end

  # Where the patch could not be brought there is nothing to ask.
  defp ask(question, payload, nodes, timeout) do
    {payload, failed} = Transfer.run(payload, nodes)
    answers = Map.new(Cluster.call(nodes -- Map.keys(failed), question, [payload], timeout))

    for node <- nodes do
      case failed do
        %{^node => text} -> {node, {:error, text}}
        _ -> {node, answer(answers[node])}
      end
    end
  end

  defp answer({:ok, {:ok, files, strategy}}), do: {files, strategy}
  defp answer({:ok, {:ok, plan}}), do: plan
  defp answer({:ok, {:error, text}}), do: {:error, text}
  defp answer({:error, text}), do: {:error, text}
end
