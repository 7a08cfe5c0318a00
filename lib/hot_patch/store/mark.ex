defmodule HotPatch.Store.Mark do
  @moduledoc false
  # Tells a file that was put somewhere from one that is there later: by its content, and, because an
  # installer may bring the very same content, by whether it was written again.

  @typedoc "Inode and time of the last write. A rename keeps both; whoever writes the file changes one."
  @type stamp :: {inode :: non_neg_integer(), mtime :: integer()}

  # A chain of more links than this is a circle.
  @most_links 40

  @doc "Where a file really is, and its stamp, nil if there is none."
  @spec of(Path.t()) :: %{real: Path.t(), stamp: stamp() | nil}
  def of(path), do: %{real: real(path), stamp: stamp(path)}

  @doc "The stamp of a file as it is now."
  @spec stamp(Path.t()) :: stamp() | nil
  def stamp(path) do
    case File.stat(path, time: :posix) do
      {:ok, %File.Stat{inode: inode, mtime: mtime}} -> {inode, mtime}
      {:error, _posix} -> nil
    end
  end

  @doc "The digest of a file as it is now; nil if there is none."
  @spec digest(Path.t()) :: <<_::256>> | nil
  def digest(path) do
    case File.read(path) do
      {:ok, bytes} -> :crypto.hash(:sha256, bytes)
      {:error, _posix} -> nil
    end
  end

  @doc """
  The path without symbolic links, also those of folders: a link to the folder of the current version
  leads elsewhere after an upgrade.
  """
  @spec real(Path.t()) :: Path.t()
  def real(path), do: path |> Path.expand() |> resolve(@most_links)

  defp resolve(path, 0), do: path

  defp resolve(path, left) do
    [root | parts] = Path.split(path)
    follow(parts, root, left)
  end

  defp follow([], done, _left), do: done

  defp follow([part | rest], done, left) do
    here = Path.join(done, part)

    case File.read_link(here) do
      {:ok, link} -> [Path.expand(link, done) | rest] |> Path.join() |> resolve(left - 1)
      {:error, _no_link} -> follow(rest, here, left)
    end
  end
end
