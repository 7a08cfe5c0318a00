defmodule HotPatch.Agent.Inventory do
  @moduledoc false
  # What runs on this node, for the coordinator that compares a patch with it: the comparison
  # needs the native reader, which this node may lack. Digests are small; the files of
  # modules are asked for only where the coordinator does not run the same itself.

  alias HotPatch.Agent.Running
  alias HotPatch.FileName
  alias HotPatch.SystemLibrary

  # What a node sends at most: a system has about 20 kB for each module.
  @most_bytes 64 * 1024 * 1024

  @doc "The MD5 of every module that runs here and belongs to no system library."
  @spec digests() :: %{String.t() => binary()}
  def digests do
    for {module, file} <- :code.all_loaded(),
        is_list(file),
        name = Atom.to_string(module),
        not String.ends_with?(name, "@hot_patch"),
        not system?(file),
        %{md5: md5} <- [Running.facts(module)],
        into: %{},
        do: {name, md5}
  end

  @doc "The files of modules, of those whose running code is that of their file."
  @spec files([String.t()]) :: %{String.t() => binary()}
  def files(names) do
    names
    |> Enum.reduce_while({%{}, 0}, fn name, {files, size} ->
      case file(name) do
        {:ok, bytes} when size + byte_size(bytes) > @most_bytes -> {:halt, {files, size}}
        {:ok, bytes} -> {:cont, {Map.put(files, name, bytes), size + byte_size(bytes)}}
        :none -> {:cont, {files, size}}
      end
    end)
    |> elem(0)
  end

  defp file(name) do
    with {:ok, module} <- Running.module(name),
         %{md5: md5} <- Running.facts(module),
         {:loaded, path} when is_binary(path) <- Running.path(name),
         {:ok, bytes} <- File.read(path),
         ^md5 <- :code.module_md5(bytes) do
      {:ok, bytes}
    else
      _other_than_its_file -> :none
    end
  end

  defp system?(file) do
    case file |> FileName.to_binary() |> Path.split() |> Enum.reverse() do
      [_file, "ebin", folder | _] ->
        folder |> String.split("-") |> hd() |> SystemLibrary.application?()

      _ ->
        false
    end
  end
end
