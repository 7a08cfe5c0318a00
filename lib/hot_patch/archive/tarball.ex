defmodule HotPatch.Archive.Tarball do
  @moduledoc false
  # The tarball of a release, as release tools make it: of what this node runs and of it the native core builds the
  # archive that leads there, and that archive is what is read, judged, kept and passed on. Nothing else
  # of the tarball is used.

  alias HotPatch.Archive
  alias HotPatch.Bridge
  alias HotPatch.Error
  alias HotPatch.Host.Config
  alias HotPatch.JSON
  alias HotPatch.Native
  alias HotPatch.Release
  alias HotPatch.Support.Table

  # How much more there may be in it than it has bytes.
  @unpacked 5

  @doc "Whether a file begins as one that is packed with gzip."
  @spec tarball?(Path.t()) :: boolean()
  def tarball?(path) do
    with {:ok, %File.Stat{type: :regular}} <- File.stat(path),
         {:ok, <<0x1F, 0x8B>>} <- File.open(path, [:read, :raw, :binary], &read_two/1) do
      true
    else
      _other -> false
    end
  end

  defp read_two(file) do
    with {:ok, bytes} <- :file.read(file, 2), do: bytes
  end

  @doc "Puts bytes into a file for as long as a function takes."
  @spec with_file(binary(), (Path.t() -> result)) :: result | {:error, Error.t()}
        when result: {:ok, binary(), String.t()} | {:error, Error.t()}
  def with_file(bytes, fun) do
    name = "hot_patch_#{System.pid()}_#{System.unique_integer([:positive])}.tar.gz"
    path = Path.join(System.tmp_dir() || "/tmp", name)

    try do
      with :ok <- write(path, bytes), do: fun.(path)
    after
      _ = File.rm(path)
    end
  end

  # Whoever else has an account here may not read it.
  defp write(path, bytes) do
    with {:ok, file} <- File.open(path, [:write, :exclusive, :raw, :binary]),
         :ok <- File.chmod(path, 0o600),
         :ok <- :file.write(file, bytes),
         :ok <- File.close(file) do
      :ok
    else
      {:error, posix} -> refused("cannot be put into #{path}: #{:file.format_error(posix)}")
    end
  end

  @doc "The archive that leads from the release that this node runs to that of a tarball."
  @spec archive(Path.t(), String.t(), String.t()) ::
          {:ok, binary(), String.t()} | {:error, Error.t()}
  def archive(path, name, by) do
    with {:ok, root} <- root(),
         :ok <- small(path),
         :ok <- Bridge.check(Bridge.Nif),
         {:ok, json} <- JSON.encode(request(root, path, name, by)),
         {:ok, built} <- built(json) do
      if built.refusal, do: dangerous(built.refusal), else: {:ok, built.zip, name}
    end
  end

  defp root do
    case Release.root() do
      nil -> refused("needs a node that runs from a release, and #{node()} does not")
      root -> {:ok, root}
    end
  end

  defp small(path) do
    most = Config.current().max_release_bytes

    case File.stat(path) do
      {:ok, %File.Stat{size: size}} when size <= most ->
        :ok

      {:ok, %File.Stat{size: size}} ->
        refused(
          "has #{Table.bytes(size)}, and the limit is #{Table.bytes(most)} (config :hot_patch, max_release_bytes: ...): " <>
            "raise it, or upload what mix hot_patch.build makes of it"
        )

      {:error, posix} ->
        refused("cannot be read: #{:file.format_error(posix)}")
    end
  end

  # What was installed and is not permanent yet is not what the next start boots.
  defp request(root, path, name, by) do
    %{
      "from" => root,
      "to" => Path.expand(path),
      "name" => name,
      "author" => by,
      "running" => Release.current().version,
      "most_unpacked" => @unpacked * Config.current().max_release_bytes,
      "otp" => System.otp_release(),
      "elixir" => System.version()
    }
  end

  defp built(json) do
    # Who would hear how far it has come, and here nobody asks.
    listener = spawn(fn -> receive(do: (:done -> :ok)) end)
    answer = Native.build(json, Archive.significant_chunks(), listener)
    send(listener, :done)

    with {:error, text} <- :erlang.binary_to_term(answer, [:safe]),
         do: refused("cannot be taken: #{text}")
  end

  defp dangerous(text) do
    {:error,
     Error.new(
       :dangerous,
       "upload: #{text}\nThe tarball of a release accepts nothing: build the upgrade with mix hot_patch.build, and accept there"
     )}
  end

  defp refused(why), do: {:error, Error.new(:build, "upload: the tarball #{why}")}
end
