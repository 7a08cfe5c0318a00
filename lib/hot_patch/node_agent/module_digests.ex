defmodule HotPatch.NodeAgent.ModuleDigests do
  @moduledoc false
  # Every module of the host system that this node runs, with the digests of its code in
  # memory and on disk, and what patches have to do with it.

  alias HotPatch.NodeAgent.FileDigests
  alias HotPatch.NodeAgent.Inventory
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.RestartNeed
  alias HotPatch.Store.Applied
  alias HotPatch.Support.Hex
  alias HotPatch.Support.Quiet

  @type line :: %{
          module: String.t(),
          running: String.t(),
          disk: String.t() | nil,
          patch: String.t() | nil,
          restart: String.t() | nil,
          memory_only?: boolean()
        }

  @doc "One line for each module that belongs to no system library."
  @spec take() :: [line()]
  def take do
    Quiet.run(fn ->
      state = Applied.state()
      patches = patches(state)
      restarts = RestartNeed.by_module(state)

      for %{module: module, name: name, path: path} <- Inventory.modules(),
          md5 = LoadedCode.md5(module) do
        {patch, memory_only?} = Map.get(patches, name, {nil, false})

        %{
          module: name,
          running: hex(md5),
          disk: hex(FileDigests.md5(path)),
          patch: patch,
          memory_only?: memory_only?,
          restart: restarts[name]
        }
      end
    end)
  end

  # The last patch that touches each module, and whether it is in memory only.
  defp patches(state) do
    for record <- state.stack, %{module: name} when name != nil <- record.files, into: %{} do
      {name, {record.id, Applied.memory_only?(record)}}
    end
  end

  defp hex(nil), do: nil
  defp hex(md5), do: Hex.encode(md5)
end
