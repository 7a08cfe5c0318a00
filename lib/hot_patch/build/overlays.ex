defmodule HotPatch.Build.Overlays do
  @moduledoc false
  # What a release has beside its applications, its versions and its ERTS: scripts of its own in `bin`, and whatever
  # `rel/overlays` has put there. An upgrade brings folders that are new, and none of these is one: nodes keep what they
  # have, and whoever builds the upgrade is to know that.

  alias HotPatch.Support.Folder
  alias HotPatch.Support.Table

  # Of a copy of what a node has, these are the node's own.
  @others ~w(lib releases tmp log hot_patch)

  # So many are named.
  @named 5

  @doc "What is new or other in the second of two releases, in a sentence; nothing of tars."
  @spec told(Path.t(), Path.t()) :: [String.t()]
  def told(from, to) do
    case for(
           path <- beside(to),
           File.read(Path.join(from, path)) != File.read(Path.join(to, path)),
           do: path
         ) do
      [] ->
        []

      paths ->
        [
          "#{Table.some(paths, @named)}: new or other, and no part of an upgrade, which brings applications and the release's own " <>
            "folder: nodes keep what they have there, so bring them by hand where they are needed"
        ]
    end
  end

  defp beside(root) do
    paths =
      for name <- Folder.names(root),
          name not in @others and not String.starts_with?(name, "erts-"),
          {path, %File.Stat{type: :regular}} <- Folder.tree(Path.join(root, name)),
          do: Path.relative_to(path, root)

    Enum.reject(paths, &carried?(&1, paths))
  end

  # relx writes the version into the script that starts a release, `bin/NAME-VERSION`, of which `bin/NAME` is a copy: that
  # comes with the release.
  defp carried?("bin/" <> _name = path, paths) do
    Enum.any?(paths, fn other ->
      String.starts_with?(other, path <> "-") or String.starts_with?(path, other <> "-")
    end)
  end

  defp carried?(_path, _paths), do: false
end
