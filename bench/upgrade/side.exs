defmodule Bench.Upgrade.Side do
  # What is on each node beside its release: servers of it, callers of these, and a look at who stands still.

  alias Bench.Swap.Callers
  alias Bench.Swap.Probe

  @doc "Starts so many servers; gives them in their order."
  def servers(n), do: for(i <- 1..n, do: :supervisor.start_child(:shop_servers, [i]) |> elem(1))

  @doc "Begins to call them, and to look."
  def watch(pids) do
    owner = self()

    pid =
      :erlang.spawn(fn ->
        for pid <- Process.list(), do: :erlang.garbage_collect(pid)
        callers = Callers.start(pids)
        receive(after: (300 -> :ok))
        probe = Probe.start(pids)
        started = Callers.now()
        send(owner, {self(), :ready})

        receive do
          {:stop, from} ->
            pauses = Probe.stop(probe)
            send(from, {self(), pauses, Enum.sort(Callers.stop(callers, started))})
        end
      end)

    receive(do: ({^pid, :ready} -> pid))
  end

  @doc "Ends that; gives what was seen: the pauses, and what calls have waited."
  def seen(pid) do
    send(pid, {:stop, self()})
    receive(do: ({^pid, pauses, waits} -> {pauses, waits}))
  end

  @doc "How many of them are still there with the number that they were started with, by the form of their state."
  def audit(pids) do
    for {pid, i} <- Enum.with_index(pids, 1), {^i, form} <- [ask(pid)], reduce: %{} do
      counts -> Map.update(counts, form, 1, &(&1 + 1))
    end
  end

  defp ask(pid) do
    :gen_server.call(pid, :get)
  catch
    :exit, _gone -> :gone
  end
end
