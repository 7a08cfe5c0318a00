defmodule HotPatch.Cluster.CanaryAnalysis do
  @moduledoc false
  # The time after a change: every node is asked for its figures again and again, and the first
  # that is beyond its limit ends it.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Progress
  alias HotPatch.Options.WatchLimits
  alias HotPatch.Watch

  # Milliseconds: between two questions, and how long a node may take to answer.
  @every 500
  @stop_every 100
  @within 6_000

  @doc """
  Looks at nodes for a while as they are before the change, or until `stop` says so. When it returns
  they count.
  """
  @spec before([node()], [String.t()], WatchLimits.t(), (() -> boolean())) ::
          :ok | {:error, node(), String.t()}
  def before(nodes, modules, settings, stop) do
    job = %{coordinator: self(), modules: modules, health: settings.health}

    with :ok <- all(nodes, :watch, [job]) do
      :ok = wait_until(now() + settings.baseline, stop)
      all(nodes, :watch_counts, [])
    end
  end

  defp all(nodes, function, args) do
    case Enum.reject(Cluster.call(nodes, function, args, @within), &match?({_, {:ok, :ok}}, &1)) do
      [] -> :ok
      [{node, {:error, text}} | _] -> {:error, node, text}
    end
  end

  @doc """
  Looks at them after it, until the time is over, a limit exceeded, or `stop` says so. With each node
  comes how many processes the change has ended there, as the operator has allowed.
  """
  @spec afterwards(
          [{node(), non_neg_integer()}],
          WatchLimits.t(),
          Progress.teller(),
          (() -> boolean())
        ) :: Watch.t()
  def afterwards(changed, settings, teller, stop) do
    nodes = Keyword.keys(changed)

    for {ended, alike} <- Enum.group_by(changed, &elem(&1, 1), &elem(&1, 0)) do
      _ = Cluster.call(alike, :watch_changed, [ended], @within)
    end

    watch = look(nodes, settings, teller, {now(), stop})
    _ = Cluster.call(nodes, :unwatch, [], @within)
    :ok = tell(teller, nodes, watch)
    watch
  end

  @doc "Ends it where nothing was changed."
  @spec cancel([node()]) :: :ok
  def cancel(nodes) do
    _ = Cluster.call(nodes, :unwatch, [], @within)
    :ok
  end

  defp look(nodes, settings, teller, {started, stop} = until) do
    signs =
      for {node, answer} <-
            Cluster.call_until(nodes, :figures, [], %{stop: stop, timeout: @within}),
          seen <- seen(node, answer, settings),
          do: seen

    elapsed = now() - started
    watch = %Watch{duration_ms: settings.duration, watched_ms: elapsed, signs: signs}

    case not stop.() && Enum.find(signs, &(&1.value > &1.limit)) do
      # What was not waited for is no sign.
      false ->
        %{watch | signs: Enum.reject(signs, &(&1.sign == :gone))}

      nil when elapsed >= settings.duration ->
        watch

      nil ->
        _ =
          for node <- nodes,
              do:
                Progress.tell(teller, node, {:watch, :running},
                  done: elapsed,
                  total: settings.duration
                )

        wait_until(now() + min(@every, settings.duration - elapsed), stop)
        look(nodes, settings, teller, until)

      exceeded ->
        %{watch | exceeded: exceeded}
    end
  end

  defp seen(node, {:ok, figures}, settings) when is_list(figures) do
    for figure <- figures,
        do:
          Map.merge(figure, %{node: node, limit: Map.get(settings, limit(figure.sign))})
          |> Map.update!(:limit, &(&1 || 0))
  end

  # Its watch is gone: it has started anew since the change, or HotPatch has.
  defp seen(node, {:ok, nil}, _settings), do: [gone(node, "it was started anew")]
  defp seen(node, {:error, text}, _settings), do: [gone(node, text)]

  defp gone(node, text), do: %{node: node, sign: :gone, value: 1, limit: 0, text: text}

  # The host's own judgement has no limit to be set.
  defp limit(:health), do: nil
  defp limit(sign), do: sign

  defp tell(teller, nodes, watch) do
    for node <- nodes do
      mine = if watch.exceeded && watch.exceeded.node == node, do: watch.exceeded
      state = if mine, do: :failed, else: :done
      facts = [done: watch.watched_ms, total: watch.duration_ms, text: mine && Watch.line(mine)]
      Progress.tell(teller, node, {:watch, state}, facts)
    end

    :ok
  end

  # For time to pass, not for anybody.
  defp wait_until(time, stop) do
    left = time - now()

    if left > 0 and not stop.() do
      receive do
      after
        min(left, @stop_every) -> wait_until(time, stop)
      end
    else
      :ok
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
