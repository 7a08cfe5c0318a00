defmodule HotPatch.NodeAgent.FileDigests do
  @moduledoc false
  # The MD5 of modules' files. To measure those of a whole system takes a while, so what was
  # measured is kept as long as the file system says that a file is the same.
  #
  # This process only owns the table: who asks measures, reads and writes by itself. Without it
  # every file is measured each time.

  use GenServer

  # Seconds. A file may be written to again within the smallest time that its stamp can tell
  # apart, so of one that is younger nothing is kept.
  @settled 2

  # Files; a system has some thousand.
  @most 50_000

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "The MD5 of the module in a file; `nil` if there is no readable one."
  @spec md5(Path.t()) :: binary() | nil
  def md5(path) do
    with {:ok, stamp, changed_at} <- stamp(path),
         nil <- kept(path, stamp) do
      read_at = System.os_time(:second)
      md5 = measure(path)
      if read_at - changed_at >= @settled, do: keep(path, stamp, md5)
      md5
    else
      {:kept, md5} -> md5
      :error -> nil
    end
  end

  @doc """
  The bytes of a file, or `:error`. It is read past the file server, which the whole VM has in
  common.
  """
  @spec read(Path.t()) :: {:ok, binary()} | :error
  def read(path) do
    with {:ok, info} <- :file.read_file_info(path, [:raw]),
         {:ok, device} <- :file.open(path, [:raw, :read, :binary]) do
      result = :file.read(device, max(elem(info, 1), 1))
      :ok = :file.close(device)
      with no_bytes when no_bytes == :eof or elem(no_bytes, 0) == :error <- result, do: :error
    else
      {:error, _posix} -> :error
    end
  end

  @impl GenServer
  def init([]) do
    options = [:named_table, :public, read_concurrency: true, write_concurrency: true]
    _ = :ets.new(__MODULE__, options)
    {:ok, nil}
  end

  # What tells one content of a file from the next, and when the last came.
  defp stamp(path) do
    with {:ok, info} <- :file.read_file_info(path, [:raw, time: :posix]) do
      stat = File.Stat.from_record(info)
      stamp = {stat.size, stat.mtime, stat.ctime, stat.inode, stat.major_device}
      {:ok, stamp, max(stat.mtime, stat.ctime)}
    else
      {:error, _posix} -> :error
    end
  end

  defp measure(path) do
    with {:ok, bytes} <- read(path), md5 when is_binary(md5) <- :code.module_md5(bytes) do
      md5
    else
      _missing_or_damaged -> nil
    end
  end

  defp kept(path, stamp) do
    case :ets.lookup(__MODULE__, path) do
      [{_path, ^stamp, md5}] -> {:kept, md5}
      _unknown_or_changed -> nil
    end
  rescue
    # There is no table.
    ArgumentError -> nil
  end

  defp keep(path, stamp, md5) do
    if :ets.info(__MODULE__, :size) >= @most, do: :ets.delete_all_objects(__MODULE__)
    true = :ets.insert(__MODULE__, {path, stamp, md5})
  rescue
    ArgumentError -> true
  end
end
