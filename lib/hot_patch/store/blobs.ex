defmodule HotPatch.Store.Blobs do
  @moduledoc false
  # Bytes under the name of their digest, one file each: the same bytes are kept once, and
  # what has changed on the disk shows when it is fetched.
  #
  # Several nodes may put into one folder at the same time. Who removes with `keep_only/2`
  # sees to it that nobody puts meanwhile.

  alias HotPatch.Store
  alias HotPatch.Support.Hex

  @type digest :: <<_::256>>

  # Hexadecimal digits of a digest.
  @name 64

  @doc "Keeps bytes. Nothing is written if they are there already, and undamaged."
  @spec put(Path.t(), binary()) :: {:ok, digest()} | {:error, {Path.t(), File.posix()}}
  def put(folder, bytes) do
    with {:ok, digest} <- add(folder, bytes) do
      # Also where they are: who wrote them may not have come to it yet.
      Store.flush_folder(folder)
      {:ok, digest}
    end
  end

  @doc "One of many: they are kept when the folder is flushed, once for all."
  @spec add(Path.t(), binary()) :: {:ok, digest()} | {:error, {Path.t(), File.posix()}}
  def add(folder, bytes) do
    digest = :crypto.hash(:sha256, bytes)
    path = path(folder, digest)

    case add_file(path, bytes) do
      :ok -> {:ok, digest}
      {:error, posix} -> {:error, {path, posix}}
    end
  end

  @doc "The bytes of a digest; `:damaged` if they cannot be read or no longer have it."
  @spec fetch(Path.t(), digest()) :: {:ok, binary()} | :unknown | :damaged
  def fetch(folder, <<_::256>> = digest) do
    case File.read(path(folder, digest)) do
      {:ok, bytes} -> if :crypto.hash(:sha256, bytes) == digest, do: {:ok, bytes}, else: :damaged
      {:error, posix} when posix in [:enoent, :enotdir] -> :unknown
      {:error, _posix} -> :damaged
    end
  end

  @doc "Whether there is a file for a digest, which need not be a good one."
  @spec there?(Path.t(), digest()) :: boolean()
  def there?(folder, digest) do
    case :file.read_file_info(path(folder, digest), [:raw]) do
      {:error, posix} when posix in [:enoent, :enotdir] -> false
      _there_or_not_to_be_told -> true
    end
  end

  @doc """
  Removes all but these, and what interrupted writes have left; says how many files that
  were, and their bytes. Files of other names stay.
  """
  @spec keep_only(Path.t(), MapSet.t(digest())) ::
          {removed_count :: non_neg_integer(), bytes_freed :: non_neg_integer()}
  def keep_only(folder, digests) do
    names = MapSet.new(digests, &Hex.encode/1)

    sizes =
      for {name, size} <- files(folder),
          not MapSet.member?(names, name),
          File.rm(Path.join(folder, name)) == :ok,
          do: size

    {length(sizes), Enum.sum(sizes)}
  end

  @doc "How many bytes the folder holds, with what interrupted writes have left."
  @spec size(Path.t()) :: non_neg_integer()
  def size(folder), do: folder |> files() |> Enum.map(&elem(&1, 1)) |> Enum.sum()

  defp add_file(path, bytes),
    do: if(File.read(path) == {:ok, bytes}, do: :ok, else: Store.place(path, bytes))

  # Those of this module, with their sizes.
  defp files(folder) do
    case File.ls(folder) do
      {:ok, names} ->
        for name <- names,
            ours?(name),
            {:ok, %File.Stat{type: :regular, size: size}} <- [File.lstat(Path.join(folder, name))],
            do: {name, size}

      {:error, _posix} ->
        []
    end
  end

  defp ours?(<<hex::binary-size(@name), rest::binary>>) do
    match?({:ok, _digest}, Base.decode16(hex, case: :lower)) and
      (rest == "" or String.ends_with?(rest, ".tmp"))
  end

  defp ours?(_name), do: false

  defp path(folder, digest), do: Path.join(folder, Hex.encode(digest))
end
