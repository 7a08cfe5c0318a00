defmodule HotPatch.Test.Until do
  @moduledoc false
  # Waiting for a condition, never for time: the deadline only says when to give up.

  # Milliseconds that count of a look and of the pause after it: a host that stands still for a while
  # leaves nothing any time to happen, and takes no more of the deadline than this.
  @counted 1_000

  @doc "Returns the first truthy value that `fun` gives, or flunks."
  @spec until((() -> value), String.t(), pos_integer()) :: value when value: term()
  def until(fun, what, deadline_ms \\ 120_000), do: loop(fun, what, deadline_ms)

  defp loop(fun, what, left) do
    began = System.monotonic_time(:millisecond)

    case fun.() do
      no when no in [nil, false] ->
        if left < 0, do: ExUnit.Assertions.flunk("never: " <> what)

        receive do
        after
          5 -> :ok
        end

        passed = System.monotonic_time(:millisecond) - began
        loop(fun, what, left - min(passed, @counted))

      value ->
        value
    end
  end
end
