defmodule HotPatch.Telemetry do
  @moduledoc """
  Events of HotPatch, through `:telemetry` where the host application has it.

  Each phase is a span: `[:hot_patch, phase, :start]`, then `[:hot_patch, phase, :stop]` or
  `[:hot_patch, phase, :exception]`. Without `:telemetry` nothing is sent.

  | phase | where | metadata | further measurements of `:stop` |
  |---|---|---|---|
  | `:apply`, `:rollback` | coordinator | `patch`, `by`, `nodes`; at the end `result` (`:ok` or the error's reason) | |
  | `:rehearse` | coordinator | `patch`, `by`, `nodes`; at the end `result` (the outcome, or the error's reason) | |
  | `:rehearsal` | each node | `patch`, `by`; at the end `outcome` | `tried`, `failed`, `played` (messages), `pause_us` (foreseen) |
  | `:prepare` | each node | `patch`, `by`; at the end `vote` (`:yes` or `:no`) | |
  | `:commit` | each node | `patch`, `by`; at the end `status`, `error` | `pause_us`, `suspended` |
  | `:suspend` | each node, within `:commit` | `patch`, `by`; at the end `error` | `suspended`, `releases` |
  | `:convert` | each node, within `:commit` | `patch`, `by`; at the end `error` | |
  | `:load` | each node, within `:commit` | `patch`, `by`; at the end `error` | |
  | `:resume` | each node, within `:commit` | `patch`, `by`; at the end `error` | |

  `:start` measures `system_time` and `monotonic_time`, `:stop` and `:exception` measure
  `duration` and `monotonic_time`, all in native time units. The metadata of an exception has
  `kind`, `reason` and `stacktrace` besides. An `error` is a text, or `nil` where all went well.

  ## The phases of a pause

  A handler that took its time would lengthen the pause. So the phases within `:commit` are
  only noted while processes stand still, and told in their order after the `:stop` of
  `:commit`, when everything is over: what they measure is when it really was, and the time at
  which a handler is called is not. They have no `:exception`: a phase that failed ends with
  an `error`, and `:resume` follows it all the same. `suspended` is how many processes with a
  state to convert stood still at the end of `:suspend`, `releases` how often one had to go on
  for a moment because another waited for it.

  Where a `code_change` is known to have no effects, states are converted within `:suspend`, and a failure of it is one of
  that phase; `:convert` is what is left.

  Between `:convert` and `:load` a node waits until all nodes have come so far; what was started
  meanwhile is suspended and converted then. Modules with an `on_load` are a `:load` of their own
  before that, new modules one before `:convert`. With `transition: :none` there is only `:load`, with `:compatible` `:load` and then
  `:convert`, while everybody goes on; if the new code turns out not to take the old states, a
  pause follows with all four, in which that is mended.
  """

  alias HotPatch.Swap.PhaseTimes

  @type phase :: :apply | :rollback | :rehearse | :rehearsal | :prepare | :commit

  @doc """
  Runs a function as a span. It gives its result, and what the end of the span is to say.

      HotPatch.Telemetry.span(:apply, %{patch: id}, fn -> {result, %{}, %{result: :ok}} end)
  """
  @spec span(phase(), map(), (() -> {result, measurements :: map(), metadata :: map()})) :: result
        when result: term()
  def span(phase, metadata, fun) do
    started = System.monotonic_time()
    start(phase, started, metadata)

    try do
      {result, measurements, more} = fun.()
      stop({phase, :stop}, since(started), measurements, Map.merge(metadata, more))
      result
    catch
      kind, reason ->
        failure = %{kind: kind, reason: reason, stacktrace: __STACKTRACE__}
        stop({phase, :exception}, since(started), %{}, Map.merge(metadata, failure))
        :erlang.raise(kind, reason, __STACKTRACE__)
    end
  end

  # Tells of the phases of a swap that is over, in their order, each as a span.
  @doc false
  @spec phases([PhaseTimes.t()], map()) :: :ok
  def phases(phases, metadata) do
    Enum.each(phases, fn %{phase: phase, started: started, ended: ended} = noted ->
      start(phase, started, metadata)
      stop({phase, :stop}, {started, ended}, noted.counts, Map.put(metadata, :error, noted.error))
    end)
  end

  defp since(started), do: {started, System.monotonic_time()}

  defp start(phase, started, metadata) do
    times = %{monotonic_time: started, system_time: started + System.time_offset()}
    execute(phase, :start, times, metadata)
  end

  defp stop({phase, event}, {started, ended}, measurements, metadata) do
    times = %{monotonic_time: ended, duration: ended - started}
    execute(phase, event, Map.merge(measurements, times), metadata)
  end

  # A library that the host may have or not: never a dependency of ours.
  defp execute(phase, event, measurements, metadata) do
    if Code.ensure_loaded?(:telemetry) do
      apply(:telemetry, :execute, [[:hot_patch, phase, event], measurements, metadata])
    end

    :ok
  end
end
