defmodule HotPatch.Agent.Swappable do
  @moduledoc false
  # Whether memory can be changed from one version of a module to another, or only disk.

  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.Running
  alias HotPatch.Composition.Entry

  @doc "`:transient` passes by itself: then the patch is refused rather than put off to a restart."
  @spec check(Entry.beam(), :replace | :add | :delete, Payload.t()) ::
          :ok | {:not_updated | :transient, String.t()}
  def check(beam, change, payload) do
    cond do
      beam.on_load and payload.on_load == :restart ->
        {:not_updated,
         "runs code when it is loaded (on_load), so it cannot become current in one step with " <>
           "the others: disk is replaced, restart the node to run it, or apply with on_load: :load"}

      beam.load_nif and not beam.on_load ->
        {:not_updated,
         "loads a NIF library, which may refuse to be replaced: disk is replaced, restart the " <>
           "node to run it"}

      change != :add and payload.purge == :soft ->
        no_old_code(beam)

      true ->
        :ok
    end
  end

  defp no_old_code(beam) do
    {:ok, module} = Running.module(beam.module)

    case Running.old_code_users(module) do
      [] ->
        :ok

      pids ->
        {:transient,
         "old code of an earlier change is still in use by #{Enum.map_join(Enum.take(pids, 5), ", ", &inspect/1)}" <>
           "#{if length(pids) > 5, do: " and #{length(pids) - 5} more"}: wait until they leave it, or apply with purge: :force, which kills them"}
    end
  end
end
