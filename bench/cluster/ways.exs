defmodule Bench.Cluster.Ways do
  # What is compared. Runs on the coordinator, under the probe.

  alias Bench.Cluster.Probe
  alias HotPatch.Archive
  alias HotPatch.Cluster.Catalog
  alias HotPatch.Cluster.Shadows
  alias HotPatch.Cluster.Transfer
  alias HotPatch.NodeAgent.Payload

  # Milliseconds. So many nodes for each processor are slow to come to a stop together.
  @timeout 120_000
  @pause 30_000

  @doc "Sends a patch to all nodes: the whole term in one call to all, or as HotPatch sends it."
  def send_to(way, id, cluster) do
    {:ok, composition, patch} = Catalog.open(id)
    {:ok, shadows} = Shadows.of(composition)
    payload = Payload.new(composition, patch.release, shadows: shadows)
    {seen, :ok} = Probe.measure(cluster, fn -> send_payload(way, payload, cluster.others) end)
    seen
  end

  defp send_payload("multicall", payload, nodes) do
    answers = :erpc.multicall(nodes, __MODULE__, :take, [payload], @timeout)
    true = Enum.all?(answers, &(&1 == {:ok, :ok}))
    :ok
  end

  defp send_payload("HotPatch", payload, nodes) do
    {_stripped, failed} = Transfer.run(payload, nodes)
    true = failed == %{}
    :ok
  end

  @doc false
  def take(_payload), do: :ok

  @doc "Changes the code of all nodes: as it is done by hand, or by HotPatch."
  def change("by hand", beams, cluster) do
    {seen, :ok} =
      Probe.measure(cluster, fn ->
        for node <- [node() | cluster.others], {module, file, beam} <- beams do
          _ = :erpc.call(node, :code, :purge, [module], @timeout)
          {:module, _} = :erpc.call(node, :code, :load_binary, [module, file, beam], @timeout)
        end

        :ok
      end)

    seen
  end

  def change("HotPatch", id, cluster) do
    {seen, {report, sent}} =
      Probe.measure(cluster, fn ->
        :ok = HotPatch.subscribe()
        report = HotPatch.apply!(id, pause_timeout: @pause, timeout: @timeout, progress: :none)
        :ok = HotPatch.unsubscribe()
        {report, sent()}
      end)

    :ok = report.status
    true = length(report.nodes) == length(cluster.os_pids)

    Map.merge(seen, %{
      prepare: report.prepare_us,
      commit: report.commit_us,
      skew: report.skew_us,
      pause: report.nodes |> Enum.map(& &1.pause_us) |> Enum.max(),
      sent: sent
    })
  end

  # The last part that came anywhere, before all were told to prepare.
  defp sent(first \\ nil, last \\ nil) do
    receive do
      {HotPatch, %{phase: :send, at: at}} -> sent(first || at, at)
      {HotPatch, _other} -> sent(first, last)
    after
      0 -> if first, do: DateTime.diff(last, first, :microsecond), else: 0
    end
  end

  @doc "Only looks."
  def watch(ms, cluster) do
    {seen, :ok} = Probe.measure(cluster, fn -> :timer.sleep(ms) end)
    seen
  end

  @doc "Forgets what has been sent, so that the next has all to send again."
  def forget(cluster) do
    for node <- [node() | cluster.others], do: send({HotPatch.NodeAgent.Inbox, node}, :timeout)
    :ok
  end
end
