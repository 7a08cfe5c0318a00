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
  @spec check(Payload.t(), [node()], [node()], timeout()) :: Report.t()
  def check(payload, nodes, unmanaged, timeout) do
    started_at = DateTime.utc_now()

    results =
      for {node, answer} <- ask(:check, payload, nodes, timeout) do
        case answer do
          {:ok, %{files: files, warnings: warnings}} ->
            status = Report.File.combine(files)
            %Report.Node{node: node, status: status, files: files, warnings: warnings}

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
      signed_by: Trust.signer(payload),
      started_at: started_at,
      duration_us: DateTime.diff(DateTime.utc_now(), started_at, :microsecond)
    }
  end

  @doc "What applying would do, by node."
  @spec plan(Payload.t(), [node()], [node()], timeout()) :: Plan.t()
  def plan(payload, nodes, unmanaged, timeout) do
    {us, plans} = :timer.tc(fn -> plans(payload, nodes, timeout) end)

    %Plan{
      patch: payload.patch,
      status: Status.combine(Enum.map(plans, & &1.status)),
      nodes: plans,
      unmanaged: unmanaged,
      duration_us: us
    }
  end

  defp plans(payload, nodes, timeout) do
    plans =
      for {node, answer} <- ask(:foresee, payload, nodes, timeout) do
        case answer do
          {:ok, plan} -> plan
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
        _ -> {node, with({:ok, answer} <- answers[node], do: answer)}
      end
    end
  end
end
