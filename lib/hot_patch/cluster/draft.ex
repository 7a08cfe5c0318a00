defmodule HotPatch.Cluster.Draft do
  @moduledoc false
  # An operation and its report as they are before any node has been asked: made of what is to be carried
  # out and of the options.

  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.TwoPhase
  alias HotPatch.Host.Trust
  alias HotPatch.Manifest
  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Report
  alias HotPatch.Upgrade

  @doc "An operation of this process, before it has a number."
  @spec operation(Payload.t(), [node()], map()) :: Operation.t()
  def operation(payload, nodes, options) do
    Operation.new(
      Map.merge(facts(payload), %{
        id: options[:id] || Coordinator.new_id(),
        seq: options[:seq],
        # Also above what is only decided here: an operation over other nodes.
        above: NodeAgent.seq(),
        scope: options.nodes || :all,
        members: nodes,
        roster: options[:roster] || [],
        missing: options[:missing] || [],
        tried_by: options[:tried_by],
        origin: options.origin,
        about: options[:about],
        overridden: options[:overridden] || %{},
        reason: options[:reason],
        from: options[:from],
        by: options.by,
        pause_timeout: options.pause_timeout,
        hold_timeout: TwoPhase.hold_timeout(options)
      })
    )
  end

  defp facts(payload) do
    payload
    |> Map.take([
      :kind,
      :patch,
      :cumulative?,
      :again?,
      :disk,
      :transition,
      :on_load,
      :purge,
      :undoes
    ])
    |> Map.merge(%{
      # It takes the place of all that was in force in the release from which it starts.
      cumulative?: payload.cumulative? or Upgrade.of(payload) != nil,
      content: Payload.content(payload),
      signed_by: Trust.signer(payload),
      accepted: Manifest.accepted(payload.manifest)
    })
  end

  @doc "A report of which nothing is known yet."
  @spec report(Payload.t(), [node()], map()) :: Report.t()
  def report(payload, unmanaged, options) do
    %Report{
      operation: payload.kind,
      patch: payload.patch,
      status: :error,
      nodes: [],
      unmanaged: unmanaged,
      missing: options[:missing] || [],
      by: options.by,
      signed_by: Trust.signer(payload),
      overridden: options[:overridden] || %{},
      disk: payload.disk,
      started_at: DateTime.utc_now()
    }
  end
end
