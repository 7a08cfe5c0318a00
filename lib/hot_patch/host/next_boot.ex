defmodule HotPatch.Host.NextBoot do
  @moduledoc false
  # Which release the next start of this system boots. Whoever starts it goes by one of two things:
  #
  #   * `releases/start_erl.data`, "ERTS VERSION": the scripts of `mix release`, and OTP's `start_erl`
  #   * the start script itself, where relx has made the release: the version stands in it, `bin/NAME` is a copy of
  #     `bin/NAME-VERSION`, and `start_erl.data` is read by nobody
  #
  # An upgrade brings such a script among the files of its release, `releases/VERSION/bin/NAME`.

  alias HotPatch.Support.Folder

  @typedoc "A start script, and by version what it may be a copy of."
  @type script :: {Path.t(), %{String.t() => Path.t()}}

  @doc "The version; nil where nothing says it, or what says it is torn."
  @spec version(Path.t()) :: String.t() | nil
  def version(root) do
    case scripts(root) do
      [] -> named(root)
      scripts -> agreed(for script <- scripts, do: copied(script))
    end
  end

  @doc "The version that `start_erl.data` names, if it is there."
  @spec named(Path.t()) :: String.t() | nil
  def named(root) do
    with {:ok, text} <- File.read(start_data(root)),
         [_erts, version] <- String.split(text),
         true <- there?(root, version) do
      version
    else
      _none_or_torn -> nil
    end
  end

  @doc "That file."
  @spec start_data(Path.t()) :: Path.t()
  def start_data(root), do: Path.join([root, "releases", "start_erl.data"])

  @doc "Whether a release of this version lies below the root."
  @spec there?(Path.t(), String.t()) :: boolean()
  def there?(root, version) do
    String.printable?(version) and Path.basename(version) == version and
      version not in [".", ".."] and File.dir?(Path.join([root, "releases", version]))
  end

  @doc "The start scripts in which a version stands."
  @spec scripts(Path.t()) :: [script()]
  def scripts(root) do
    bin = Path.join(root, "bin")
    files = MapSet.new(Folder.files(bin, ""))

    versions =
      for folder <- Folder.folders(Path.join(root, "releases")), do: Path.basename(folder)

    for script <- Enum.sort(files),
        own = copies(script, versions, files),
        own != %{},
        do: {script, Map.merge(brought(root, script, versions), own)}
  end

  defp copies(script, versions, files) do
    for version <- versions, path = "#{script}-#{version}", path in files, into: %{} do
      {version, path}
    end
  end

  defp brought(root, script, versions) do
    for version <- versions,
        path = Path.join([root, "releases", version, "bin", Path.basename(script)]),
        File.regular?(path),
        into: %{},
        do: {version, path}
  end

  @doc "The first of these scripts of which there is none for a version, so that no start could boot it."
  @spec lacking(Path.t(), String.t()) :: Path.t() | nil
  def lacking(root, version) do
    Enum.find_value(scripts(root), fn {script, own} ->
      if not is_map_key(own, version), do: "#{script}-#{version}"
    end)
  end

  # Which of them it is a copy of.
  defp copied({script, own}) do
    with {:ok, bytes} <- File.read(script) do
      Enum.find_value(own, fn {version, path} ->
        if File.read(path) == {:ok, bytes}, do: version
      end)
    else
      {:error, _posix} -> nil
    end
  end

  defp agreed(versions) do
    with [version] <- Enum.uniq(versions), do: version, else: (_differ -> nil)
  end
end
