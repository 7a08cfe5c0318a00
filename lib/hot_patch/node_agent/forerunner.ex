defmodule HotPatch.NodeAgent.Forerunner do
  @moduledoc false
  # Whether the patch that another has to follow is in force on this node: by the modules that it brings, in whichever
  # way they came, so that a build which has them counts as well.

  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.BaseVersion
  alias HotPatch.NodeAgent.Payload

  @doc "Refuses a patch whose forerunner is not here."
  @spec check(Payload.t()) :: :ok | {:error, String.t()}
  def check(%Payload{kind: :apply} = payload) do
    case Map.get(payload, :manifest) do
      %Manifest{follows: %{name: name, modules: modules}} ->
        missing(payload, name, lacking(modules))

      _no_manifest_or_alone ->
        :ok
    end
  end

  def check(_rollback), do: :ok

  defp lacking(modules) do
    for {module, version} <- Enum.sort(modules),
        BaseVersion.running(module) != version,
        do: module
  end

  defp missing(_payload, _name, []), do: :ok

  defp missing(payload, name, modules) do
    shown = Enum.map_join(modules, ", ", &String.replace_prefix(&1, "Elixir.", ""))

    {:error,
     "#{payload.patch} comes after #{name}, which is not in force here: #{shown} is not what that brings; apply #{name} " <>
       "on all nodes first"}
  end
end
