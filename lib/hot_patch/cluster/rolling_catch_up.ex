defmodule HotPatch.Cluster.RollingCatchUp do
  @moduledoc false
  # A node that was away while the others were restarted into another release is brought there in the same way: by a
  # restart, which one of them leads, in a trial that goes back by itself. It is tried once. Where nobody would start the
  # node again, or it does not serve there, it stays what it is and says so.

  alias HotPatch.Cluster.RollingRestart
  alias HotPatch.Host.Comeback
  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.History
  alias HotPatch.Store.Rolled
  alias HotPatch.Store.Trial

  require HotPatch.Support.Log, as: Log

  @doc "Learns of such restarts what others know, and has this node follow; it ends then, and starts in the other release."
  @spec run(History.history(), [{node(), History.history()}]) ::
          :ok
          | {:later, HotPatch.Cluster.CatchUp.later()}
          | {:error, String.t()}
  def run(mine, histories) do
    # A node of a version that knows nothing of it has none to tell.
    theirs = for {_node, history} <- histories, one <- Map.get(history, :rolled, []), do: one

    with :ok <- NodeAgent.rolled(theirs) do
      if missed = Rolled.missed(mine.release),
        do: follow(missed, histories),
        else: no_way(Rolled.left_behind(mine.release), mine, histories)
    end
  end

  defp no_way(nil, _mine, _histories), do: :ok

  defp no_way(last, %{release: release}, histories) do
    if Enum.any?(histories, fn {_node, history} -> there?(history, last) end) do
      {:error,
       "the others came from #{release} to #{last.from} while they ran, and were restarted into #{last.to} by " <>
         "#{last.patch} since then, all while this node was away: nothing is known any more that leads from " <>
         "#{release.version} there. Start it in #{last.to}, or build the upgrade from #{release.version} to " <>
         "#{last.to} and apply that with restart: :rolling"}
    else
      :ok
    end
  end

  defp follow(missed, histories) do
    case for({node, history} <- histories, there?(history, missed), do: node) do
      # Whatever has become of them since: there is nobody to be as.
      [] -> :ok
      nodes -> bring(missed, Enum.min(nodes))
    end
  end

  # It runs that release, or one to which that was taken while it ran.
  defp there?(history, missed),
    do: Enum.any?(history.lineage, &({&1.name, &1.version} == {missed.name, missed.to}))

  # All ask the same node, so that one is restarted after the other.
  defp bring(missed, leader) do
    with :ok <- started(missed),
         :ok <- not_tried(missed),
         {:ok, _way} <- comes_back(missed) do
      Log.notice(
        "HotPatch: catching up: #{leader} restarts this node into #{missed.name} #{missed.to}"
      )

      led(missed, leader)
    end
  end

  defp started(missed) do
    if match?({:started, _}, :init.get_status()) do
      :ok
    else
      text = "the node is starting, and is restarted into #{missed.to} when it has started"
      {:later, {:waits, text}}
    end
  end

  defp not_tried(%{id: id, to: to} = missed) do
    case Trial.read(:over) do
      %{to: {_erts, ^to}, facts: %{op: ^id}} ->
        {:error,
         "#{behind(missed)}; it was restarted there, did not come to serve, and went back: look at its log, put that right, " <>
           "and start it in #{to}, or call HotPatch.#{missed.kind}(\"#{missed.patch}\", restart: :rolling) on a node " <>
           "that runs #{missed.from}"}

      _none_or_another ->
        :ok
    end
  end

  defp comes_back(missed) do
    with {:error, why} <- Comeback.how() do
      {:error,
       "#{behind(missed)}, and cannot be restarted there: #{why}; or start it in #{missed.to} by hand"}
    end
  end

  defp behind(missed) do
    "the others were restarted into #{missed.name} #{missed.to} by #{missed.patch} while this node was away, and it " <>
      "runs #{missed.from}"
  end

  # This node ends while it waits.
  defp led(missed, leader) do
    case :erpc.call(leader, RollingRestart, :bring, [missed, node()]) do
      :ok -> :ok
      {:busy, text} -> {:later, {:waits, "#{behind(missed)}: #{text}"}}
      {:error, text} -> {:error, "#{behind(missed)}: #{text}"}
    end
  catch
    :error, {:erpc, reason} ->
      {:error, "#{behind(missed)}: #{leader} cannot be asked to restart it (#{inspect(reason)})"}

    _class, {:exception, reason, _stack} ->
      {:error,
       "#{behind(missed)}: #{leader} failed to restart it (#{inspect(reason, limit: 10)})"}
  end
end
