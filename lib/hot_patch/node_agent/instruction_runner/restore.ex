defmodule HotPatch.NodeAgent.InstructionRunner.Restore do
  @moduledoc false
  # After a start of the node: its boot script starts what the release has, and the patches in
  # force have added applications to that, or removed some.

  alias HotPatch.NodeAgent.InstructionRunner.Applications
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.Store.Applied
  alias HotPatch.Swap.Guard

  require HotPatch.Support.Log, as: Log

  # Milliseconds between two looks whether the node has started, and how many there are.
  @every 100
  @looks 6_000

  @doc "Has it done when all applications of the release have been started. Does not wait for it."
  @spec later([Applied.t()]) :: :ok
  def later(records) do
    steps = for record <- records, step <- record.applications, do: step

    _ =
      if steps != [] do
        spawn(fn ->
          Guard.outlive_application()
          if started?(@looks), do: Enum.each(steps, &follow/1)
        end)
      end

    :ok
  end

  defp started?(0), do: false

  defp started?(looks) do
    if match?({:started, _}, :init.get_status()) do
      true
    else
      receive do
      after
        @every -> started?(looks - 1)
      end
    end
  end

  @spec follow(Instructions.one()) :: :ok
  defp follow(%{what: :add_application} = step), do: tried(step, &Applications.add/2)

  defp follow(step) do
    tried(step, fn name, _how ->
      with {application, _type} <- Applications.running(name), do: Applications.stop(application)
      Applications.unload(name)
    end)
  end

  defp tried(step, fun) do
    fun.(step.subject, step.how)
  catch
    kind, reason ->
      Log.error("HotPatch: #{step.text} failed after the start: #{inspect({kind, reason})}")
  end
end
