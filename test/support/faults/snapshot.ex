defmodule HotPatch.Test.Faults.Snapshot do
  @moduledoc false
  # What a node is at this moment, taken on the node itself: code in memory and on disk,
  # what it knows of patches, and what should not be there.

  alias HotPatch.Store

  @type t :: %{
          node: node(),
          files: [{Path.t(), disk :: binary() | nil, running :: binary() | nil}],
          applied: [String.t()],
          behind: String.t() | nil,
          journal: [{atom(), String.t()}],
          damaged?: boolean(),
          suspended: [pid()],
          leftovers: [Path.t()],
          holder: term()
        }

  @doc "Looks at files of a folder of applications, named as in an archive, with their modules."
  @spec take(Path.t(), [{Path.t(), module() | nil}]) :: t()
  def take(lib, files) do
    info = HotPatch.NodeAgent.info()
    {:ok, entries, damage} = Store.Log.read(Path.join(Store.directory(), "journal.log"))

    %{
      node: node(),
      files:
        for({path, module} <- files, do: {path, disk(Path.join(lib, path)), running(module)}),
      applied: info.applied,
      behind: info.behind,
      journal: for(%{what: what, patch: patch} <- entries, do: {what, patch}),
      damaged?: damage != nil,
      suspended: Enum.filter(Process.list(), &suspended?/1),
      leftovers: leftovers(lib) ++ leftovers(Store.directory()),
      holder: info.operation && Map.take(info.operation, [:kind, :patch, :coordinator])
    }
  end

  defp disk(path) do
    case File.read(path) do
      {:ok, bytes} -> :crypto.hash(:sha256, bytes)
      {:error, _} -> nil
    end
  end

  defp running(nil), do: nil

  defp running(module) do
    if :erlang.module_loaded(module), do: :erlang.get_module_info(module, :md5)
  rescue
    # Deleted between the two calls.
    ArgumentError -> nil
  end

  defp suspended?(pid) do
    case Process.info(pid, [:status, :current_function]) do
      [status: :suspended, current_function: _] -> true
      [status: _, current_function: {:sys, function, _}] -> function in loops()
      _ -> false
    end
  end

  defp loops, do: [:suspend_loop, :suspend_loop_hib]

  # What was staged, and what interrupted writes have left.
  defp leftovers(folder) do
    for {path, _stat} <- HotPatch.Support.Folder.tree(folder),
        name = Path.basename(path),
        name =~ "hot_patch-" or String.ends_with?(name, ".tmp"),
        do: path
  end
end
