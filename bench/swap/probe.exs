defmodule Bench.Swap.Probe do
  # When processes were suspended and resumed, seen from outside and the same for every
  # way: the messages that a sample of them receive are traced. The sample is small enough
  # not to matter, and has the first and the last.

  @sample 200

  def start(pids) do
    sample = sample(pids)
    tracer = spawn_link(fn -> collect(%{}) end)

    for pid <- sample,
        do: 1 = :erlang.trace(pid, true, [:receive, :monotonic_timestamp, {:tracer, tracer}])

    {tracer, sample}
  end

  @doc "Pause of each process of the sample, and from the first suspend to the last resume, in us."
  def stop({tracer, sample}) do
    for pid <- sample, Process.alive?(pid), do: :erlang.trace(pid, false, [:all])
    ref = :erlang.trace_delivered(:all)

    receive do
      {:trace_delivered, :all, ^ref} -> :ok
    end

    send(tracer, {:stop, self()})

    receive do
      {^tracer, seen} -> pauses(seen)
    end
  end

  defp pauses(seen) do
    case for {_pid, times} <- seen, span = span(times), do: span do
      [] ->
        %{total: 0, longest: 0, median: 0}

      spans ->
        each = spans |> Enum.map(fn {s, r} -> r - s end) |> Enum.sort()
        first = spans |> Enum.map(&elem(&1, 0)) |> Enum.min()
        last = spans |> Enum.map(&elem(&1, 1)) |> Enum.max()

        %{
          total: last - first,
          longest: List.last(each),
          median: Enum.at(each, div(length(each), 2))
        }
    end
  end

  # Either inside a function of ours that ends with an order to look up how it ended, or by system messages.
  defp span(%{stand: s, go: r}), do: {s, r}
  defp span(%{suspend: s, resume: r}), do: {s, r}
  defp span(_times), do: nil

  defp sample(pids) do
    step = max(1, div(length(pids), @sample))
    [List.last(pids) | Enum.take_every(pids, step)] |> Enum.uniq()
  end

  defp collect(seen) do
    receive do
      {:trace_ts, pid, :receive, message, at} ->
        us = System.convert_time_unit(at, :native, :microsecond)
        collect(note(what(message), pid, us, seen))

      {:stop, from} ->
        send(from, {self(), seen})

      _other ->
        collect(seen)
    end
  end

  defp what({:system, _from, what}) when what in [:suspend, :resume], do: what

  # Of those that look first for whom the process works the function is another's.
  @standing [
    module: HotPatch.Swap.Parking,
    module: HotPatch.Swap.Discovery.Idleness,
    module: Bench.Swap.Ways
  ]

  # Other functions are run over states, too: by them nobody stands still.
  defp what({:system, _from, {:replace_state, fun}}) when is_function(fun),
    do: if(Function.info(fun, :module) in @standing, do: :stand)

  defp what({:system, _from, {:hot_patch, _ref, :look}}), do: :go
  defp what(_message), do: nil

  defp note(nil, _pid, _us, seen), do: seen

  # The first suspend and the last resume: a way may have to repeat.
  defp note(what, pid, us, seen) do
    times = Map.get(seen, pid, %{})
    first? = what in [:suspend, :stand]
    times = if first?, do: Map.put_new(times, what, us), else: Map.put(times, what, us)
    Map.put(seen, pid, times)
  end
end
