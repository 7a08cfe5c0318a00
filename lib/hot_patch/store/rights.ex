defmodule HotPatch.Store.Rights do
  @moduledoc false
  # Who may read, write and run a file, and whose it is. A file that takes the place of another has
  # what that had. A new one has what its neighbours have, and may be run by those who may read it
  # where the archive says that it is a program.

  import Bitwise

  @type t :: %{mode: non_neg_integer(), uid: non_neg_integer(), gid: non_neg_integer()}

  @modes 0o7777
  # Which is dropped where the owner cannot be kept.
  @set_id 0o6000
  # So many neighbours tell what is usual in a folder.
  @most_asked 100

  @doc "Those of a file or folder; nil if there is none."
  @spec of(Path.t()) :: t() | nil
  def of(path) do
    case File.stat(path) do
      {:ok, stat} -> of_stat(stat)
      {:error, _posix} -> nil
    end
  end

  defp of_stat(stat), do: %{mode: stat.mode &&& @modes, uid: stat.uid, gid: stat.gid}

  @doc "Those that a new file is to have."
  @spec for_new(Path.t(), boolean()) :: t() | nil
  def for_new(path, executable?) do
    folder = Path.dirname(path)
    rights = usual(folder, Path.extname(path)) || below(folder)
    if rights && executable?, do: %{rights | mode: runnable(rights.mode)}, else: rights
  end

  # Files of the same kind say more than others do.
  defp usual(folder, extension) do
    case File.ls(folder) do
      {:ok, names} ->
        {alike, others} = Enum.split_with(names, &(Path.extname(&1) == extension))
        # That others are programs says nothing of this one.
        most_frequent(folder, alike, 0o777) || most_frequent(folder, others, 0o666)

      {:error, _posix} ->
        nil
    end
  end

  defp most_frequent(folder, names, mask) do
    rights =
      for name <- Enum.take(Enum.sort(names), @most_asked),
          {:ok, %File.Stat{type: :regular} = stat} <- [File.lstat(Path.join(folder, name))],
          do: of_stat(stat)

    case rights |> Enum.frequencies() |> Enum.sort_by(fn {rights, n} -> {-n, rights} end) do
      [] -> nil
      [{rights, _count} | _] -> %{rights | mode: rights.mode &&& mask}
    end
  end

  # Of a folder that is empty, or is to be made: as the nearest one above has it.
  defp below(folder) do
    case of(folder) do
      nil -> if Path.dirname(folder) != folder, do: below(Path.dirname(folder))
      rights -> %{rights | mode: rights.mode &&& 0o666}
    end
  end

  defp runnable(mode), do: mode ||| (mode &&& 0o444) >>> 2

  @doc "Makes missing folders, each with the rights of the one above it."
  @spec make_folders(Path.t()) :: :ok | {:error, File.posix()}
  def make_folders(folder) do
    if File.dir?(folder) do
      :ok
    else
      above = Path.dirname(folder)

      with :ok <- make_folders(above) do
        case File.mkdir(folder) do
          :ok -> give(folder, of(above))
          # Another node of this host makes it at the same time.
          {:error, :eexist} -> :ok
          error -> error
        end
      end
    end
  end

  @doc """
  Gives a file its rights. Only the superuser may give files away: for others the owner stays the
  node's own user, and of the mode what would make that a danger is dropped.
  """
  @spec give(Path.t(), t() | nil) :: :ok | {:error, File.posix()}
  def give(_path, nil), do: :ok

  def give(path, %{mode: mode, uid: uid, gid: gid}) do
    kept? = match?(%{uid: ^uid, gid: ^gid}, of(path)) or owned(path, uid, gid)
    File.chmod(path, if(kept?, do: mode, else: mode &&& bnot(@set_id)))
  end

  defp owned(path, uid, gid) do
    # The group alone may be one that the node's user is in.
    group = File.chgrp(path, gid)
    File.chown(path, uid) == :ok and group == :ok
  end
end
