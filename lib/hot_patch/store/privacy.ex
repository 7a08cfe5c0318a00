defmodule HotPatch.Store.Privacy do
  @moduledoc false
  # The data directory of a node holds whatever patches have brought or replaced: private keys,
  # passwords in settings, code. It is for the node's own user alone. A start sees to that, and says
  # what others could read until then.

  import Bitwise

  alias HotPatch.Host.Config
  alias HotPatch.Store
  alias HotPatch.Support.Folder
  alias HotPatch.Support.Table

  @others 0o077

  @doc """
  Makes what is in the data directory private, and warns where it was not, where it cannot be made so,
  and where the directory cannot be used at all.
  """
  @spec check() :: :ok
  def check do
    folder = Store.directory()

    case usable(folder) do
      :ok -> close(folder)
      {:error, text} -> warn(text)
    end
  end

  # It is made when there is something to keep. Whether that can be done is asked, not tried.
  defp usable(folder) do
    case File.stat(folder) do
      {:ok, %File.Stat{type: :directory, access: access}} when access in [:write, :read_write] ->
        :ok

      {:ok, %File.Stat{type: :directory}} ->
        {:error, "#{folder} cannot be written, so that nothing can be uploaded or applied here"}

      {:ok, _file} ->
        {:error, "#{folder} is no folder, so that nothing can be uploaded or applied here"}

      {:error, :enoent} ->
        above(Path.dirname(folder), folder)

      {:error, posix} ->
        {:error,
         "#{folder} cannot be used (#{:file.format_error(posix)}), so that nothing can be uploaded or " <>
           "applied here"}
    end
  end

  defp above(folder, wanted) do
    case File.stat(folder) do
      {:ok, %File.Stat{type: :directory, access: access}} when access in [:write, :read_write] ->
        :ok

      {:error, :enoent} ->
        above(Path.dirname(folder), wanted)

      _refused ->
        {:error,
         "#{wanted} cannot be made, because #{folder} cannot be written; nothing can be uploaded or " <>
           "applied here"}
    end
  end

  defp close(folder) do
    open = for {path, stat} <- Folder.tree(folder), open?(stat), do: {path, stat}
    failed = for {path, stat} <- open, {:error, posix} <- [shut(path, stat)], do: {path, posix}

    # That a folder could be listed has shown nobody what is in its files.
    files = for {path, %File.Stat{type: :regular}} <- open, do: path

    cond do
      failed != [] -> still_open(failed)
      files != [] -> was_open(folder, files)
      true -> :ok
    end
  end

  # A link has no rights of its own, and what it leads to is not ours.
  defp open?(%File.Stat{type: type, mode: mode}),
    do: type in [:directory, :regular] and (mode &&& @others) != 0

  defp shut(path, %File.Stat{type: :directory}), do: File.chmod(path, 0o700)
  defp shut(path, _file), do: File.chmod(path, 0o600)

  defp was_open(folder, [first | _] = files) do
    warn(
      "other users of this host could read #{count(files)} in #{folder}, such as #{first}; now they " <>
        "cannot. What patches have brought or replaced may be known to others: change keys and " <>
        "passwords among it"
    )
  end

  defp still_open([{path, posix} | _] = failed) do
    warn(
      "other users of this host can read #{count(failed)}, such as #{path}, and this node cannot change " <>
        "that (#{:file.format_error(posix)}): chmod -R go-rwx #{Store.directory()}"
    )
  end

  defp warn(text), do: Config.warn(:data_directory, "config :hot_patch, data_dir: " <> text)
  defp count(files), do: Table.count(length(files), "file", "files")
end
