defmodule HotPatch.Cluster.Survey do
  @moduledoc false
  # Check and plan: every node is asked at once, nothing changes anywhere.

  alias HotPatch.Agent.Payload
  alias HotPatch.Cluster
  alias HotPatch.Plan
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Trust

  @doc "What applying would give, by file and node."
  @spec check(Payload.t(), [node()], [node()], timeout()) :: Report.t()
  def check(payload, nodes, unmanaged, timeout) do
    started_at = DateTime.utc_now()

    results =
      for {node, answer} <- Cluster.call(nodes, :check, [payload], timeout) do
        case answer do
          {:ok, files} ->
            %Report.Node{
              node: node,
              status: Status.combine(Enum.map(files, & &1.status)),
              files: files
            }

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
    {us, answers} = :timer.tc(fn -> Cluster.call(nodes, :foresee, [payload], timeout) end)

    plans =
      for {node, answer} <- answers do
        case answer do
          {:ok, plan} -> plan
          {:error, text} -> %Plan.Node{node: node, status: :error, error: text}
        end
      end

    %Plan{
      patch: payload.patch,
      status: Status.combine(Enum.map(plans, & &1.status)),
      nodes: plans,
      unmanaged: unmanaged,
      duration_us: us
    }
  end
end
