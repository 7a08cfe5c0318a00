defmodule HotPatch.Cluster.PatchCall do
  @moduledoc false
  # What every call that works on a patch begins with: its options, the patch, the nodes.

  alias HotPatch.Archive
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Catalog
  alias HotPatch.Cluster.ManifestDefaults
  alias HotPatch.Cluster.Members
  alias HotPatch.Cluster.Shadows
  alias HotPatch.Error
  alias HotPatch.NodeAgent.LoaderTrial
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Options
  alias HotPatch.Options.WatchLimits
  alias HotPatch.Patch
  alias HotPatch.Support.OSUser
  alias HotPatch.Upgrade

  @type t :: {:ok, map(), Payload.t(), [node()], unmanaged :: [node()]}

  @doc "Validates a call and finds what it is about."
  @spec new(Options.call(), String.t(), term()) :: t() | {:error, Exception.t()}
  def new(call, id, options) do
    given = options

    with {:ok, options} <- Options.validate(call, options),
         kind = kind(call, options),
         census = Catalog.census(id, options.nodes),
         {:ok, payload, about, said} <- payload(kind, call, {id, census}, {options, given}),
         :ok <- by_restart(call, payload, options),
         :ok <- only_by_restart(kind, call, options),
         {:ok, members} <- Cluster.members(census, options.nodes),
         :ok <- possible(payload, members.infos),
         {:ok, payload, about} <- Catalog.bound(payload, about, members.infos),
         payload = in_memory(payload, members.infos),
         nodes = Members.nodes(members),
         :ok <- canary(call, options[:canary], nodes) do
      # Chosen by a rule, the nodes are those to which it applies now.
      scope = if options.nodes, do: nodes

      more = %{
        by: options[:by] || OSUser.name(),
        about: about,
        nodes: scope,
        missing: members.missing,
        roster: for(info <- members.infos, same_release?(info, payload), do: info.node)
      }

      {:ok, said |> Map.merge(more) |> watch(), payload, nodes, members.unmanaged}
    end
  end

  # Of another system, or of none, as an operator's own node: nobody is to wait for it later.
  defp same_release?(info, payload), do: info.release.name == payload.release.name

  # What restarts nodes leads to another release, and converts nothing.
  defp by_restart(call, %{restart: :rolling} = payload, options) do
    cond do
      Upgrade.of(payload) == nil and payload.leads_from == nil ->
        text =
          "is of an upgrade, and #{payload.patch} is a patch: HotPatch.restart/2 restarts a node"

        Options.wrong(call, :restart, text)

      options[:rehearse] ->
        text = "tries how states are converted, and with restart: :rolling none is: leave it out"

        Options.wrong(call, :rehearse, text)

      true ->
        :ok
    end
  end

  defp by_restart(_call, _payload, _options), do: :ok

  # A way back in one step has no first nodes, and nobody takes it back.
  defp only_by_restart(:rollback, call, %{restart: :none} = options) do
    case Enum.find([:canary, :watch], &(options[&1] not in [nil, false])) do
      nil -> :ok
      name -> Options.wrong(call, name, "of a rollback is of one with restart: :rolling")
    end
  end

  defp only_by_restart(_kind, _call, _options), do: :ok

  defp canary(call, named, nodes) when is_list(named) do
    case named -- nodes do
      [] ->
        :ok

      others ->
        {:error,
         Error.new(
           :invalid_option,
           "#{call}: option :canary names #{Enum.join(others, ", ")}, which is not among the nodes of this " <>
             "#{call}: #{Enum.join(nodes, ", ")}",
           %{option: :canary}
         )}
    end
  end

  defp canary(_call, _number_or_share, _nodes), do: :ok

  defp watch(%{watch: nil} = options) do
    in_groups? =
      options.canary || options[:max_concurrency] || options[:one_per_host] || rolling?(options)

    watch? = in_groups? not in [nil, false] or options[:permanent] == :after_watch
    watch(%{options | watch: watch?})
  end

  defp watch(%{watch: true} = options), do: %{options | watch: WatchLimits.defaults()}

  defp watch(%{watch: list} = options) when is_list(list),
    do: %{options | watch: Map.merge(WatchLimits.defaults(), Map.new(list))}

  defp watch(options), do: options

  defp kind(call, _options) when call in [:apply, :rollback], do: call
  defp kind(:rehearse, _options), do: :apply
  defp kind(_check_or_plan, options), do: options.operation

  defp payload(:apply, call, {id, census}, {options, given}) do
    with {:ok, composition, patch} <- Catalog.open(id, census),
         :ok <- Catalog.current(patch),
         {:ok, shadows} <- shadows(if(rolling?(options), do: :check, else: call), composition),
         {:ok, instructions} <- Archive.instructions(composition) do
      {options, overridden} = ManifestDefaults.options(options, given, composition.manifest)

      more = [
        shadows: shadows,
        config: ManifestDefaults.config(options.config, composition.manifest),
        instructions: instructions,
        loader: loader(rolling?(options), composition.files, shadows),
        evaluate?: options[:configuration] != :leave
      ]

      payload = Payload.new(composition, patch.release, Options.payload(:apply, options) ++ more)
      {:ok, payload, Catalog.about(patch), Map.put(options, :overridden, overridden)}
    end
  end

  # The archive is not needed: every node has kept what it had before.
  defp payload(:rollback, call, {id, census}, {options, _given}) do
    with :ok <- Options.foresees(call, :rollback, options),
         {:ok, %Patch{} = patch} <- Catalog.resolve(id, census) do
      # By a restart nodes go back that have no record of it.
      leads_from = if rolling?(options), do: [leads_from: patch.upgrade], else: []
      more = Options.payload(:rollback, options) ++ leads_from
      payload = Payload.rollback(patch.id, patch.release, more)
      {:ok, payload, Catalog.about(patch), options}
    end
  end

  defp rolling?(options), do: options[:restart] == :rolling

  # What comes by a restart is loaded by a VM of its own, maybe of another OTP.
  defp loader(true, _files, _shadows), do: nil

  defp loader(false, files, shadows),
    do: files |> LoaderTrial.run(shadows) |> LoaderTrial.conclusive()

  # Only what is carried out, or tried, needs them, and they are as large as the modules.
  defp shadows(call, composition) when call in [:apply, :rehearse], do: Shadows.of(composition)
  defp shadows(_check_or_plan, _composition), do: {:ok, []}

  defp possible(%Payload{kind: :rollback, restart: :rolling} = payload, members) do
    runs = %{payload.release | version: payload.leads_from}

    if Enum.any?(members, &(&1.release == runs)) do
      :ok
    else
      {:error,
       Error.new(
         :not_applied,
         "rollback #{payload.patch}: none of #{Enum.map_join(members, ", ", & &1.node)} runs #{runs}, there is nothing " <>
           "to go back from; HotPatch.nodes() shows what runs",
         %{id: payload.patch}
       )}
    end
  end

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
