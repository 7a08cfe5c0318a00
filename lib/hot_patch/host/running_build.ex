defmodule HotPatch.Host.RunningBuild do
  @moduledoc false
  # The build that this node runs, as files of a release: their digests, and what is in them. By the code path:
  # also a system that is no release has one.

  alias HotPatch.Host.ReleaseSource
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Support.Folder

  @typedoc "A path as in a release: `lib/APP-VSN/...`, `releases/...`."
  @type path :: String.t()

  @settings ~w(sys.config runtime.exs vm.args env.sh)

  @doc "The SHA-256 of each file."
  @spec digests() :: %{path() => binary()}
  def digests do
    for {path, file} <- files(),
        {:ok, bytes} <- [File.read(file)],
        into: %{},
        do: {path, :crypto.hash(:sha256, bytes)}
  end

  @doc "What is in some of them; what is none of these files is not read."
  @spec contents([path()]) :: %{path() => binary()}
  def contents(paths) do
    for {path, file} <- Map.take(files(), paths),
        {:ok, bytes} <- [File.read(file)],
        into: %{},
        do: {path, bytes}
  end

  @doc """
  Whether a file sets what the system is started with, and so may hold its secrets.

      iex> HotPatch.Host.RunningBuild.settings?("releases/1.0.0/runtime.exs")
      true
  """
  @spec settings?(path()) :: boolean()
  def settings?(path),
    do: Path.basename(path) in @settings and match?(["releases" | _], Path.split(path))

  defp files do
    for entry <- :code.get_path(),
        folder = to_string(entry),
        {path, file} <- of(Path.basename(folder), folder),
        not String.contains?(file, ".hot_patch-"),
        File.regular?(file),
        into: release(),
        do: {path, file}
  end

  defp of("ebin", ebin) do
    root = Path.dirname(ebin)
    name = Path.basename(root)
    application = application(name)

    if SystemLibrary.application?(application),
      do: below(root, name, ["ebin/#{application}.app"]),
      else: below(root, name, ["ebin/*", "priv/**"])
  end

  # Of a release it lies beside its boot script.
  defp of("consolidated", folder) do
    case folder |> Path.split() |> Enum.take(-3) do
      ["releases", version, _] -> named(folder, "releases/#{version}/consolidated", ["*"])
      [_, application, _] -> named(folder, "lib/#{application}/consolidated", ["*"])
      _ -> []
    end
  end

  defp of(_other, _folder), do: []

  defp below(root, name, patterns), do: named(root, "lib/#{name}", patterns)

  defp named(root, name, patterns) do
    for pattern <- patterns,
        file <- Folder.matching(root, pattern),
        do: {Path.join(name, file), Path.join(root, file)}
  end

  # What it is started with; none where it is no release: then the boot script is OTP's own.
  defp release, do: if(ReleaseSource.booted(), do: boot_files(), else: %{})

  defp boot_files do
    root = System.get_env("RELEASE_ROOT") || to_string(:code.root_dir())
    start = Path.join(root, "releases/start_erl.data")

    case booting(start) do
      nil ->
        %{}

      booting ->
        # After an upgrade what runs is not yet what the next start boots.
        version = running(root) || booting
        folder = Path.join([root, "releases", version])
        found = Map.new(named(folder, "releases/#{version}", ["*.rel" | @settings]))
        if version == booting, do: Map.put(found, "releases/start_erl.data", start), else: found
    end
  end

  defp booting(start) do
    with {:ok, text} <- File.read(start),
         [_erts, version] <- String.split(text) do
      version
    else
      _no_release -> nil
    end
  end

  defp running(root) do
    with {_name, version} <- ReleaseSource.installed(),
         true <- File.dir?(Path.join([root, "releases", version])) do
      version
    else
      _as_it_was_booted -> nil
    end
  end

  defp application(folder), do: folder |> String.split("-", parts: 2) |> hd()
end
