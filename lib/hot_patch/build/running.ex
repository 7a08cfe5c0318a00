defmodule HotPatch.Build.Running do
  @moduledoc false
  # The build that a node runs, made here again without having been kept: the node tells the digests of its files,
  # what is the same here is taken from here, and only the rest is asked for.

  alias HotPatch.Host.RunningBuild
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Support.Folder
  alias HotPatch.Support.Hex
  alias HotPatch.Support.Table

  @typedoc "How to ask the node: for its digests in hexadecimal, and for some of its files."
  @type source :: %{
          digests: (() -> %{RunningBuild.path() => String.t()}),
          contents: ([RunningBuild.path()] -> %{RunningBuild.path() => binary()})
        }

  # Files asked for at once: one answer must not be all of a system.
  @at_once 50

  @doc """
  Makes the build that a node runs in an empty folder, with the help of another, `near`, that has most of it.
  Gives the paths in which the two differ for a patch, and those that the node keeps to itself.
  """
  @spec mirror(source(), Path.t(), Path.t()) :: {[RunningBuild.path()], [RunningBuild.path()]}
  def mirror(source, near, folder) do
    # What the other has not at all stays as it is, and is not asked for.
    known = MapSet.new(File.ls!(Path.join(near, "lib")), &application/1)
    there = Map.filter(source.digests.(), fn {path, _digest} -> of_known?(path, known) end)
    same? = fn {path, digest} -> digest_of(Path.join(near, path)) == digest end
    {same, other} = Enum.split_with(there, same?)

    for {path, _digest} <- same, do: put(folder, path, File.read!(Path.join(near, path)))
    other = Enum.map(other, &elem(&1, 0))
    given = fetch(other, source, folder)
    withheld = Enum.sort(other -- given)
    complete!(withheld)
    added = for path <- own(near), not is_map_key(there, path), do: path

    differing =
      for path <- other,
          path in given,
          not same?(Path.join(near, path), Path.join(folder, path)),
          do: path

    {Enum.sort(added ++ differing), withheld}
  end

  # Settings are kept back on purpose. Any other file that is told of and not given makes this less than the build that
  # runs, and a patch made of it one that lacks something.
  defp complete!(withheld) do
    case Enum.reject(withheld, &RunningBuild.settings?/1) do
      [] ->
        :ok

      [path | _] = lost ->
        raise "the node has told of #{Table.count(length(lost), "file", "files")} that it did not hand out, #{path} " <>
                "the first of them: they may have changed meanwhile, so try again"
    end
  end

  defp fetch(paths, source, folder) do
    for some <- Enum.chunk_every(paths, @at_once), {path, bytes} <- source.contents.(some) do
      put(folder, path, bytes)
      path
    end
  end

  # Compiled apart, modules differ in their documentation and debug information, and settings in the order of maps; and
  # the resource file of an application is no part of a patch.
  defp same?(one, other) do
    case Path.extname(one) do
      ".app" -> true
      ".beam" -> code(one) != nil and code(one) == code(other)
      ".config" -> same_settings?(one, other)
      _other -> false
    end
  end

  # What is the same is then so for whoever compares the two builds by their files.
  defp same_settings?(near, mirrored) do
    with {:ok, terms} <- :file.consult(near),
         {:ok, ^terms} <- :file.consult(mirrored) do
      File.cp!(near, mirrored)
      true
    else
      _another_or_unreadable -> false
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
    with {:ok, bytes} <- File.read(file), do: Hex.encode(:crypto.hash(:sha256, bytes))
  end

  defp application(folder), do: folder |> String.split("-", parts: 2) |> hd()
end
