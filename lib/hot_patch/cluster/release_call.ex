defmodule HotPatch.Cluster.ReleaseCall do
  @moduledoc false
  # A release is made permanent on all nodes, or removed from them. All are held meanwhile, as for an apply, and all are
  # asked before the first does anything.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Members
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Upgrade

  @within 10_000

  @type call :: :make_permanent | :remove_release

  @doc "Carries it out on the nodes that run a release of this system."
  @spec run(call(), term(), Members.t(), map()) :: :ok | {:error, Error.t()}
  def run(call, version, members, options) when is_binary(version) do
    case concerned(members.infos) do
      [] -> {:error, refused(call, version, "no node runs a release", [])}
      nodes -> lead(call, version, nodes, options)
    end
  end

  def run(call, version, _members, _options) do
    text = "#{call}: a version is a text such as \"1.1.0\", got: #{inspect(version, limit: 5)}"
    {:error, Error.new(:invalid_option, text)}
  end

  # An operator's own node, and one that runs without a release, have none.
  defp concerned(infos) do
    own = Release.current()

    for %{release: release, node: node} <- infos,
        not Release.none?(release) and not Release.unreleased?(release),
        Release.none?(own) or release.name == own.name,
        do: node
  end

  defp lead(call, version, nodes, options) do
    what = %{id: Coordinator.new_id(), kind: call, patch: version, by: options.by}

    Coordinator.run(what, fn tell -> tell.(carry_out(what, nodes, options)) end)
  end

  defp carry_out(what, nodes, options) do
    operation = Operation.new(Map.merge(what, %{reason: options[:reason], members: nodes}))
    waiting = %{stop: Coordinator.stop(), timeout: @within}

    try do
      with {:ok, _granted} <-
             Cluster.take(nodes, &Cluster.call_until(&1, :reserve, [operation], waiting)),
           :ok <- all(nodes, what, :may_change_release, [what.kind, what.patch], options) do
        facts = Map.merge(%{reason: nil, from: nil}, Map.take(options, [:by, :reason, :from]))
        all(nodes, what, :change_release, [what.kind, what.patch, facts], options)
      else
        {:error, node, answer} -> {:error, busy(what, node, answer)}
        {:error, error} -> {:error, error}
      end
    after
      _ = Cluster.call(nodes, :abort, [operation.ref], @within)
    end
  end

  defp all(nodes, what, function, args, options) do
    answers = Cluster.call(nodes, function, args, options.timeout)

    case for({node, answer} <- answers, text = text(answer), do: {node, text}) do
      [] ->
        :ok

      failed ->
        why = Enum.map_join(failed, "; ", fn {node, text} -> "#{node}: #{text}" end)
        done = if function == :change_release, do: nodes -- Keyword.keys(failed), else: []
        {:error, refused(what.kind, what.patch, why, done)}
    end
  end

  defp text({:ok, :ok}), do: nil
  defp text({:ok, {:error, text}}), do: text
  defp text({:error, text}), do: text

  defp refused(call, version, why, []),
    do: Error.new(:refused, "#{call} #{version}: nothing was done: #{why}")

  defp refused(call, version, why, done) do
    Error.new(
      :failed,
      "#{call} #{version}: done on #{Enum.join(done, ", ")}, but #{why}; call it again when that is put right",
      %{nodes: done}
    )
  end

  defp busy(what, node, {:ok, {:busy, holder}}) do
    text = "#{holder.kind} of #{holder.patch} by #{holder.by} is under way"
    busy(what, node, {:error, text})
  end

  defp busy(what, node, {:ok, {:unfinished, text}}),
    do: busy(what, node, {:error, "an earlier operation is not ended on disk: #{text}"})

  defp busy(what, node, {:error, text}) do
    Error.new(
      :busy,
      "#{what.kind} #{what.patch}: nothing was done, on #{node} #{text}; try again when that is done",
      %{
        node: node
      }
    )
  end

  @doc "After an apply, where its options say so. What fails then is told by the report: the upgrade is in force."
  @spec follow({:ok, Report.t()} | {:error, Error.t()}, Payload.t(), map()) ::
          {:ok, Report.t()} | {:error, Error.t()}
  def follow({:ok, %{watch: nil} = report}, %{kind: :apply} = payload, %{permanent: :after_watch}) do
    text = "it was not watched, and so it is not permanent: see HotPatch.make_permanent/2"
    {:ok, if(Upgrade.of(payload), do: warned(report, text), else: report)}
  end

  def follow({:ok, report}, %{kind: :apply} = payload, %{permanent: permanent} = options)
      when permanent in [:now, :after_watch] do
    nodes = for %{node: node, status: :ok} <- report.nodes, do: node

    case Upgrade.of(payload) do
      %{to: version} when nodes != [] ->
        with {:error, error} <- lead(:make_permanent, version, nodes, options),
             do: {:ok, warned(report, Exception.message(error))},
             else: (:ok -> {:ok, report})

      _a_patch ->
        {:ok, report}
    end
  end

  def follow(result, _payload, _options), do: result

  defp warned(report, text) do
    [first | rest] = report.nodes
    %{report | nodes: [%{first | warnings: first.warnings ++ [text]} | rest]}
  end
end
