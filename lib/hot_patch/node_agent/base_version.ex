defmodule HotPatch.NodeAgent.BaseVersion do
  @moduledoc false
  # Whether a module of a patch was made against the code that this node has: its manifest says
  # which version it takes the place of. A patch without a manifest does not say.

  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Blobs
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Hex
  alias HotPatch.Support.VsnText

  @doc "Compares what this node has of a module with what the patch replaces."
  @spec check(String.t(), Path.t(), :loaded | :on_disk | :new, Payload.t()) ::
          :ok | {:error, String.t()}
  # One that was kept by a version without manifests has no such field.
  def check(name, target, have, payload) do
    case Map.get(payload, :manifest) do
      %Manifest{modules: %{^name => entry}} -> compare({name, target, have}, entry, payload)
      _ -> :ok
    end
  end

  defp compare(_module, %{change: :any}, _payload), do: :ok

  defp compare({name, target, have}, entry, payload) do
    current = current(name, target, have)

    if current in [entry.replaces, entry.brings] or original(target, payload) == entry.replaces,
      do: :ok,
      else: {:error, other(name, current, entry)}
  end

  @doc "The same for a module that the patch takes away."
  @spec removable(String.t(), Path.t(), :loaded | :on_disk, Manifest.version()) ::
          :ok | {:error, String.t()}
  def removable(name, target, have, replaces) do
    case current(name, target, have) do
      ^replaces ->
        :ok

      current ->
        {:error,
         "made against other code: the patch takes away #{version(replaces)} of #{name}, but " <>
           "here it is #{version(current)}: build the patch from what runs"}
    end
  end

  @doc "The version of a module that this node has, in memory or on its code path; nil where it has none."
  @spec running(String.t()) :: Manifest.version() | nil
  def running(name) do
    case :code.where_is_file(String.to_charlist(name <> ".beam")) do
      :non_existing -> current(name, "", :loaded)
      file -> current(name, FileName.to_binary(file), :loaded)
    end
  end

  defp current(_name, _target, :new), do: nil
  defp current(_name, target, :on_disk), do: of_file(File.read(target))

  defp current(name, target, :loaded) do
    with {:ok, module} <- LoadedCode.module(name),
         %{md5: md5, vsn: vsn} <- LoadedCode.facts(module) do
      %{md5: Hex.encode(md5), vsn: VsnText.text(vsn)}
    else
      _unloaded_a_moment_ago -> current(name, target, :on_disk)
    end
  end

  # A cumulative patch is made against the release's own code: what was there before all patches.
  defp original(target, %{cumulative?: true}) do
    with %{old: digest} when digest != nil <-
           Enum.find(Applied.net(Applied.list()), &(&1.target == target)) do
      of_file(Blobs.fetch(Store.blobs(), digest))
    else
      _ -> :none
    end
  end

  defp original(_target, _payload), do: :none

  # The node's own code: its own beam_lib can read it.
  defp of_file({:ok, bytes}) do
    case :beam_lib.chunks(bytes, [:attributes]) do
      {:ok, {_module, [attributes: list]}} ->
        %{
          md5: Hex.encode(:code.module_md5(bytes)),
          vsn: VsnText.text(Keyword.get(list, :vsn, []))
        }

      _damaged ->
        nil
    end
  end

  defp of_file(_unreadable), do: nil

  defp other(name, nil, entry) do
    "made against other code: the patch replaces #{version(entry.replaces)} of #{name}, but this " <>
      "node has no such module: build the patch from what runs"
  end

  defp other(name, current, %{replaces: nil}) do
    "made against other code: the patch adds #{name}, but here it is already, as " <>
      "#{version(current)}: build the patch from what runs"
  end

  defp other(name, current, entry) do
    "made against other code: the patch replaces #{version(entry.replaces)} of #{name}, but here it " <>
      "is #{version(current)}: build the patch from what runs"
  end

  defp version(nil), do: "no readable module"
  defp version(%{md5: md5, vsn: nil}), do: "MD5 #{md5}"
  defp version(%{md5: md5, vsn: vsn}), do: "MD5 #{md5} (vsn #{vsn})"
end
