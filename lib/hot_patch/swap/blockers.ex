defmodule HotPatch.Swap.Blockers do
  @moduledoc false
  # Who stands in the way of a process that does not answer its suspend: it may itself wait
  # for one that is suspended already. Seen from outside, without asking anybody: a process
  # that calls another has a monitor on it (gen.erl, do_call/4), one that starts a child is
  # that child's parent.

  # A chain of calls longer than this is followed by and by, at the next look.
  @depth 6
  # A process with more monitors than this watches many; it can hardly wait for all.
  @most_monitors 64

  @doc """
  The suspended processes that have to go on for a moment, so that the waiting ones get
  free. `children` are recently started processes by parent.
  """
  @spec of([pid()], (pid() -> boolean()), %{pid() => [pid()]}) :: [pid()]
  def of(waiting, suspended?, children) do
    {blockers, _seen} =
      Enum.reduce(waiting, {MapSet.new(), MapSet.new()}, fn pid, acc ->
        follow(pid, {suspended?, children}, @depth, acc)
      end)

    MapSet.to_list(blockers)
  end

  defp follow(_pid, _look, 0, acc), do: acc

  defp follow(pid, {suspended?, children} = look, depth, {blockers, seen}) do
    if MapSet.member?(seen, pid) do
      {blockers, seen}
    else
      pid
      |> awaited(children)
      |> Enum.reduce({blockers, MapSet.put(seen, pid)}, fn other, {blockers, seen} ->
        if suspended?.(other),
          do: {MapSet.put(blockers, other), seen},
          else: follow(other, look, depth - 1, {blockers, seen})
      end)
    end
  end

  defp awaited(pid, children) do
    case Process.info(pid, [:status, :monitors]) do
      [status: :waiting, monitors: monitors] when length(monitors) <= @most_monitors ->
        for({:process, other} <- monitors, pid = local(other), do: pid) ++
          Map.get(children, pid, [])

      _ ->
        Map.get(children, pid, [])
    end
  end

  defp local(pid) when is_pid(pid) and node(pid) == node(), do: pid
  defp local({name, node}) when node == node(), do: Process.whereis(name)
  defp local(name) when is_atom(name), do: Process.whereis(name)
  defp local(_elsewhere), do: nil
end
