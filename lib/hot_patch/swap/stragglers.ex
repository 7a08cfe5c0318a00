defmodule HotPatch.Swap.Stragglers do
  @moduledoc false
  # Processes that still run old code after a swap.

  @type straggler :: %{
          pid: pid(),
          name: atom() | nil,
          module: module(),
          stack: [String.t()]
        }

  @doc "Who holds old code of these modules."
  @spec of([module()]) :: [straggler()]
  def of([]), do: []

  def of(modules) do
    for pid <- Process.list(),
        pid != self(),
        module <- modules,
        holds?(pid, module),
        info = Process.info(pid, [:registered_name, :current_stacktrace]),
        info != nil do
      %{
        pid: pid,
        name: if(info[:registered_name] != [], do: info[:registered_name]),
        module: module,
        stack:
          info[:current_stacktrace]
          |> Enum.take(3)
          |> Enum.map(&Exception.format_stacktrace_entry/1)
      }
    end
  end

  defp holds?(pid, module) do
    :erlang.check_process_code(pid, module)
  catch
    # Died meanwhile.
    :error, :badarg -> false
  end
end
