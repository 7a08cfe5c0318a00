defmodule HotPatch.Support.Folder do
  @moduledoc false
  # What a folder holds, by plain names. The names of the folders above are the host's: they may
  # have blanks, brackets, braces, stars, line breaks and letters of any script in them, so no path
  # is ever taken for a pattern.

  # As many as Linux follows.
  @most_links 40

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

  @doc """
  What lies below a folder where a pattern says, by the path from there; names that begin with a dot are
  left out. The folder itself is none of the pattern.
  """
  @spec matching(Path.t(), String.t()) :: [Path.t()]
  def matching(folder, pattern) do
    for name <- :filelib.wildcard(String.to_charlist(pattern), String.to_charlist(folder)),
        path = to_string(name),
        not (path |> Path.split() |> Enum.any?(&String.starts_with?(&1, "."))),
        do: path
  end

  @doc """
  A path from the root, without `.` and `..`: as `Path.expand/1`, which walks along its characters and asks for
  the current folder each time. Most paths are like that already.

      iex> HotPatch.Support.Folder.absolute("/srv/./app/../app")
      "/srv/app"
  """
  @spec absolute(Path.t()) :: Path.t()
  def absolute(<<"/", _::binary>> = path) do
    if :binary.match(path, ["/.", "//"]) == :nomatch and :binary.last(path) != ?/,
      do: path,
      else: Path.expand(path)
  end

  def absolute(path), do: Path.expand(path)

  @doc "A path as the system names it: without links on the way. Of it nothing need be there."
  @spec resolve(Path.t()) :: Path.t()
  def resolve(path), do: path |> Path.expand() |> Path.split() |> resolve("/", @most_links)

  defp resolve([], done, _left), do: done
  # Links that lead in circles lead nowhere.
  defp resolve(rest, done, 0), do: Path.join([done | rest])

  defp resolve([part | rest], done, left) do
    path = Path.join(done, part)

    case File.read_link(path) do
      {:ok, link} ->
        resolve(Path.split(led(done, link)) ++ rest, "/", left - 1)

      {:error, _no_link} ->
        resolve(rest, path, left)
    end
  end

  @doc "Where a link in a folder leads."
  @spec led(Path.t(), Path.t()) :: Path.t()
  def led(folder, link) do
    # Made absolute by hand: a folder may be called ~ as well.
    if Path.type(link) == :absolute,
      do: Path.expand(link),
      else: Path.expand(Path.join(folder, link))
  end

  @doc "The names of what is in a folder, in their order; none where it cannot be read."
  @spec names(Path.t()) :: [String.t()]
  def names(folder) do
    case File.ls(folder) do
      {:ok, names} -> Enum.sort(names)
      {:error, _posix} -> []
    end
  end
end
