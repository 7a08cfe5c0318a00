defmodule HotPatch.Swap.PhaseTimes do
  @moduledoc false
  # When each phase of a swap began and ended, as the engine notes it while processes stand
  # still. Telling anybody is for later: what others do with it shall not lengthen a pause.
  # An engine runs one swap in a process of its own, so its notes are in its dictionary.

  @typedoc """
  A phase, in native monotonic time. `error` says why it failed, nil if it did not; `counts`
  are further measurements.
  """
  @type t :: %{
          phase: phase(),
          started: integer(),
          ended: integer(),
          error: String.t() | nil,
          counts: map()
        }
  @type phase :: :suspend | :convert | :load | :resume

  @doc "Runs a phase. `counts` is asked about its result when the phase is over."
  @spec note(phase(), (() -> result), (result -> map())) :: result when result: term()
  def note(phase, fun, counts \\ fn _result -> %{} end) do
    started = System.monotonic_time()
    result = fun.()
    noted = %{phase: phase, started: started, ended: System.monotonic_time()}
    noted = Map.merge(noted, %{error: error(result), counts: counts.(result)})
    Process.put(__MODULE__, [noted | Process.get(__MODULE__, [])])
    result
  end

  @doc "What is known only now of a phase that failed."
  @spec explain(phase(), String.t()) :: :ok
  def explain(phase, text) do
    notes =
      for one <- Process.get(__MODULE__, []),
          do: if(one.phase == phase and one.error, do: %{one | error: text}, else: one)

    _ = Process.put(__MODULE__, notes)
    :ok
  end

  @doc "The result of a swap with the phases noted in this process, in their order."
  @spec into({:ok | :error, map()}) :: {:ok | :error, map()}
  def into({outcome, result}) do
    {outcome, %{result | phases: Enum.reverse(Process.get(__MODULE__, []))}}
  end

  defp error({:error, _reason, text}), do: text
  defp error({_swap, {:error, _reason, text}}), do: text
  defp error({:untrue, text, _changed}), do: text
  defp error(_result), do: nil
end
