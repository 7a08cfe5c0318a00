defmodule HotPatch.Archive.Input do
  @moduledoc false
  # What a caller gives as an archive: a path or the bytes themselves.

  alias HotPatch.Archive.Tarball
  alias HotPatch.Error
  alias HotPatch.Host.Config
  alias HotPatch.Options.Argument

  @doc "The bytes of an archive, and the name that a patch gets by default."
  @spec read(term()) :: {:ok, binary(), String.t()} | {:error, Error.t()}
  def read([first | _] = charlist) when is_integer(first) do
    case Argument.text(charlist) do
      path when is_binary(path) -> read(path)
      no_text -> no_input(no_text)
    end
  end

  def read(path_or_bytes) when is_binary(path_or_bytes) do
    case :binary.match(path_or_bytes, <<0>>) do
      :nomatch -> read_file(path_or_bytes)
      _found -> {:ok, path_or_bytes, "patch"}
    end
  end

  def read(other), do: no_input(other)

  defp no_input(other) do
    {:error,
     Error.new(
       :file,
       "upload: expected a path or the bytes of a zip, got: #{inspect(other, limit: 5)}"
     )}
  end

  @doc """
  The same of what is uploaded: also the tarball of a release, of which the archive is made that takes what this node
  runs there.
  """
  @spec uploaded(term(), String.t()) :: {:ok, binary(), String.t()} | {:error, Error.t()}
  def uploaded([first | _] = charlist, by) when is_integer(first) do
    case Argument.text(charlist) do
      path when is_binary(path) -> uploaded(path, by)
      no_text -> no_input(no_text)
    end
  end

  def uploaded(<<0x1F, 0x8B, _::binary>> = bytes, by) do
    Tarball.with_file(bytes, fn path -> Tarball.archive(path, "release", by) end)
  end

  def uploaded(path_or_bytes, by) when is_binary(path_or_bytes) do
    with :nomatch <- :binary.match(path_or_bytes, <<0>>),
         true <- Tarball.tarball?(path_or_bytes) do
      name = path_or_bytes |> Path.basename() |> String.replace(~r/\.(tar\.gz|tgz|gz)\z/, "")
      Tarball.archive(path_or_bytes, plain(name), by)
    else
      _no_tarball -> read(path_or_bytes)
    end
  end

  def uploaded(other, _by), do: no_input(other)

  # One byte more than the limit is enough for the reader to refuse the archive.
  defp read_file(path) do
    # Anything but a plain file could keep the reader waiting for ever.
    config = Config.current()
    limit = max(config.max_archive_bytes, config.max_release_bytes)

    with {:ok, %File.Stat{type: :regular}} <- File.stat(path),
         {:ok, result} <- File.open(path, [:read, :raw, :binary], &:file.read(&1, limit + 1)) do
      case result do
        {:ok, bytes} -> {:ok, bytes, name(path)}
        :eof -> {:ok, "", name(path)}
        {:error, posix} -> unreadable(path, posix)
      end
    else
      {:ok, %File.Stat{type: :directory}} -> unreadable(path, :eisdir)
      {:ok, %File.Stat{}} -> unreadable(path, :einval)
      {:error, posix} -> unreadable(path, posix)
    end
  end

  defp unreadable(path, posix) do
    {:error,
     Error.new(
       :file,
       "upload: cannot read #{inspect(path, printable_limit: 200)} on #{node()}: #{:file.format_error(posix)}"
     )}
  end

  defp name(path), do: path |> Path.basename(".zip") |> plain()

  defp plain(name) do
    name =
      name
      |> String.replace(~r/[^A-Za-z0-9._-]/, "_")
      |> String.slice(0, 64)

    if name =~ ~r/\A[A-Za-z0-9]/, do: name, else: "patch"
  end
end
