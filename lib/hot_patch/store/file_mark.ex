defmodule HotPatch.Store.FileMark do
  @moduledoc false
  # Tells a file that was put somewhere from one that is there later: by its content, and, because an
  # installer may bring the very same content, by whether it was written again.

  alias HotPatch.Support.Folder

  @typedoc "Inode and time of the last write. A rename keeps both; whoever writes the file changes one."
  @type stamp :: {inode :: non_neg_integer(), mtime :: integer()}

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
  defdelegate real(path), to: Folder, as: :resolve
end
