defmodule HotPatch.Telemetry do
  @moduledoc """
  Events of HotPatch, through `:telemetry` where the host application has it.

  Each phase is a span: `[:hot_patch, phase, :start]`, then `[:hot_patch, phase, :stop]` or
  `[:hot_patch, phase, :exception]`. Without `:telemetry` nothing is sent.

  | phase | where | metadata | further measurements of `:stop` |
  |---|---|---|---|
  | `:apply`, `:rollback` | coordinator | `patch`, `by`, `nodes`; at the end `result` (`:ok` or the error's reason) | |
  | `:prepare` | each node | `patch`, `by`; at the end `vote` (`:yes` or `:no`) | |
  | `:commit` | each node | `patch`, `by`; at the end `status`, `error` | `pause_us`, `suspended` |

  `:start` measures `system_time`, `:stop` and `:exception` measure `duration`, all in native
  time units. The metadata of an exception has `kind`, `reason` and `stacktrace` besides.
  """

  @type phase :: :apply | :rollback | :prepare | :commit

  @doc """
  Runs a function as a span. It gives its result, and what the end of the span is to say.

      HotPatch.Telemetry.span(:apply, %{patch: id}, fn -> {result, %{}, %{result: :ok}} end)
  """
  @spec span(phase(), map(), (() -> {result, measurements :: map(), metadata :: map()})) :: result
        when result: term()
  def span(phase, metadata, fun) do
    started = System.monotonic_time()
    execute(phase, :start, %{system_time: System.system_time()}, metadata)

    try do
      {result, measurements, more} = fun.()
      stop(phase, :stop, started, measurements, Map.merge(metadata, more))
      result
    catch
      kind, reason ->
        failure = %{kind: kind, reason: reason, stacktrace: __STACKTRACE__}
        stop(phase, :exception, started, %{}, Map.merge(metadata, failure))
        :erlang.raise(kind, reason, __STACKTRACE__)
    end
  end

  defp stop(phase, event, started, measurements, metadata) do
    measurements = Map.put(measurements, :duration, System.monotonic_time() - started)
    execute(phase, event, measurements, metadata)
  end

  # A library that the host may have or not: never a dependency of ours.
  defp execute(phase, event, measurements, metadata) do
    if Code.ensure_loaded?(:telemetry) do
      apply(:telemetry, :execute, [[:hot_patch, phase, event], measurements, metadata])
    end

    :ok
  end
end
