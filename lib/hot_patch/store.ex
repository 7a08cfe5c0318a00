defmodule HotPatch.Store do
  @moduledoc false
  # Where a node keeps what it was given: archives and the record of applied patches.
  # Knows files and nothing of processes. Every node has a folder of its own, also when
  # several share one release directory.

  alias HotPatch.Host.Config
  alias HotPatch.Release
  alias HotPatch.Support.FileName

  # What is kept may be anything that the host has: keys below priv, passwords in its settings.
  @private 0o600
  @private_folder 0o700

  @doc """
  The data directory of this node.

  `config :hot_patch, data_dir: path`, else `hot_patch/NODE` inside the release, else the
  user's data directory.
  """
  @spec directory() :: Path.t()
  def directory, do: directory(Config.current().data_dir)

  @doc "What it would be with this value of the option; `nil` is none."
  @spec directory(Path.t() | nil) :: Path.t()
  def directory(data_dir),
    do: Path.join(data_dir || default(Release.root()), Atom.to_string(node()))

  defp default(nil), do: :user_data |> :filename.basedir("hot_patch") |> FileName.to_binary()
  defp default(root), do: Path.join(root, "hot_patch")

  @doc "Where this node, or one whose data is in another folder, keeps files by their digests."
  @spec blobs(Path.t()) :: Path.t()
  def blobs(folder \\ directory()), do: Path.join(folder, "blobs")

  @doc "Reads a term that `write_term/2` has written; `:error` if it is missing or damaged."
  @spec read_term(Path.t()) :: {:ok, term()} | :error
  def read_term(path) do
    with {:ok, <<digest::binary-size(32), etf::binary>>} <- File.read(path),
         ^digest <- :crypto.hash(:sha256, etf) do
      {:ok, :erlang.binary_to_term(etf)}
    else
      _ -> :error
    end
  end

  @doc "Writes a term with its digest, whole or not at all."
  @spec write_term(Path.t(), term()) :: :ok | {:error, File.posix()}
  def write_term(path, term) do
    etf = :erlang.term_to_binary(term)
    write(path, [:crypto.hash(:sha256, etf), etf])
  end

  @doc "Writes a file, flushed, whole or not at all. Nobody else may read it unless `mode` says so."
  @spec write(Path.t(), iodata(), non_neg_integer()) :: :ok | {:error, File.posix()}
  def write(path, data, mode \\ @private) do
    with :ok <- place(path, data, mode), do: flush_folder(Path.dirname(path))
  end

  @doc "The same, but that its name is there after a power cut only when its folder is flushed."
  @spec place(Path.t(), iodata(), non_neg_integer()) :: :ok | {:error, File.posix()}
  def place(path, data, mode \\ @private) do
    # Random: what this VM counts, another node with the same folder counts as well.
    temporary = temporary(path)

    with :ok <- make_folder(Path.dirname(path)),
         :ok <- write_flushed(temporary, data, mode),
         :ok <- File.rename(temporary, path) do
      :ok
    else
      error ->
        _ = File.rm(temporary)
        error
    end
  end

  @doc "Removes what writes of this file that were cut short have left; nobody may write it now."
  @spec remove_temporaries(Path.t()) :: :ok
  def remove_temporaries(path) do
    folder = Path.dirname(path)
    # No more than that: `PATH.lock` may have temporary files of its own.
    pattern = ~r/\A#{Regex.escape(Path.basename(path))}\.[0-9A-F]{16}\.tmp\z/

    with {:ok, names} <- File.ls(folder) do
      for name <- names, name =~ pattern, do: _ = File.rm(Path.join(folder, name))
    end

    :ok
  end

  @doc "Removes what writes into the folder of this node have left that were cut short by its end."
  @spec remove_all_temporaries(Path.t()) :: :ok
  def remove_all_temporaries(folder) do
    for {:ok, names} <- [File.ls(folder)], name <- names, path = Path.join(folder, name) do
      _ = if name =~ ~r/\.[0-9A-F]{16}\.tmp\z/, do: File.rm_rf(path)
      # What a link leads to is not of this folder.
      with {:ok, %File.Stat{type: :directory}} <- File.lstat(path),
           do: remove_all_temporaries(path)
    end

    :ok
  end

  @doc "A name beside a path for what is removed by the next start, should this one leave it behind."
  @spec temporary(Path.t()) :: Path.t()
  def temporary(path), do: "#{path}.#{Base.encode16(:crypto.strong_rand_bytes(8))}.tmp"

  @doc "Writes a file and has the disk confirm it. Its mode is set while it is still empty."
  @spec write_flushed(Path.t(), iodata(), non_neg_integer()) :: :ok | {:error, File.posix()}
  def write_flushed(path, data, mode \\ @private), do: fill(path, data, mode, &:file.sync/1)

  @doc "Writes a file for the node's own user alone; a power cut may take it away."
  @spec write_private(Path.t(), iodata()) :: :ok | {:error, File.posix()}
  def write_private(path, data), do: fill(path, data, @private, fn _device -> :ok end)

  defp fill(path, data, mode, confirm) do
    with {:ok, device} <- :file.open(path, [:write, :raw, :binary]) do
      result =
        with :ok <- File.chmod(path, mode),
             :ok <- :file.write(device, data),
             do: confirm.(device)

      _ = :file.close(device)
      result
    end
  end

  @doc """
  Makes a folder and those above it; a power cut does not take them away again. What is within
  this node's data directory is for its own user only.
  """
  @spec make_folder(Path.t()) :: :ok | {:error, File.posix()}
  def make_folder(folder) do
    above = Path.dirname(folder)

    if File.dir?(folder) do
      :ok
    else
      with :ok <- make_folder(above),
           # Another process may make it at the same time.
           result when result in [:ok, {:error, :eexist}] <- File.mkdir(folder),
           :ok <- close(folder),
           do: flush_folder(above)
    end
  end

  defp close(folder) do
    own = directory()

    if folder == own or String.starts_with?(folder, own <> "/"),
      do: File.chmod(folder, @private_folder),
      else: :ok
  end

  @doc """
  Has the disk confirm which files a folder has: a new or renamed file is on disk when its
  folder is. Where folders cannot be flushed there is nothing better to do.
  """
  @spec flush_folder(Path.t()) :: :ok
  def flush_folder(folder) do
    with {:ok, device} <- :file.open(folder, [:read, :raw, :directory]) do
      _ = :file.sync(device)
      _ = :file.close(device)
    end

    :ok
  end
end
