defmodule HotPatch.Store.FreeSpace do
  @moduledoc false
  # What the system says of its disks: how much room there is, whether one may be written at all,
  # and as whom this VM writes. What it does not say is unknown, and counts as no obstacle.

  alias HotPatch.Support.Isolated

  # Milliseconds: a disk of another machine may not answer.
  @within 2_000

  @doc """
  Whether there is room for what is to be written into files. A disk that is known to have less is
  named by the first of them.
  """
  @spec enough([{Path.t(), non_neg_integer()}]) :: :ok | {:error, {Path.t(), :enospc}}
  def enough(writes) do
    writes
    |> Enum.group_by(fn {path, _size} -> device(path) end)
    |> Enum.find_value(:ok, fn {_device, [{path, _size} | _] = writes} ->
      needed = writes |> Enum.map(&elem(&1, 1)) |> Enum.sum()
      free = if needed > 0, do: free(path), else: :unknown
      if is_integer(free) and free < needed, do: {:error, {path, :enospc}}
    end)
  end

  defp device(path) do
    with {:ok, stat} <- File.stat(existing(path)), do: stat.major_device
  end

  @doc """
  The free bytes of the disk that has, or would have, a file. With what is kept for the superuser: it is
  never less than what can be written.
  """
  @spec free(Path.t()) :: non_neg_integer() | :unknown
  def free(path) do
    with text when is_binary(text) <- df(existing(path)),
         # Blocks of 1 kB in all, used, and free for everybody; names of devices may have blanks.
         [all, used] <-
           Regex.run(~r/\s(\d+)\s+(\d+)\s+-?\d+\s+\d+%\s/, text, capture: :all_but_first) do
      max(String.to_integer(all) - String.to_integer(used), 0) * 1024
    else
      _unknown -> :unknown
    end
  end

  defp existing(path), do: if(File.exists?(path), do: path, else: existing(Path.dirname(path)))

  defp df(path) do
    case Isolated.run(fn -> said_by_df(path) end, @within) do
      {:ok, {text, 0}} -> text
      _failed_or_late -> :unknown
    end
  end

  defp said_by_df(path) do
    System.cmd("df", ["-Pk", "--", path], stderr_to_stdout: true, env: [{"LC_ALL", "C"}])
  rescue
    # No such program.
    _error in [ErlangError] -> :no_program
  end

  @doc "Whether a file or folder lies on a disk that is mounted to be read only."
  @spec read_only?(Path.t()) :: boolean()
  def read_only?(path) do
    with {:ok, mounts} <- File.read("/proc/self/mountinfo"),
         [_ | _] = found <- for(line <- String.split(mounts, "\n"), m <- mount(line, path), do: m) do
      {_folder, options} = Enum.max_by(found, fn {folder, _options} -> byte_size(folder) end)
      "ro" in String.split(options, ",")
    else
      _unknown -> false
    end
  end

  # "36 35 98:0 /root /folder ro,noatime ..."; blanks and the like are written as octal numbers.
  defp mount(line, path) do
    case String.split(line, " ") do
      [_id, _parent, _device, _root, folder, options | _] ->
        folder =
          Regex.replace(~r/\\([0-7]{3})/, folder, fn _, n -> <<String.to_integer(n, 8)>> end)

        below = if folder == "/", do: "/", else: folder <> "/"
        if path == folder or String.starts_with?(path, below), do: [{folder, options}], else: []

      _ ->
        []
    end
  end

  @doc "The number of the user as whom this VM writes; nil where that is not known."
  @spec user() :: non_neg_integer() | nil
  def user do
    case File.stat("/proc/self") do
      {:ok, %File.Stat{uid: uid}} -> uid
      {:error, _posix} -> nil
    end
  end
end
