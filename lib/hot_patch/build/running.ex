defmodule HotPatch.Build.Running do
  @moduledoc false
  # The build that a node runs, made here again without having been kept: the node tells the digests of its files,
  # what is the same here is taken from here, and only the rest is asked for. `digests/0` and `contents/1`
  # run on that node, `mirror/3` where somebody compares.

  alias HotPatch.Host.ReleaseSource
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Support.Folder

  @typedoc "A path as in a release: `lib/APP-VSN/...`, `releases/...`."
  @type path :: String.t()

  # Files asked for at once: one answer must not be all of a system.
  @at_once 50

  @settings ~w(sys.config runtime.exs vm.args env.sh)

  @doc "The digest of each file of the build that this node runs."
  @spec digests() :: %{path() => binary()}
  def digests do
    for {path, file} <- files(),
        {:ok, bytes} <- [File.read(file)],
        into: %{},
        do: {path, digest(bytes)}
  end

  @doc "What is in some of them."
  @spec contents([path()]) :: %{path() => binary()}
  def contents(paths) do
    for {path, file} <- Map.take(files(), paths),
        {:ok, bytes} <- [File.read(file)],
        into: %{},
        do: {path, bytes}
  end

  @doc """
  Makes the build that a node runs in an empty folder, with the help of another, `near`, that has most of it.
  `ask` calls a function of this module on the node. Gives the paths in which the two differ for a patch.
  """
  @spec mirror((atom(), [term()] -> term()), Path.t(), Path.t()) :: [path()]
  def mirror(ask, near, folder) do
    # What the other has not at all stays as it is, and is not asked for.
    known = MapSet.new(File.ls!(Path.join(near, "lib")), &application/1)
    there = Map.filter(ask.(:digests, []), fn {path, _digest} -> of_known?(path, known) end)
    same? = fn {path, digest} -> digest_of(Path.join(near, path)) == digest end
    {same, other} = Enum.split_with(there, same?)

    for {path, _digest} <- same, do: put(folder, path, File.read!(Path.join(near, path)))

    for paths <- other |> Enum.map(&elem(&1, 0)) |> Enum.chunk_every(@at_once),
        {path, bytes} <- ask.(:contents, [paths]),
        do: put(folder, path, bytes)

    added = for path <- own(near), not is_map_key(there, path), do: path

    other =
      for {path, _digest} <- other,
          not same_code?(Path.join(near, path), Path.join(folder, path)),
          do: path

    Enum.sort(added ++ other)
  end

  # Compiled apart, modules differ in their documentation and debug information; and the resource file of an
  # application is no part of a patch.
  defp same_code?(one, other) do
    case Path.extname(one) do
      ".app" -> true
      ".beam" -> code(one) != nil and code(one) == code(other)
      _other -> false
    end
  end

  # What the VM tells versions apart by, and the version that a module says it has.
  defp code(file) do
    with {:ok, bytes} <- File.read(file),
         <<_::binary>> = md5 <- :code.module_md5(bytes),
         {:ok, {_module, [attributes: attributes]}} <- :beam_lib.chunks(bytes, [:attributes]) do
      {md5, attributes[:vsn]}
    else
      _no_module -> nil
    end
  end

  defp of_known?(path, known) do
    case Path.split(path) do
      ["lib", folder | _] -> application(folder) in known
      _settings -> true
    end
  end

  # A name from another node does not lead out of the folder.
  defp put(folder, path, bytes) do
    {:ok, path} = Path.safe_relative(path)
    file = Path.join(folder, path)
    File.mkdir_p!(Path.dirname(file))
    File.write!(file, bytes)
  end

  # What a patch could be made of.
  defp own(build) do
    for relative <- Folder.matching(build, "lib/*/{ebin,priv,consolidated}/**"),
        build |> Path.join(relative) |> File.regular?(),
        ["lib", folder | _] = Path.split(relative),
        not SystemLibrary.application?(application(folder)),
        do: relative
  end

  defp digest_of(file) do
    with {:ok, bytes} <- File.read(file), do: digest(bytes)
  end

  defp digest(bytes), do: :crypto.hash(:sha256, bytes)

  # By the code path: also a system that is no release has one.
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

    with {:ok, text} <- File.read(start),
         [_erts, version] <- String.split(text) do
      folder = Path.join([root, "releases", version])
      found = named(folder, "releases/#{version}", ["*.rel" | @settings])
      Map.new([{"releases/start_erl.data", start} | found])
    else
      _no_release -> %{}
    end
  end

  defp application(folder), do: folder |> String.split("-", parts: 2) |> hd()
end
