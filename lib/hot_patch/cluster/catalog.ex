defmodule HotPatch.Cluster.Catalog do
  @moduledoc false
  # The archives of the whole cluster: each is kept where it was uploaded, and fetched
  # from there by the node that needs it.

  alias HotPatch.Answers
  alias HotPatch.Archive
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Census
  alias HotPatch.Cluster.Members
  alias HotPatch.Cluster.Readiness
  alias HotPatch.Composition
  alias HotPatch.Error
  alias HotPatch.Host.Trust
  alias HotPatch.Manifest
  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.LoaderTrial
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeInfo
  alias HotPatch.Options.Argument
  alias HotPatch.Patch
  alias HotPatch.PatchName
  alias HotPatch.Release
  alias HotPatch.Store.Archives
  alias HotPatch.Store.Journal
  alias HotPatch.Support.Table

  # How long a node may take to answer about archives.
  @within 30_000

  @typedoc "The options of an upload; `default_name` is for an archive that says none."
  @type asked :: %{
          name: String.t() | nil,
          default_name: String.t(),
          release: {String.t(), String.t()} | nil,
          by: String.t(),
          from: String.t() | nil
        }

  @doc """
  Takes an archive in: reads it, and keeps it if it is accepted. It is called as was given, or as
  its manifest calls it, or else by the default.
  """
  @spec upload(binary(), asked()) :: {:ok, Patch.t()} | {:error, Exception.t()}
  def upload(bytes, asked) do
    with :ok <- Readiness.check(),
         {:ok, composition} <- Archive.Cache.read(bytes, asked.name || asked.default_name),
         name = asked.name || declared_name(composition.manifest) || asked.default_name,
         composition = %{composition | id: Archive.id(name, composition.sha256)},
         :ok <- admitted(composition),
         :ok <- harmless(composition),
         {:ok, release} <- bound_to(composition, asked.release) do
      composition |> record(name, asked.by, release) |> current_record() |> keep(bytes, asked)
    end
  end

  defp keep(record, bytes, asked) do
    case Archives.put(record, bytes) do
      :ok ->
        facts = Map.take(record, [:release, :signed_by])
        noted = Map.merge(facts, %{patch: record.id, by: asked.by, from: asked.from})
        _ = Journal.add(:upload, noted)
        {:ok, patch(record, %{kept_on: [node()]})}

      {:error, :quota} ->
        {:error,
         Error.new(
           :file,
           "upload: #{node()} keeps #{Archives.quota()} bytes of archives at most (config :hot_patch, " <>
             "max_kept_bytes: ...) and has no room for #{record.id}: delete archives that are not needed any more"
         )}

      {:error, posix} ->
        {:error,
         Error.new(
           :file,
           "upload: cannot keep #{record.id} in #{HotPatch.Store.directory()}: " <>
             "#{:file.format_error(posix)}; make room there or set config :hot_patch, data_dir: ..."
         )}
    end
  end

  # An earlier upload of the same archive keeps its record, unless it was for another system, or has
  # ended since on any node. Then this one counts, and is later than that end by every clock.
  defp current_record(%{id: id} = record) do
    ended_at = id |> census(nil) |> found() |> Map.get(id, []) |> ended_at()

    case Archives.fetch(id) do
      {:ok, %{release: release} = first, _bytes} when release == record.release ->
        if before?(first.uploaded_at, ended_at), do: later(record, ended_at), else: first

      _none_or_for_another_system ->
        later(record, ended_at)
    end
  end

  defp later(record, nil), do: record

  defp later(record, ended_at) do
    after_it = DateTime.add(ended_at, 1, :microsecond)
    %{record | uploaded_at: Enum.max([record.uploaded_at, after_it], DateTime)}
  end

  defp declared_name(nil), do: nil
  defp declared_name(manifest), do: manifest.name

  # The nodes look again when it is applied, each by its own configuration.
  defp admitted(composition) do
    with {:error, error} <- Trust.check(composition, composition.files) do
      {:error, %{error | message: "upload #{composition.id}: #{error.message}"}}
    end
  end

  # Modules that this node's loader only refuses may be right for other nodes: they are checked on
  # each.
  defp harmless(composition) do
    case LoaderTrial.run(composition.files, []).modules do
      {:ended, name, how} ->
        {:error,
         Error.new(
           :fatal_module,
           "upload #{composition.id}: #{name || "its modules together"} would end every node that " <>
             "loads it: the VM in which that was tried #{how}. The file is damaged, or made to do " <>
             "harm: build it again. Nothing was kept",
           %{module: name}
         )}

      {:untried, why} ->
        {:error,
         Error.new(:untried, "upload #{composition.id}: #{LoaderTrial.untried(why)}", %{
           cause: why
         })}

      _accepted_refused_or_off ->
        :ok
    end
  end

  @doc "All patches of the cluster, newest first."
  @spec list() :: Answers.t(Patch.t())
  def list, do: patches(Cluster.census(nil, :all))

  @doc """
  What a call about a patch begins with: the nodes, also those that it names, and what they know of the
  patches that may be meant. A name is the beginning of an id, too.
  """
  @spec census(term(), Cluster.selection()) :: Census.t()
  def census(%Patch{id: id}, selection), do: census(id, selection)

  def census(id, selection) do
    case Argument.text(id) do
      text when is_binary(text) and text != "" -> Cluster.census(selection, {:begins, text})
      _means_none -> Cluster.census(selection, :all)
    end
  end

  defp patches(census) do
    members = everywhere(census)

    %Answers{
      of: :patches,
      items: census |> kept_or_applied() |> Enum.sort_by(& &1.uploaded_at, {:desc, DateTime}),
      nodes: Members.nodes(members),
      failed: Enum.sort_by(members.failed, & &1.node),
      missing: members.missing
    }
  end

  # Where HotPatch is not started, that is what there is to tell.
  defp everywhere(census) do
    case Cluster.reachable(census, nil) do
      {:ok, members} -> members
      {:error, error} -> %Members{infos: [], failed: [%{node: node(), problem: error.message}]}
    end
  end

  # What each node of the system knows of each patch.
  defp found(%Census{connected: connected} = census) do
    for({node, patches} <- census.patches, node in connected, known <- patches, do: {node, known})
    |> Enum.group_by(fn {_node, known} -> known.id end)
  end

  # What was applied is known also when its archive is gone.
  defp kept_or_applied(census) do
    for {_id, found} <- found(census),
        Enum.any?(found, fn {_node, known} -> known.kept || known.about end),
        do: patch_of(found)
  end

  # As several nodes know it.
  defp patch_of(found) do
    patch(record_of(found), %{
      kept_on: for({node, %{kept: %{}}} <- found, do: node) |> Enum.sort(),
      applied_on: for({node, %{about: %{}}} <- found, do: node) |> Enum.sort(),
      rolled_back?: Enum.any?(found, fn {_node, known} -> known.rolled_back? end),
      retired_at: ended_at(found)
    })
  end

  # Of several nodes that keep it the one that was told last.
  defp record_of(found) do
    case for({_node, %{kept: %{} = record}} <- found, do: record) do
      [] -> Enum.find_value(found, fn {_node, known} -> known.about end)
      records -> Enum.max_by(records, & &1.uploaded_at, DateTime)
    end
  end

  # On the node where that was last; nil where it has not ended.
  defp ended_at(found) do
    ends = for {_node, %{ended_at: %DateTime{} = at}} <- found, do: at
    Enum.max(ends, DateTime, fn -> nil end)
  end

  @doc """
  Finds a patch as `resolve/1` does, and reads its archive. Who has the patch from the list need not
  have it looked for again.
  """
  @spec open(term()) :: {:ok, Composition.t(), Patch.t()} | {:error, Exception.t()}
  def open(%Patch{} = patch), do: read(patch)
  def open(id), do: open(id, census(id, nil))

  @doc "The same by what was answered already."
  @spec open(term(), Census.t()) :: {:ok, Composition.t(), Patch.t()} | {:error, Exception.t()}
  def open(id, census), do: with({:ok, patch} <- resolve(id, census), do: read(patch))

  # This node's own copy first: in an incident the others may not answer.
  defp read(patch) do
    nodes = Enum.sort_by(patch.kept_on, &(&1 != node()))

    with {:ok, bytes} <- fetch(%{patch | kept_on: nodes}),
         {:ok, composition} <- Archive.Cache.read(bytes, patch.name) do
      if composition.id == patch.id,
        do: {:ok, composition, patch},
        else: damaged(patch.id, node())
    end
  end

  @doc "Whether a patch may be applied to what this node runs."
  @spec current(Patch.t()) :: :ok | {:error, Error.t()}
  def current(%Patch{id: id, release: release} = patch) do
    cond do
      retired?(release) ->
        {:error,
         Error.new(
           :retired,
           "#{id} is for #{release}, but this system is #{Release.current()}: patches end with " <>
             "the version they were made for, make a new one"
         )}

      patch.state == :retired ->
        {:error,
         Error.new(
           :retired,
           "#{id} ended when the release was installed again: if it is still needed, upload it again"
         )}

      true ->
        :ok
    end
  end

  @doc "What every node keeps of a patch that it has applied."
  @spec about(Patch.t()) :: map()
  def about(patch),
    do: patch |> Map.from_struct() |> Map.drop([:kept_on, :applied_on, :state])

  @doc "Forgets an archive on every node."
  @spec delete(String.t(), %{
          :by => String.t(),
          :reason => String.t() | nil,
          :from => String.t() | nil,
          optional(atom()) => term()
        }) :: :ok | {:error, Error.t()}
  def delete(id, record) do
    census = census(id, nil)

    with {:ok, patch} <- resolve(id, census),
         :ok <- deletable(patch) do
      failures =
        for {node, answer} <- Cluster.call(patch.kept_on, :forget, [patch.id], @within),
            answer not in [{:ok, :ok}, {:ok, :unknown}],
            do: "#{node}: #{inspect(answer)}"

      _ = Journal.add(:delete, Map.put(Map.take(record, [:by, :reason, :from]), :patch, patch.id))
      deleted(patch, failures, everywhere(census).failed)
    end
  end

  defp deleted(_patch, [], []), do: :ok

  defp deleted(patch, [], silent) do
    nodes = Enum.map(silent, & &1.node)

    {:error,
     Error.new(
       :unreachable,
       "delete: #{patch.id} is deleted on #{Enum.join(patch.kept_on, ", ")}; whether others keep it is not known: " <>
         "#{Table.problems(silent)}; look at HotPatch.list() when they answer",
       %{nodes: nodes}
     )}
  end

  defp deleted(patch, failures, _silent) do
    {:error, Error.new(:file, "delete: #{patch.id} is still kept: #{Enum.join(failures, "; ")}")}
  end

  defp deletable(%Patch{kept_on: []} = patch) do
    {:error,
     Error.new(
       :unknown_patch,
       "delete: the archive of #{patch.id} is deleted already; what it has applied stays"
     )}
  end

  defp deletable(_patch), do: :ok

  # One after another: the first good copy is enough.
  defp fetch(%Patch{id: id, kept_on: nodes} = patch) do
    Enum.reduce_while(nodes, {:error, deleted(patch)}, fn node, _error ->
      case archive(id, node) do
        {:ok, {:ok, _record, bytes}} -> {:halt, {:ok, bytes}}
        {:ok, :damaged} -> {:cont, damaged(id, node)}
        {:ok, :unknown} -> {:cont, {:error, deleted(patch)}}
        {:error, text} -> {:cont, not_given(id, node, text)}
      end
    end)
  end

  defp archive(id, node) when node == node(), do: {:ok, NodeAgent.archive(id)}

  defp archive(id, node) do
    [{_node, answer}] = Cluster.call([node], :archive, [id], @within)
    answer
  end

  defp deleted(patch) do
    applied =
      if patch.applied_on == [],
        do: "",
        else:
          "; it is applied on #{Enum.join(patch.applied_on, ", ")}, and HotPatch.rollback/2 takes it back without it"

    Error.new(
      :unknown_patch,
      "the archive of #{patch.id} is deleted: to look into it, or to apply it, upload it again#{applied}",
      %{id: patch.id}
    )
  end

  defp not_given(id, node, text) do
    {:error,
     Error.new(:unreachable, "the archive of #{id} is kept on #{node}, which #{text}", %{
       nodes: [node]
     })}
  end

  defp damaged(id, node) do
    {:error,
     Error.new(
       :damaged_patch,
       "the archive of #{id} on #{node} no longer has the digest of its id: delete it and upload it again",
       %{id: id, node: node}
     )}
  end

  @doc "Finds a patch by its id, its name, or the beginning of its id, if only one has that."
  @spec resolve(term()) :: {:ok, Patch.t()} | {:error, Error.t()}
  def resolve(id), do: resolve(id, census(id, nil))

  @doc "The same by what was answered already."
  @spec resolve(term(), Census.t()) :: {:ok, Patch.t()} | {:error, Error.t()}
  def resolve(%Patch{id: id}, census), do: resolve(id, census)

  def resolve(id, census) do
    # Who means none that there is shall hear of all.
    with {:error, %{reason: :unknown_patch}} <- among(patches(census), id),
         do: among(list(), id)
  end

  # Where nobody has answered, nothing is known of patches.
  defp among(%Answers{items: [], nodes: [], failed: [_ | _]} = patches, _id) do
    with :ok <- Readiness.check(),
         do: {:error, Error.new(:unmanaged, Enum.join(Answers.lines(patches), "; "))}
  end

  defp among(patches, id) do
    with {:error, error} <- PatchName.find(patches.items, Argument.text(id)) do
      # It may well be there, where nobody has answered.
      message = Enum.join([error.message | Answers.lines(patches)], "; ")
      {:error, %{error | message: message}}
    end
  end

  defp record(composition, name, by, release) do
    %{
      id: composition.id,
      name: name,
      sha256: composition.sha256,
      size: composition.size,
      files: length(composition.files),
      modules: length(Composition.modules(composition)),
      release: release,
      upgrade: composition.manifest && Manifest.to(composition.manifest),
      uploaded_at: DateTime.utc_now(),
      by: by,
      signed_by: Trust.signer(composition),
      follows: follows(composition.manifest)
    }
  end

  defp follows(%Manifest{follows: %{name: name, modules: modules}}),
    do: %{name: name, modules: Map.keys(modules)}

  defp follows(_no_manifest_or_alone), do: nil

  defp bound_to(%{manifest: %Manifest{release: %Release{} = release}} = composition, asked) do
    if asked in [nil, {release.name, release.version}] do
      {:ok, release}
    else
      {:error,
       Error.new(
         :invalid_option,
         "upload: option :release is #{inspect(asked)}, but the manifest of #{composition.id} says that it is " <>
           "for #{release}",
         %{option: :release}
       )}
    end
  end

  defp bound_to(_composition, {name, version}),
    do: {:ok, %Release{name: name, version: version}}

  # An operator's own node runs nothing that a patch could be for: it is for what the others run.
  defp bound_to(_composition, nil) do
    current = Release.current()

    if Release.none?(current),
      do: one_system(current, Cluster.infos(Cluster.everyone() -- [node()]), "upload"),
      else: {:ok, current}
  end

  # What nodes run, if that is one thing. Where they run nothing either it shows when there are others.
  defp one_system(none, infos, call) do
    running = for %{managed?: true} = info <- infos, not Release.none?(info.release), do: info

    case running |> Enum.map(& &1.release) |> Enum.uniq() do
      [] -> {:ok, none}
      [one] -> {:ok, one}
      _several -> {:error, several(running, call)}
    end
  end

  defp several(running, call) do
    systems =
      running
      |> Enum.group_by(&to_string(&1.release), & &1.node)
      |> Enum.map_join("; ", fn {release, nodes} -> "#{release} on #{Enum.join(nodes, ", ")}" end)

    Error.new(
      :invalid_option,
      "#{call}: the nodes run different systems (#{systems}), and the archive does not say for which of them " <>
        "the patch is: upload it with release: {\"name\", \"version\"}",
      %{option: :release}
    )
  end

  @doc "A patch that was uploaded where no system ran is for what the nodes run, if that is one thing."
  @spec bound(Payload.t(), map(), [NodeInfo.t()]) ::
          {:ok, Payload.t(), map()} | {:error, Error.t()}
  def bound(%Payload{kind: :apply, release: release} = payload, about, members) do
    if Release.none?(release) do
      with {:ok, system} <- one_system(release, members, payload.patch),
           do: {:ok, %{payload | release: system}, %{about | release: system}}
    else
      {:ok, payload, about}
    end
  end

  def bound(payload, about, _members), do: {:ok, payload, about}

  defp patch(record, known) do
    applied_on = Map.get(known, :applied_on, [])

    state =
      cond do
        # An upgrade is in force in the release to which it has led.
        applied_on != [] -> :applied
        retired?(record.release) -> :retired
        before?(record.uploaded_at, known[:retired_at]) -> :retired
        known[:rolled_back?] -> :rolled_back
        true -> :uploaded
      end

    facts = %{kept_on: known.kept_on, applied_on: applied_on, state: state}
    struct!(Patch, Map.merge(record, facts))
  end

  defp before?(_uploaded_at, nil), do: false
  defp before?(uploaded_at, retired_at), do: DateTime.compare(uploaded_at, retired_at) == :lt

  # Another name is another kind of node, which has patches of its own.
  defp retired?(release) do
    current = Release.current()

    not Release.none?(current) and release.name == current.name and
      release.version != current.version
  end
end
