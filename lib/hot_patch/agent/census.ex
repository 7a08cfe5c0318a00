defmodule HotPatch.Agent.Census do
  @moduledoc false
  # Every module of the host system that this node runs, with the digests of its code in
  # memory and on disk, and what patches have to do with it.

  alias HotPatch.Agent.Running
  alias HotPatch.Store.Applied
  alias HotPatch.SystemLibrary

  @type line :: %{
          module: String.t(),
          running: String.t(),
          disk: String.t() | nil,
          patch: String.t() | nil,
          restart: String.t() | nil,
          memory_only?: boolean()
        }

  @doc "One line for each module that belongs to no system library."
  @spec take() :: [line()]
  def take do
    patches = patches()

    for {module, _file} <- :code.all_loaded(),
        name = Atom.to_string(module),
        not String.ends_with?(name, "@hot_patch"),
        {:loaded, path} <- [Running.path(name)],
        not system?(path),
        %{md5: md5} <- [Running.facts(module)] do
      mine = Map.get(patches, name, %{patch: nil, restart: nil, memory_only?: false})
      Map.merge(mine, %{module: name, running: hex(md5), disk: disk(path)})
    end
  end

  # The last patch that touches each module.
  defp patches do
    for record <- Applied.list(), %{module: name} when name != nil <- record.files, into: %{} do
      memory_only? = Applied.memory_only?(record)
      {name, %{patch: record.id, restart: record.restart, memory_only?: memory_only?}}
    end
  end

  # What has no file at all was made in memory, and so is no part of the release.
  defp system?(:no_file), do: true

  defp system?(path) do
    case path |> Path.split() |> Enum.reverse() do
      [_file, "ebin", folder | _] ->
        SystemLibrary.application?(folder |> String.split("-") |> hd())

      _ ->
        false
    end
  end

  defp disk(path) do
    with {:ok, bytes} <- File.read(path), md5 when is_binary(md5) <- :code.module_md5(bytes) do
      hex(md5)
    else
      _missing_or_damaged -> nil
    end
  end

  defp hex(md5), do: Base.encode16(md5, case: :lower)
end
