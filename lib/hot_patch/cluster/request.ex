defmodule HotPatch.Cluster.Request do
  @moduledoc false
  # What every call that works on a patch begins with: its options, the patch, the nodes.

  alias HotPatch.Agent.Payload
  alias HotPatch.Archive
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Declared
  alias HotPatch.Cluster.Library
  alias HotPatch.Cluster.Watching
  alias HotPatch.Error
  alias HotPatch.Operator
  alias HotPatch.Options
  alias HotPatch.Patch

  @type t :: {:ok, map(), Payload.t(), [node()], unmanaged :: [node()]}

  @doc "Validates a call and finds what it is about."
  @spec new(Options.call(), String.t(), term()) :: t() | {:error, Exception.t()}
  def new(call, id, options) do
    given = options

    with {:ok, options} <- Options.validate(call, options),
         {:ok, payload, about, said} <- payload(kind(call, options), call, id, {options, given}),
         {:ok, members, unmanaged} <- Cluster.members(options.nodes),
         :ok <- possible(payload, members),
         payload = in_memory(payload, members),
         nodes = Enum.map(members, & &1.node),
         :ok <- canary(options[:canary], nodes) do
      # Chosen by a rule, the nodes are those to which it applies now.
      scope = if options.nodes, do: nodes
      more = %{by: options[:by] || Operator.name(), about: about, nodes: scope}
      {:ok, said |> Map.merge(more) |> watch(), payload, nodes, unmanaged}
    end
  end

  defp canary(named, nodes) when is_list(named) do
    case named -- nodes do
      [] ->
        :ok

      others ->
        {:error,
         Error.new(
           :invalid_option,
           "apply: option :canary names #{Enum.join(others, ", ")}, which is not among the nodes of this " <>
             "apply: #{Enum.join(nodes, ", ")}",
           %{option: :canary}
         )}
    end
  end

  defp canary(_number_or_share, _nodes), do: :ok

  defp watch(%{watch: nil} = options) do
    in_groups? = options.canary || options.max_concurrency || options.one_per_host
    watch(%{options | watch: in_groups? != false})
  end

  defp watch(%{watch: true} = options), do: %{options | watch: Watching.defaults()}

  defp watch(%{watch: list} = options) when is_list(list),
    do: %{options | watch: Map.merge(Watching.defaults(), Map.new(list))}

  defp watch(options), do: options

  defp kind(call, _options) when call in [:apply, :rollback], do: call
  defp kind(_check_or_plan, options), do: options.operation

  defp payload(:apply, call, id, {options, given}) do
    with {:ok, composition, patch} <- Library.open(id),
         :ok <- Library.current(patch),
         {:ok, shadows} <- shadows(call, composition),
         {:ok, instructions} <- Archive.instructions(composition) do
      {options, overridden} = Declared.options(options, given, composition.manifest)

      more = [
        shadows: shadows,
        purge: options.purge,
        on_load: options.on_load,
        disk: options.disk,
        cumulative: options.cumulative,
        config: Declared.config(options.config, composition.manifest),
        instructions: instructions
      ]

      payload = Payload.new(composition, patch.release, more)
      {:ok, payload, Library.about(patch), Map.put(options, :overridden, overridden)}
    end
  end

  # The archive is not needed: every node has kept what it had before.
  defp payload(:rollback, _call, id, {options, _given}) do
    with {:ok, %Patch{} = patch} <- Library.resolve(id) do
      more = [purge: options.purge, on_load: options.on_load]
      {:ok, Payload.rollback(patch.id, patch.release, more), Library.about(patch), options}
    end
  end

  # Only what is carried out needs them, and they are as large as the modules.
  defp shadows(:apply, composition), do: Archive.shadows(composition)
  defp shadows(_check_or_plan, _composition), do: {:ok, []}

  defp possible(%Payload{kind: :rollback, patch: id}, members) do
    case Enum.filter(members, &(id in &1.applied)) do
      [] ->
        {:error,
         Error.new(
           :not_applied,
           "rollback #{id}: it is applied on none of #{Enum.map_join(members, ", ", & &1.node)}, there is nothing to " <>
             "take back; HotPatch.nodes() shows what is",
           %{id: id}
         )}

      _ ->
        :ok
    end
  end

  defp possible(_payload, _members), do: :ok

  # The agents know by themselves what there is to take back; that it is named as what it is.
  defp in_memory(%Payload{kind: :rollback, patch: id} = payload, members) do
    if Enum.any?(members, &(id in &1.memory_only)),
      do: %{payload | disk: :memory_only},
      else: payload
  end

  defp in_memory(payload, _members), do: payload
end
