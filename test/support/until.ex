defmodule HotPatch.Test.Until do
  @moduledoc false
  # Waiting for a condition, never for time: the deadline only says when to give up.

  @doc "Returns the first truthy value that `fun` gives, or flunks."
  @spec until((() -> value), String.t(), pos_integer()) :: value when value: term()
  def until(fun, what, deadline_ms \\ 10_000) do
    loop(fun, what, System.monotonic_time(:millisecond) + deadline_ms)
  end

  defp loop(fun, what, deadline) do
    case fun.() do
      no when no in [nil, false] ->
        if System.monotonic_time(:millisecond) > deadline,
          do: ExUnit.Assertions.flunk("never: " <> what)

        receive do
        after
          5 -> loop(fun, what, deadline)
        end

      value ->
        value
    end
  end
end
