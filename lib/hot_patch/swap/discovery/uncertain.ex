defmodule HotPatch.Swap.Discovery.Uncertain do
  @moduledoc false
  # Processes of which it is not known whether a state of theirs has to change with a module: those that
  # wait in a loop of it which was written by hand, those that are too busy to say whom they work
  # for, and those that began in a function of it and hibernate: Agents or loops written by hand, which nothing tells
  # apart before OTP 28, as they have no stack. Where the module changes states that is a danger: theirs would stay as they are, under the new code.

  alias HotPatch.Support.Table
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.KeptFrames
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Target

  @doc "A line for each module, with how many they are."
  @spec lines([Change.t()], [Target.t()], silent :: [pid()]) :: [String.t()]
  def lines(changes, targets, silent) do
    case Enum.filter(changes, &(&1.kind == :replace and Change.converts?(&1))) do
      [] ->
        []

      converting ->
        loops = KeptFrames.loops(converting, targets)
        asleep = asleep(converting, targets, silent)

        for %{module: module} <- converting,
            by_hand = length(Map.get(loops, module, [])),
            asleep = length(Map.get(asleep, module, [])),
            count = by_hand + asleep + length(silent),
            count > 0,
            do: line(module, count, {by_hand, asleep, length(silent)})
    end
  end

  defp asleep(converting, targets, silent) do
    modules = Map.new(converting, &{&1.module, []})
    known = MapSet.new(Enum.map(targets, & &1.pid) ++ silent)

    for pid <- Process.list(),
        Stacktrace.hibernates?(pid),
        not MapSet.member?(known, pid),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        {module, _function, _arity} when is_map_key(modules, module) <-
          [dictionary[:"$initial_call"]],
        reduce: %{} do
      found -> Map.update(found, module, [pid], &[pid | &1])
    end
  end

  defp line(module, count, {by_hand, asleep, silent}) do
    parts = [
      by_hand > 0 && "#{by_hand} in a loop of it that speaks no system messages",
      asleep > 0 &&
        "#{asleep} that began in a function of it and hibernate, Agents or loops written by hand: an Agent that is " <>
          "called is awake, and found",
      silent > 0 && "#{silent} too busy to say whom they work for"
    ]

    "danger: #{inspect(module)} converts states, and of #{Table.count(count, "process", "processes")} it is not " <>
      "known whether they have one (#{parts |> Enum.filter(& &1) |> Enum.join(", ")}): it would stay as it is"
  end
end
