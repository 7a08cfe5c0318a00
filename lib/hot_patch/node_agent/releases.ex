defmodule HotPatch.NodeAgent.Releases do
  @moduledoc false
  # The releases of this node, for people.

  alias HotPatch.Host.ReleaseListing
  alias HotPatch.InstalledRelease
  alias HotPatch.Release

  @doc "All of them; without a release the one entry that says so."
  @spec list() :: [InstalledRelease.t()]
  def list do
    bound = Release.current()

    case ReleaseListing.list() do
      [] -> [struct!(InstalledRelease, unreleased(bound))]
      entries -> Enum.map(entries, &struct!(InstalledRelease, named(&1, bound)))
    end
  end

  defp unreleased(bound) do
    %{
      node: node(),
      name: bound.name,
      version: bound.version,
      running?: not Release.none?(bound),
      note: "this node runs without a release: nothing is unpacked here or made permanent"
    }
  end

  # The configuration may name the system otherwise than OTP does.
  defp named(%{running?: true, note: nil} = entry, bound)
       when {entry.name, entry.version} != {bound.name, bound.version} do
    note = "patches are bound to #{Release.text(bound)}, as the configuration says"
    Map.merge(entry, %{node: node(), note: note})
  end

  defp named(entry, _bound), do: Map.put(entry, :node, node())
end
