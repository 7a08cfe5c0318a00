defmodule Bench.Swap.Callers do
  # Steady calls to random servers, as clients make them, and what each of them waited.

  @count 8
  # Milliseconds between two calls of one caller: steady, and far from saturating.
  @think 1

  def start(pids) do
    pids = List.to_tuple(pids)

    for seed <- 1..@count,
        do: spawn_link(fn -> loop(pids, :rand.seed_s(:exsss, seed), [], self_start()) end)
  end

  @doc "Ends the callers; gives the waits of all calls in microseconds, those since `since` only."
  def stop(callers, since) do
    for caller <- callers, do: send(caller, {:stop, self()})

    for caller <- callers, reduce: [] do
      waits ->
        receive do
          {^caller, calls} -> for({at, wait} <- calls, at + wait >= since, do: wait) ++ waits
        end
    end
  end

  def now, do: System.monotonic_time(:microsecond)

  defp self_start, do: now()

  defp loop(pids, seed, calls, started) do
    {n, seed} = :rand.uniform_s(tuple_size(pids), seed)
    at = now()
    _ = :gen_server.call(elem(pids, n - 1), :get, :infinity)
    calls = [{at, now() - at} | calls]

    receive do
      {:stop, from} -> send(from, {self(), calls})
    after
      @think -> loop(pids, seed, calls, started)
    end
  end
end
