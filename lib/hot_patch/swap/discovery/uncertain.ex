defmodule HotPatch.Swap.Discovery.Uncertain do
  @moduledoc false
  # Processes of which it is not known whether a state of theirs has to change with a module: those that
  # wait in a loop of it which was written by hand, those that are too busy to say whom they work
  # for, and those that began in a function of it and hibernate: Agents or loops written by hand, which nothing tells
  # apart before OTP 28, as they have no stack. Where the module changes states that is a danger: theirs would stay as they are, under the new code.

  alias HotPatch.Support.Table
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Running

  @doc "A line for each module, with how many they are."
  @spec lines([Change.t()], [Running.t()], silent :: [pid()]) :: [String.t()]
  def lines(changes, running, silent) do
    case Enum.filter(changes, &(&1.kind == :replace and Change.converts?(&1))) do
      [] ->
        []

      converting ->
        loops = Running.loops(running, converting)
        asleep = Running.asleep(running, converting, silent)

        for %{module: module} <- converting,
            by_hand = length(Map.get(loops, module, [])),
            asleep = length(Map.get(asleep, module, [])),
            count = by_hand + asleep + length(silent),
            count > 0,
            do: line(module, count, {by_hand, asleep, length(silent)})
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
