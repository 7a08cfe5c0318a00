defmodule Bench.Cluster.Probe do
  # Runs on the coordinator, and looks at it while something is sent from there: its memory,
  # how long small messages to other nodes and back take, how often a channel was full; and how
  # much of the processors the nodes and the whole machine use.

  # Milliseconds between two looks at the memory, and between two messages.
  @look 5
  @pause 2
  # So many of the nodes are sent small messages.
  @asked 4

  @doc """
  Does it, and gives how long it took and what was seen: microseconds, bytes, seconds of
  processors, shares of the machine's.
  """
  def measure(cluster, fun) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    memory = start(fn -> watch_memory(memory(), 0) end, :high)
    members = for node <- asked(cluster.others), do: start(fn -> ask(echo(node), 0) end, :normal)
    other = start(fn -> ask(echo(cluster.bystander), 0) end, :normal)
    busy = start(fn -> count_busy(0) end, :high)
    :erlang.system_monitor(busy, [:busy_dist_port])

    receive do
    after
      200 -> :ok
    end

    before = used(cluster)
    {time, answer} = :timer.tc(fun)
    cost = cost(before, used(cluster))
    :erlang.system_monitor(:undefined)

    seen = %{
      time: time,
      memory: stop(memory),
      member: members |> Enum.map(&stop/1) |> Enum.max(),
      other: stop(other),
      busy: stop(busy)
    }

    {Map.merge(seen, cost), answer}
  end

  # As the operating system counts it: all nodes, the coordinator first, and the machine.
  defp used(cluster), do: {Enum.map(cluster.os_pids, &used_by/1), machine()}

  # In hundredths of a second on all usual systems.
  defp used_by(os_pid) do
    [_name, fields] = "/proc/#{os_pid}/stat" |> File.read!() |> String.split(") ", parts: 2)

    [user, system] =
      fields |> String.split() |> Enum.slice(11, 2) |> Enum.map(&String.to_integer/1)

    (user + system) / 100
  end

  defp machine do
    [line | _] = "/proc/stat" |> File.read!() |> String.split("\n")
    ["cpu" | times] = String.split(line)
    times = Enum.map(times, &String.to_integer/1)
    %{all: Enum.sum(times), idle: Enum.at(times, 3), disk: Enum.at(times, 4)}
  end

  defp cost({nodes_before, before}, {nodes, now}) do
    [coordinator | others] = Enum.zip_with(nodes, nodes_before, &-/2)
    all = max(1, now.all - before.all)

    %{
      coordinator: coordinator,
      each: Enum.sum(others) / length(others),
      processors: coordinator + Enum.sum(others),
      idle: (now.idle - before.idle) / all,
      disk: (now.disk - before.disk) / all
    }
  end

  @doc "Answers every message; on the other nodes."
  def echo do
    receive do
      {from, ref} ->
        send(from, ref)
        echo()

      :stop ->
        :ok
    end
  end

  defp echo(node), do: Node.spawn_link(node, __MODULE__, :echo, [])

  # Spread over all, for each is busy at another time.
  defp asked(nodes), do: Enum.take_every(nodes, max(1, div(length(nodes), @asked)))

  defp start(fun, priority), do: :erlang.spawn_opt(fun, [:link, priority: priority])

  defp stop(pid) do
    send(pid, {:stop, self()})

    receive do
      {^pid, seen} -> seen
    end
  end

  defp memory, do: [:processes, :binary] |> :erlang.memory() |> Keyword.values() |> Enum.sum()

  defp watch_memory(before, most) do
    most = max(most, memory() - before)
    go_on(@look, most, fn -> watch_memory(before, most) end)
  end

  defp ask(echo, longest) do
    ref = make_ref()
    at = System.monotonic_time(:microsecond)
    send(echo, {self(), ref})

    receive do
      ^ref -> :ok
    end

    longest = max(longest, System.monotonic_time(:microsecond) - at)
    go_on(@pause, longest, fn -> ask(echo, longest) end)
  end

  defp count_busy(n) do
    receive do
      {:monitor, _pid, :busy_dist_port, _port} -> count_busy(n + 1)
      {:stop, from} -> send(from, {self(), n})
    end
  end

  defp go_on(pause, seen, again) do
    receive do
      {:stop, from} -> send(from, {self(), seen})
    after
      pause -> again.()
    end
  end
end
