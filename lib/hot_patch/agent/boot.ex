defmodule HotPatch.Agent.Boot do
  @moduledoc false
  # What a plain restart does not do by itself. A release in embedded mode loads the
  # modules that its boot script names and nothing else, so a module that a patch has added
  # would be missing although its file is there. HotPatch starts before the applications
  # that depend on it, which makes this the moment to load those.

  alias HotPatch.Agent.Running
  alias HotPatch.Store

  require Logger

  @doc "Loads the modules that applied patches have added to this release."
  @spec load_added() :: :ok
  def load_added do
    if Running.embedded?(), do: Enum.each(missing(), fn {file, patch} -> load(file, patch) end)
    :ok
  end

  defp missing do
    for record <- Store.Applied.list_of_all_nodes(),
        file <- record.added,
        not loaded?(file),
        do: {file, record.id}
  end

  # HotPatch itself may be started again in a running node.
  defp loaded?(file) do
    case file |> Path.basename(".beam") |> Running.module() do
      {:ok, module} -> :erlang.module_loaded(module)
      :unknown -> false
    end
  end

  defp load(file, patch) do
    case file |> Path.rootname(".beam") |> String.to_charlist() |> :code.load_abs() do
      {:module, _module} ->
        :ok

      {:error, reason} ->
        Logger.error("HotPatch: #{file}, added by #{patch}, did not load: #{inspect(reason)}",
          patch: patch
        )
    end
  end
end
