defmodule HotPatch.Cluster.Library do
  @moduledoc false
  # The archives of the whole cluster: each is kept where it was uploaded, and fetched
  # from there by the node that needs it.

  alias HotPatch.Archive
  alias HotPatch.Argument
  alias HotPatch.Cluster
  alias HotPatch.Cluster.PatchName
  alias HotPatch.Composition
  alias HotPatch.Error
  alias HotPatch.Manifest
  alias HotPatch.Patch
  alias HotPatch.Readiness
  alias HotPatch.Release
  alias HotPatch.Store.Archives
  alias HotPatch.Store.Journal
  alias HotPatch.Trust

  # How long a node may take to answer about archives.
  @within 30_000

  @doc """
  Takes an archive in: reads it, and keeps it if it is accepted. It is called as was given, or as
  its manifest calls it, or else by the default.
  """
  @spec upload(
          binary(),
          {given :: String.t() | nil, default :: String.t()},
          String.t(),
          String.t() | nil
        ) ::
          {:ok, Patch.t()} | {:error, Exception.t()}
  def upload(bytes, {given, default}, by, from) do
    with :ok <- Readiness.check(),
         {:ok, composition} <- Archive.read(bytes, given || default),
         name = given || declared_name(composition.manifest) || default,
         composition = %{composition | id: Archive.id(name, composition.sha256)},
         :ok <- admitted(composition) do
      record = record(composition, name, by)

      case Archives.put(record, bytes) do
        :ok ->
          facts = Map.take(record, [:by, :release, :signed_by])
          _ = Journal.add(:upload, Map.merge(facts, %{patch: record.id, from: from}))
          {:ok, patch(kept(record), %{kept_on: [node()]})}

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
  end

  defp declared_name(nil), do: nil
  defp declared_name(manifest), do: manifest.name

  # The nodes look again when it is applied, each by its own configuration.
  defp admitted(composition) do
    with {:error, error} <- Trust.check(composition, composition.files) do
      {:error, %{error | message: "upload #{composition.id}: #{error.message}"}}
    end
  end

  @doc "All patches of the cluster, newest first."
  @spec list() :: [Patch.t()]
  def list do
    case all() do
      {:ok, patches} -> patches
      {:error, error} -> raise error
    end
  end

  # Where no node runs HotPatch, nothing is known of patches.
  defp all do
    case for %{managed?: true, node: node} <- Cluster.infos(Cluster.everyone()), do: node do
      [] -> {:error, Readiness.error()}
      nodes -> {:ok, list(nodes)}
    end
  end

  defp list(nodes) do
    kept =
      for {node, {:ok, records}} <- Cluster.call(nodes, :archives, [], @within),
          record <- records,
          do: {record.id, {:kept, node, record}}

    # What was applied is known also when its archive is gone.
    history =
      for {node, {:ok, history}} <- Cluster.call(nodes, :history, [], @within),
          do: {node, history}

    applied = for {node, h} <- history, about <- h.abouts, do: {about.id, {:applied, node, about}}
    back = for {_node, h} <- history, op <- latest(h.ops), op.kind == :rollback, do: op.patch
    retired = Enum.reduce(history, %{}, fn {_node, h}, all -> Map.merge(all, h.retired) end)

    (kept ++ applied)
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.map(fn {id, found} ->
      patch(record(found), %{
        kept_on: for({:kept, node, _} <- found, do: node) |> Enum.sort(),
        applied_on: for({:applied, node, _} <- found, do: node) |> Enum.sort(),
        rolled_back?: id in back,
        retired_at: retired[id]
      })
    end)
    |> Enum.sort_by(& &1.uploaded_at, {:desc, DateTime})
  end

  defp record(found) do
    {_what, _node, record} = Enum.find(found, hd(found), &(elem(&1, 0) == :kept))
    record
  end

  # Of each patch.
  defp latest(ops), do: ops |> Enum.sort_by(& &1.seq, :desc) |> Enum.uniq_by(& &1.patch)

  @doc "Finds a patch as `resolve/1` does, and reads its archive."
  @spec open(String.t()) :: {:ok, Composition.t(), Patch.t()} | {:error, Exception.t()}
  def open(id) do
    with {:ok, patch, bytes} <- find(id),
         {:ok, composition} <- Archive.read(bytes, patch.name) do
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
  def about(patch) do
    Map.take(patch, [
      :id,
      :name,
      :sha256,
      :size,
      :files,
      :modules,
      :release,
      :uploaded_at,
      :by,
      :signed_by
    ])
  end

  @doc "Forgets an archive on every node."
  @spec delete(String.t(), %{
          :by => String.t(),
          :reason => String.t() | nil,
          :from => String.t() | nil,
          optional(atom()) => term()
        }) :: :ok | {:error, Error.t()}
  def delete(id, record) do
    with {:ok, patch} <- resolve(id),
         :ok <- deletable(patch) do
      failures =
        for {node, answer} <- Cluster.call(patch.kept_on, :forget, [patch.id], @within),
            answer not in [{:ok, :ok}, {:ok, :unknown}],
            do: "#{node}: #{inspect(answer)}"

      if failures == [] do
        _ =
          Journal.add(:delete, Map.put(Map.take(record, [:by, :reason, :from]), :patch, patch.id))

        :ok
      else
        {:error,
         Error.new(:file, "delete: #{patch.id} is still kept: #{Enum.join(failures, "; ")}")}
      end
    end
  end

  defp deletable(%Patch{kept_on: []} = patch) do
    {:error,
     Error.new(
       :unknown_patch,
       "delete: the archive of #{patch.id} is deleted already; what it has applied stays"
     )}
  end

  defp deletable(_patch), do: :ok

  # An earlier upload of the same archive keeps its record.
  defp kept(record) do
    case Archives.fetch(record.id) do
      {:ok, first, _bytes} -> first
      _gone_again -> record
    end
  end

  # This node's own copy first: in an incident the others may not answer.
  defp find(id) do
    with {:ok, patch} <- resolve(id) do
      nodes = Enum.sort_by(patch.kept_on, &(&1 != node()))
      with {:ok, _record, bytes} <- fetch(%{patch | kept_on: nodes}), do: {:ok, patch, bytes}
    end
  end

  # One after another: the first good copy is enough.
  defp fetch(%Patch{id: id, kept_on: nodes} = patch) do
    Enum.reduce_while(nodes, {:error, deleted(patch)}, fn node, _error ->
      case Cluster.call([node], :archive, [id], @within) do
        [{_node, {:ok, {:ok, record, bytes}}}] -> {:halt, {:ok, record, bytes}}
        [{_node, {:ok, :damaged}}] -> {:cont, damaged(id, node)}
        [{_node, {:ok, :unknown}}] -> {:cont, {:error, deleted(patch)}}
        [{_node, {:error, text}}] -> {:cont, not_given(id, node, text)}
      end
    end)
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
  def resolve(%Patch{id: id}), do: resolve(id)

  def resolve(id),
    do: with({:ok, patches} <- all(), do: PatchName.find(patches, Argument.text(id)))

  defp record(composition, name, by) do
    %{
      id: composition.id,
      name: name,
      sha256: composition.sha256,
      size: composition.size,
      files: length(composition.files),
      modules: length(Composition.modules(composition)),
      release: bound_to(composition.manifest),
      uploaded_at: DateTime.utc_now(),
      by: by,
      signed_by: Trust.signer(composition)
    }
  end

  defp bound_to(%Manifest{release: %Release{} = release}), do: release

  # An operator's own node runs nothing that a patch could be for: it is for what the others run,
  # if that is one thing.
  defp bound_to(_says_nothing) do
    current = Release.current()

    with true <- Release.none?(current), [other] <- others_run() do
      other
    else
      _ -> current
    end
  end

  defp others_run do
    for %{managed?: true, release: release} <- Cluster.infos(Cluster.everyone() -- [node()]),
        not Release.none?(release),
        uniq: true,
        do: release
  end

  defp patch(record, known) do
    applied_on = Map.get(known, :applied_on, [])

    state =
      cond do
        retired?(record.release) -> :retired
        applied_on != [] -> :applied
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
