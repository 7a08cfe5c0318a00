defmodule HotPatch.Swap.Engine do
  @moduledoc false
  # The process that carries out one swap, in the way that the job asks for.
  #
  # A suspend whose answer did not come in time still takes effect later. All system
  # messages of a swap come from this one process, and messages between two processes keep
  # their order, so the resume that follows it undoes it.

  alias HotPatch.Support.Quiet
  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Decision
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Done
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.Failure
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.InTurn
  alias HotPatch.Swap.Load
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.PhaseTimes
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Rolling
  alias HotPatch.Swap.Rolling.Undo
  alias HotPatch.Swap.SuspendAll

  @doc "Body of the engine process; waits for the guard to be in place."
  @spec init(pid(), Ready.t()) :: term()
  def init(caller, ready) do
    Guard.outlive_application()
    monitor = Process.monitor(caller)

    receive do
      {:go, ^caller, guard} ->
        result = caller |> run(ready, guard) |> PhaseTimes.into()
        send(caller, {self(), {:done, result}})

      {:DOWN, ^monitor, :process, ^caller, _reason} ->
        :ok
    end
  end

  @spec run(pid(), Ready.t(), pid()) ::
          {:ok, Done.t()} | {:error, Failure.t()}
  defp run(caller, ready, guard) do
    ready = %{ready | funs: FunRenewal.share(ready.funs)}

    case ready.job.transition do
      :suspend -> SuspendAll.run(caller, ready, guard)
      :none -> run_unpaused(caller, ready)
      :compatible -> run_in_turn(caller, ready, guard)
    end
  end

  # Nobody's state changes: the load alone, which takes no longer than a blink.
  defp run_unpaused(caller, ready) do
    with {:ok, _none} <- casualties(ready),
         :ok <- EarlyLoad.on_load(ready, deadline(ready)),
         :ok <- Decision.await(caller, ready),
         {:ok, casualties} <- casualties(ready),
         holders = holders(ready),
         {:ok, killed} <- PhaseTimes.note(:load, fn -> Load.run(ready, casualties) end) do
      :ok = Rolling.renew_funs(holders, ready.funs)
      {:ok, %Done{killed: killed}}
    else
      error -> taken_back(error, ready)
    end
  end

  # Who has a state that may hold funs of the code that goes.
  defp holders(%{funs: nil}), do: []
  defp holders(%{job: job}), do: job.changes |> InTurn.find() |> InTurn.groups()

  # The new code takes the old state too: load first, then each changes its state when it
  # gets to it. Tried before, in the same way, so that a failure finds the old code current.
  defp run_in_turn(caller, ready, guard) do
    # Nobody stands still, and nobody is to wait for this.
    case InTurn.find(ready.job.changes) do
      %{silent: []} = found -> run_in_turn(caller, ready, guard, found)
      %{silent: silent} -> {:error, Failure.new(:busy, Description.silent(silent))}
    end
  end

  defp run_in_turn(caller, ready, guard, found) do
    standing = Parking.new(guard, ready.signal, InTurn.count(found))

    with {:ok, casualties} <- casualties(ready),
         found = without(found, casualties),
         {:ok, ready} <- ahead(ready, found),
         {:ok, watch} <- Rolling.rehearse(InTurn.groups(found), ready, standing),
         :ok <- EarlyLoad.on_load(ready, deadline(ready)),
         :ok <- Decision.await(caller, ready),
         # Whoever is started from here on may have either state; the new code takes both.
         found = later(ready, found, watch),
         {:ok, casualties} <- casualties(ready),
         found = without(found, casualties),
         {:ok, killed} <- PhaseTimes.note(:load, fn -> Load.run(ready, casualties) end) do
      case PhaseTimes.note(:convert, fn ->
             Rolling.change(InTurn.groups(found), ready, standing, watch)
           end) do
        :ok ->
          {:ok, %Done{killed: killed}}

        {:untrue, text, changed} ->
          Undo.run(%{caller: caller, ready: ready, guard: guard}, found, {text, changed, watch})
      end
    else
      error ->
        _ = Parking.settle(standing, :drop)
        taken_back(error, ready)
    end
  end

  defp later(ready, found, watch) do
    InTurn.with_new(found, ready.job.changes, &Rolling.tried?(watch, &1))
  end

  # Those that the change ends: none without the operator's word.
  defp casualties(%{fatal: fatal}) when fatal == %{}, do: {:ok, []}

  defp casualties(%{job: job, fatal: fatal}) do
    found = Quiet.run(fn -> Discovery.look(job.changes) end)
    casualties = Casualties.among(found.targets ++ found.unpaused, fatal)

    if casualties != [] and job.purge == :soft,
      do: {:error, :fatal, "#{Casualties.refused(casualties)}; nothing was loaded"},
      else: {:ok, casualties}
  end

  defp without(found, casualties), do: InTurn.without(found, Enum.map(casualties, & &1.pid))

  # What is tried may call new modules.
  defp ahead(ready, found) do
    if Enum.empty?(InTurn.groups(found)),
      do: {:ok, ready},
      else: EarlyLoad.added(ready, deadline(ready))
  end

  defp taken_back(error, ready) do
    {:error, reason, text} = EarlyLoad.back(ready, error)
    {:error, Failure.new(reason, text)}
  end

  defp deadline(ready), do: System.monotonic_time(:millisecond) + ready.job.pause_timeout
end
