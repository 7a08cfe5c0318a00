defmodule HotPatch.Swap.Engine do
  @moduledoc false
  # The process that carries out one swap, in the way that the job asks for.
  #
  # A suspend whose answer did not come in time still takes effect later. All system
  # messages of a swap come from this one process, and messages between two processes keep
  # their order, so the resume that follows it undoes it.

  alias HotPatch.Swap.AtOnce
  alias HotPatch.Swap.Decision
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.InTurn
  alias HotPatch.Swap.Loading
  alias HotPatch.Swap.OnLoad
  alias HotPatch.Swap.Phases
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.WayBack

  @doc "Body of the engine process; waits for the guard to be in place."
  @spec init(pid(), Ready.t()) :: term()
  def init(caller, ready) do
    Guard.outlive_application()
    monitor = Process.monitor(caller)

    receive do
      {:go, ^caller, guard} ->
        result = caller |> run(ready, guard) |> Phases.into()
        send(caller, {self(), {:done, result}})

      {:DOWN, ^monitor, :process, ^caller, _reason} ->
        :ok
    end
  end

  @spec run(pid(), Ready.t(), pid()) ::
          {:ok, HotPatch.Swap.done()} | {:error, HotPatch.Swap.failure()}
  defp run(caller, ready, guard) do
    case ready.job.transition do
      :suspend -> AtOnce.run(caller, ready, guard)
      :none -> run_unpaused(caller, ready)
      :compatible -> run_in_turn(caller, ready, guard)
    end
  end

  # Nobody's state changes: the load alone, which takes no longer than a blink.
  defp run_unpaused(caller, ready) do
    with :ok <- OnLoad.load(ready.job.on_load, deadline(ready)),
         {:decided, :ok} <- {:decided, Decision.await(caller, ready)},
         {:ok, killed} <- Phases.note(:load, fn -> Loading.run(ready) end) do
      {:ok, %{done() | killed: killed}}
    else
      {:decided, error} -> taken_back(error, ready)
      {:error, :on_load, text} -> {:error, failure(:on_load, text)}
      error -> taken_back(error, ready)
    end
  end

  # The new code takes the old state too: load first, then each changes its state when it
  # gets to it. Tried before, in the same way, so that a failure finds the old code current.
  defp run_in_turn(caller, ready, guard) do
    with {:found, %{silent: []} = found} <- {:found, Processes.find(ready.job.changes)},
         {:tried, {:ok, watch}} <- {:tried, InTurn.rehearse(found.targets, ready)},
         {:tried, :ok} <- {:tried, OnLoad.load(ready.job.on_load, deadline(ready))},
         :ok <- Decision.await(caller, ready),
         # Whoever is started from here on may have either state; the new code takes both.
         found = Processes.merge(Processes.find(ready.job.changes, found), found),
         {:ok, killed} <- Phases.note(:load, fn -> Loading.run(ready) end) do
      case Phases.note(:convert, fn -> InTurn.change(found.targets, ready, watch) end) do
        :ok ->
          {:ok, %{done() | killed: killed}}

        {:untrue, text, changed} ->
          WayBack.run(caller, ready, guard, found, {text, changed, watch})
      end
    else
      {:found, %{silent: silent}} ->
        pids = Enum.map_join(silent, ", ", &inspect/1)
        {:error, failure(:busy, "#{pids} had to be asked and were too busy to answer")}

      {:tried, {:error, reason, text}} ->
        {:error, failure(reason, text)}

      error ->
        taken_back(error, ready)
    end
  end

  defp taken_back({:error, reason, text}, ready) do
    {:error, failure(reason, text <> OnLoad.left(OnLoad.back(ready.job.on_load)))}
  end

  defp deadline(ready), do: System.monotonic_time(:millisecond) + ready.job.pause_timeout
  defp done, do: %{suspended: 0, pause_us: 0, releases: 0, unsure: [], killed: [], phases: []}

  defp failure(reason, text),
    do: %{reason: reason, text: text, pause_us: 0, loaded?: false, phases: []}
end
