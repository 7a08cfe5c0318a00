defmodule HotPatch.Cluster.Antipatch do
  @moduledoc false
  # The reverse of an applied patch as an archive of its own, from a node that has it applied.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Catalog
  alias HotPatch.Error
  alias HotPatch.Store

  @within 30_000

  @typedoc "`apply_with` are the options by which it has to be applied, to go the way the patch came."
  @type t :: %{
          zip: binary(),
          files: [Path.t()],
          left_out: [Path.t()],
          apply_with: [transition: :suspend | :none, on_load: :restart | :load, again: true]
        }

  @doc "Makes the zip, and writes it where a path is given."
  @spec export(String.t(), Path.t() | nil) :: {:ok, t()} | {:error, Error.t()}
  def export(id, to) do
    with {:ok, patch} <- Catalog.resolve(id),
         {:ok, files, way} <- former(patch),
         :ok <- unmoved(files, patch.id),
         {with_bytes, without} = Enum.split_with(files, &elem(&1, 1)),
         {:ok, zip} <- zip(with_bytes, patch.id),
         :ok <- write(to, zip) do
      {:ok,
       %{
         zip: zip,
         files: paths(with_bytes),
         left_out: paths(without),
         apply_with: apply_with(way)
       }}
    end
  end

  # What was in force before may be an earlier patch, which comes back only where that is meant.
  defp apply_with(way) do
    again = if way.again, do: [again: true], else: []
    [transition: way.transition, on_load: way.on_load] ++ again
  end

  defp former(%{applied_on: []} = patch) do
    {:error, Error.new(:not_applied, "export_antipatch #{patch.id}: no node has it applied")}
  end

  # This node's own first: in an incident the others may not answer.
  defp former(patch) do
    nodes = Enum.sort_by(patch.applied_on, &(&1 != node()))

    Enum.find_value(nodes, gone(patch), fn node ->
      case Cluster.call([node], :former, [patch.id], @within) do
        [{_node, {:ok, {:ok, files, way}}}] -> {:ok, files, way}
        _ -> nil
      end
    end)
  end

  defp gone(patch) do
    {:error,
     Error.new(
       :file,
       "export_antipatch #{patch.id}: none of #{Enum.join(patch.applied_on, ", ")} can give what it had before"
     )}
  end

  # An archive without a manifest cannot say that a module goes from one place and comes to another.
  defp unmoved(files, id) do
    added = for {path, nil} <- files, Path.extname(path) == ".beam", do: Path.basename(path)

    case for {path, bytes} <- files, bytes != nil, Path.basename(path) in added, do: path do
      [] ->
        :ok

      paths ->
        {:error,
         Error.new(
           :file,
           "export_antipatch #{id}: it has moved a module from #{Enum.join(paths, ", ")}, which a zip of " <>
             "former files cannot take back: use HotPatch.rollback/2"
         )}
    end
  end

  defp zip([], id) do
    {:error,
     Error.new(
       :file,
       "export_antipatch #{id}: it has only added files, so there is nothing to go back to"
     )}
  end

  defp zip(files, _id) do
    entries = for {path, bytes} <- files, do: {String.to_charlist(path), bytes}
    {:ok, {_name, zip}} = :zip.create(~c"antipatch.zip", entries, [:memory])
    {:ok, zip}
  end

  defp write(nil, _zip), do: :ok

  defp write(path, zip) do
    # What it brings back may be a private key.
    with {:error, posix} <- Store.write_private(path, zip) do
      {:error,
       Error.new(
         :file,
         "export_antipatch: cannot write #{path} on #{node()}: #{:file.format_error(posix)}"
       )}
    end
  end

  defp paths(files), do: Enum.map(files, &elem(&1, 0))
end
