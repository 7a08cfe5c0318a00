defmodule HotPatch.Swap.Discovery.Uncertain do
  @moduledoc false
  # Processes of which it is not known whether a state of theirs has to change with a module: those that
  # wait in a loop of it which was written by hand, those that are too busy to say whom they work
  # for, and those that began in a function of it and hibernate: Agents or loops written by hand, which nothing tells
  # apart before OTP 28, as they have no stack. Where the module changes states that is a danger: theirs would stay as they are, under the new code.

  alias HotPatch.Support.Table
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Running

  @typedoc "How many there are by module: in a loop written by hand, hibernating, too busy."
  @type counts :: [
          {module(),
           {by_hand :: non_neg_integer(), asleep :: non_neg_integer(),
            silent :: non_neg_integer()}}
        ]

  @doc "A line for each module, with how many they are."
  @spec lines([Change.t()], [Running.t()], silent :: [pid()]) :: [String.t()]
  def lines(changes, running, silent), do: changes |> counts(running, silent) |> told()

  @doc "How many they are, of each module that converts states."
  @spec counts([Change.t()], [Running.t()], silent :: [pid()]) :: counts()
  def counts(changes, running, silent) do
    case Enum.filter(changes, &(&1.kind == :replace and Change.converts?(&1))) do
      [] ->
        []

      converting ->
        loops = Running.loops(running, converting)
        asleep = Running.asleep(running, converting, silent)
        length = fn by_module, module -> length(Map.get(by_module, module, [])) end

        for %{module: module} <- converting,
            do: {module, {length.(loops, module), length.(asleep, module), length(silent)}}
    end
  end

  @doc "Those of two parts together, for the same changes."
  @spec sum(counts(), counts()) :: counts()
  def sum(counts, others) do
    for {{module, {by_hand, asleep, silent}}, {module, {more_by_hand, more_asleep, more_silent}}} <-
          Enum.zip(counts, others),
        do: {module, {by_hand + more_by_hand, asleep + more_asleep, silent + more_silent}}
  end

  @doc "The lines for such counts."
  @spec told(counts()) :: [String.t()]
  def told(counts) do
    for {module, {by_hand, asleep, silent} = parts} <- counts,
        count = by_hand + asleep + silent,
        count > 0,
        do: line(module, count, parts)
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
