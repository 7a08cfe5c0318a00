defmodule HotPatch.Store do
  @moduledoc false
  # Where a node keeps what it was given: archives and the record of applied patches.
  # Knows files and nothing of processes. Every node has a folder of its own, also when
  # several share one release directory.

  alias HotPatch.Release

  @doc """
  The data directory of this node.

  `config :hot_patch, data_dir: path`, else `hot_patch/NODE` inside the release, else the
  user's data directory.
  """
  @spec directory() :: Path.t()
  def directory do
    Path.join(
      Application.get_env(:hot_patch, :data_dir) || default(Release.root()),
      Atom.to_string(node())
    )
  end

  defp default(nil), do: :filename.basedir(:user_data, "hot_patch") |> to_string()
  defp default(root), do: Path.join(root, "hot_patch")

  @doc "Where this node keeps files by their digests."
  @spec blobs() :: Path.t()
  def blobs, do: Path.join(directory(), "blobs")

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

  @doc "Writes a file, flushed, whole or not at all."
  @spec write(Path.t(), iodata()) :: :ok | {:error, File.posix()}
  def write(path, data) do
    temporary = "#{path}.#{System.unique_integer([:positive])}.tmp"

    with :ok <- File.mkdir_p(Path.dirname(path)),
         :ok <- write_flushed(temporary, data),
         :ok <- File.rename(temporary, path) do
      :ok
    else
      error ->
        _ = File.rm(temporary)
        error
    end
  end

  @doc "Writes a file and has the disk confirm it."
  @spec write_flushed(Path.t(), iodata()) :: :ok | {:error, File.posix()}
  def write_flushed(path, data) do
    with {:ok, device} <- :file.open(path, [:write, :raw, :binary]) do
      result = with :ok <- :file.write(device, data), do: :file.sync(device)
      _ = :file.close(device)
      result
    end
  end
end
