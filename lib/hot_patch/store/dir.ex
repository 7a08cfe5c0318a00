defmodule HotPatch.Store.Dir do
  @moduledoc false
  # What a folder holds, by plain names. The names of the folders above are the host's: they may
  # have blanks, brackets, braces, stars, line breaks and letters of any script in them, so no path
  # is ever taken for a pattern.

  @doc "The files in a folder whose names end so, in the order of their names."
  @spec files(Path.t(), String.t()) :: [Path.t()]
  def files(folder, ending),
    do: for(name <- names(folder), String.ends_with?(name, ending), do: Path.join(folder, name))

  @doc "The folders in a folder."
  @spec folders(Path.t()) :: [Path.t()]
  def folders(folder) do
    for name <- names(folder), path = Path.join(folder, name), File.dir?(path), do: path
  end

  @doc """
  Everything below a folder, itself included, the deepest last. Links are named and not followed.
  """
  @spec tree(Path.t()) :: [{Path.t(), File.Stat.t()}]
  def tree(path) do
    case File.lstat(path) do
      {:ok, %File.Stat{type: :directory} = stat} ->
        [{path, stat} | Enum.flat_map(names(path), &tree(Path.join(path, &1)))]

      {:ok, stat} ->
        [{path, stat}]

      {:error, _posix} ->
        []
    end
  end

  defp names(folder) do
    case File.ls(folder) do
      {:ok, names} -> Enum.sort(names)
      {:error, _posix} -> []
    end
  end
end
