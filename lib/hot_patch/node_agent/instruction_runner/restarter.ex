defmodule HotPatch.NodeAgent.InstructionRunner.Restarter do
  @moduledoc false
  # Knows what a commit has stopped, and starts it again if the commit dies before it has.

  alias HotPatch.NodeAgent.InstructionRunner.Applications
  alias HotPatch.NodeAgent.InstructionRunner.Children
  alias HotPatch.Swap.Guard

  require HotPatch.Support.Log, as: Log

  @doc "Starts one for the calling process."
  @spec start() :: pid()
  def start do
    commit = self()

    spawn(fn ->
      Guard.outlive_application()
      keep(Process.monitor(commit), [])
    end)
  end

  @doc "Tells it that an application, or a child of a supervisor, is about to be stopped."
  @spec stops(pid(), {atom(), atom()} | Children.child()) :: :ok
  def stops(keeper, running) do
    send(keeper, {:stops, running})
    :ok
  end

  @doc "All is done: nothing is to be started again."
  @spec done(pid() | nil) :: :ok
  def done(nil), do: :ok

  def done(keeper) do
    send(keeper, :done)
    :ok
  end

  defp keep(monitor, stopped) do
    receive do
      {:stops, running} -> keep(monitor, [running | stopped])
      :done -> :ok
      {:DOWN, ^monitor, :process, _commit, _reason} -> Enum.each(stopped, &again/1)
    end
  end

  defp again({supervisor, id} = child) when is_pid(supervisor) do
    Children.start_again(child)
  catch
    :exit, reason ->
      Log.error(
        "HotPatch: the child #{inspect(id)} of #{inspect(supervisor)} could not be started again: " <>
          inspect(reason)
      )
  end

  defp again({application, type}) do
    Applications.start(application, type)
  catch
    :exit, reason ->
      Log.error("HotPatch: #{application} could not be started again: #{inspect(reason)}",
        application: application
      )
  end
end
