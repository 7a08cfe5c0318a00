defmodule HotPatch.Cluster.Library do
  @moduledoc false
  # The archives of the whole cluster: each is kept where it was uploaded, and fetched
  # from there by the node that needs it.

  alias HotPatch.Archive
  alias HotPatch.Cluster
  alias HotPatch.Composition
  alias HotPatch.Error
  alias HotPatch.Patch
  alias HotPatch.Release
  alias HotPatch.Store.Archives

  # How long a node may take to answer about archives.
  @within 30_000

  @doc "Takes an archive in: reads it, and keeps it if it is accepted."
  @spec upload(binary(), String.t(), String.t()) :: {:ok, Patch.t()} | {:error, Exception.t()}
  def upload(bytes, name, by) do
    with {:ok, composition} <- Archive.read(bytes, name) do
      record = record(composition, name, by)

      case Archives.put(record, bytes) do
        :ok ->
          {:ok, patch(kept(record), [node()], [])}

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

  @doc "All patches of the cluster, newest first."
  @spec list() :: [Patch.t()]
  def list do
    infos = Enum.filter(Cluster.infos([node() | Node.list()]), & &1.managed?)
    nodes = Enum.map(infos, & &1.node)

    applied =
      Enum.reduce(infos, %{}, fn info, applied ->
        Enum.reduce(info.applied, applied, fn id, applied ->
          Map.update(applied, id, [info.node], &[info.node | &1])
        end)
      end)

    for(
      {node, {:ok, records}} <- Cluster.call(nodes, :archives, [], @within),
      record <- records,
      do: {node, record}
    )
    |> Enum.group_by(fn {_node, record} -> record.id end)
    |> Enum.map(fn {id, [{_node, record} | _] = copies} ->
      patch(record, copies |> Enum.map(&elem(&1, 0)) |> Enum.sort(), Enum.sort(applied[id] || []))
    end)
    |> Enum.sort_by(& &1.uploaded_at, {:desc, DateTime})
  end

  @doc "Finds a patch by its id, or by its name if only one has it, and reads its archive."
  @spec open(String.t()) :: {:ok, Composition.t(), Release.t()} | {:error, Exception.t()}
  def open(id) do
    with {:ok, record, bytes} <- find(id),
         {:ok, composition} <- Archive.read(bytes, record.name) do
      if composition.id == record.id,
        do: {:ok, composition, record.release},
        else: damaged(record.id, node())
    end
  end

  @doc "Whether a patch may be applied to what this node runs."
  @spec current(String.t(), Release.t()) :: :ok | {:error, Error.t()}
  def current(id, release) do
    if retired?(release) do
      {:error,
       Error.new(
         :retired,
         "#{id} is for #{release}, but this system is #{Release.current()}: patches end with " <>
           "the version they were made for, make a new one"
       )}
    else
      :ok
    end
  end

  @doc "Forgets an archive on every node."
  @spec delete(String.t()) :: :ok | {:error, Error.t()}
  def delete(id) do
    with {:ok, patch} <- resolve(id) do
      failures =
        for {node, answer} <- Cluster.call(patch.kept_on, :forget, [patch.id], @within),
            answer not in [{:ok, :ok}, {:ok, :unknown}],
            do: "#{node}: #{inspect(answer)}"

      if failures == [] do
        :ok
      else
        {:error,
         Error.new(:file, "delete: #{patch.id} is still kept: #{Enum.join(failures, "; ")}")}
      end
    end
  end

  # An earlier upload of the same archive keeps its record.
  defp kept(record) do
    case Archives.fetch(record.id) do
      {:ok, first, _bytes} -> first
      _gone_again -> record
    end
  end

  # This node's own copy first: in an incident the others may not answer.
  defp find(id) do
    case is_binary(id) && Archives.fetch(id) do
      {:ok, record, bytes} -> {:ok, record, bytes}
      _ -> with {:ok, patch} <- resolve(id), do: fetch(patch)
    end
  end

  # One after another: the first good copy is enough.
  defp fetch(%Patch{id: id, kept_on: nodes}) do
    Enum.reduce_while(nodes, {:error, unknown(id, [])}, fn node, _error ->
      case Cluster.call([node], :archive, [id], @within) do
        [{_node, {:ok, {:ok, record, bytes}}}] -> {:halt, {:ok, record, bytes}}
        [{_node, {:ok, :damaged}}] -> {:cont, damaged(id, node)}
        [{_node, _gone}] -> {:cont, {:error, unknown(id, [])}}
      end
    end)
  end

  defp damaged(id, node) do
    {:error,
     Error.new(
       :damaged_patch,
       "the archive of #{id} on #{node} no longer has the digest of its id: delete it and upload it again",
       %{id: id, node: node}
     )}
  end

  defp resolve(%Patch{id: id}), do: resolve(id)

  defp resolve(id) do
    patches = list()

    case Enum.filter(patches, &(&1.id == id)) ++ Enum.filter(patches, &(&1.name == id)) do
      [patch | _] when patch.id == id -> {:ok, patch}
      [patch] -> {:ok, patch}
      [] -> {:error, unknown(id, patches)}
      several -> {:error, ambiguous(id, several)}
    end
  end

  defp unknown(id, patches) do
    known =
      case patches do
        [] -> "none is uploaded, see HotPatch.upload/2"
        _ -> "there are #{Enum.map_join(patches, ", ", & &1.id)}"
      end

    Error.new(
      :unknown_patch,
      "no patch has the id #{inspect(id, printable_limit: 80)}: #{known}",
      %{id: id}
    )
  end

  defp ambiguous(name, patches) do
    ids = Enum.map(patches, & &1.id)

    Error.new(
      :ambiguous_patch,
      "several patches are named #{name}: say which of #{Enum.join(ids, ", ")}",
      %{candidates: ids}
    )
  end

  defp record(composition, name, by) do
    %{
      id: composition.id,
      name: name,
      sha256: composition.sha256,
      size: composition.size,
      files: length(composition.files),
      modules: length(Composition.modules(composition)),
      release: Release.current(),
      uploaded_at: DateTime.utc_now(),
      by: by
    }
  end

  defp patch(record, kept_on, applied_on) do
    state =
      cond do
        retired?(record.release) -> :retired
        applied_on != [] -> :applied
        true -> :uploaded
      end

    struct!(Patch, Map.merge(record, %{kept_on: kept_on, applied_on: applied_on, state: state}))
  end

  # Another name is another kind of node, which has patches of its own.
  defp retired?(release) do
    current = Release.current()
    release.name == current.name and release.version != current.version
  end
end
