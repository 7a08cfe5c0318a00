defmodule HotPatch.Swap.Stragglers do
  @moduledoc false
  # Processes that still run old code after a swap.

  @type straggler :: %{
          pid: pid(),
          name: atom() | nil,
          module: module(),
          stack: [String.t()]
        }

  @doc "Who runs old code of these modules."
  @spec of([module()]) :: [straggler()]
  def of(modules) do
    old = for module <- modules, :erlang.check_old_code(module), into: MapSet.new(), do: module

    for pid <- Process.list(),
        pid != self(),
        {:current_stacktrace, stack} <- [Process.info(pid, :current_stacktrace)],
        # Only who has one of the modules on its stack is worth the thorough look.
        module <- Enum.uniq(for {module, _, _, _} <- stack, module in old, do: module),
        runs_old?(pid, module) do
      %{
        pid: pid,
        name: name(pid),
        module: module,
        stack: stack |> Enum.take(3) |> Enum.map(&Exception.format_stacktrace_entry/1)
      }
    end
  end

  defp runs_old?(pid, module) do
    :erlang.check_process_code(pid, module)
  catch
    # Died meanwhile.
    :error, :badarg -> false
  end

  defp name(pid) do
    case Process.info(pid, :registered_name) do
      {:registered_name, name} when is_atom(name) -> name
      _ -> nil
    end
  end
end
