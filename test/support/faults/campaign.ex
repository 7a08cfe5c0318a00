defmodule HotPatch.Test.Faults.Campaign do
  @moduledoc false
  # Many faults by chance, for script/faults. Each depends on the seed and its own number
  # alone, so that it can be looked at again.

  alias HotPatch.Test.Faults.Rig
  alias HotPatch.Test.Faults.Round
  alias HotPatch.Test.Faults.Scenarios
  alias HotPatch.Test.Faults.Schedule

  @type options :: %{
          faults: pos_integer(),
          seed: non_neg_integer(),
          only: pos_integer() | nil,
          scenario: atom() | nil,
          schedules?: boolean(),
          lanes: pos_integer()
        }

  # Of so many faults one is a scenario, the others kill a node in an operation.
  @one_in 6

  @doc "Tries them all; gives how many were tried and how many ended right."
  @spec run(options()) :: {tried :: non_neg_integer(), right :: non_neg_integer()}
  def run(%{only: nil} = options) do
    results =
      0..(options.lanes - 1)
      |> Enum.map(&Task.async(fn -> lane(numbers(&1, options), options) end))
      |> Task.await_many(:infinity)
      |> Enum.concat()

    {length(results), Enum.count(results, & &1)}
  end

  def run(%{only: number} = options) do
    results = lane([number], options)
    {1, Enum.count(results, & &1)}
  end

  defp numbers(lane, options),
    do: Enum.filter(1..options.faults, &(rem(&1, options.lanes) == lane))

  # A cluster is used until something goes wrong in it.
  defp lane(numbers, options) do
    {results, rigs} = Enum.map_reduce(numbers, %{}, &one(&1, &2, options))
    unless options.only && results != [true], do: Enum.each(Map.values(rigs), &Rig.stop/1)
    results
  end

  defp one(number, rigs, options) do
    # Numbers of one lane have clusters of one size.
    count = count(number, options)
    _ = :rand.seed(:exsss, {options.seed, number, count})
    fault = choose(count, options)
    started = System.monotonic_time(:millisecond)

    try do
      rig = Map.get_lazy(rigs, count, fn -> Rig.start(count) end)
      rigs = Map.put(rigs, count, rig)

      try do
        rig = strike(rig, fault)
        say(number, "right", fault, started)
        {true, Map.put(rigs, count, rig)}
      catch
        class, reason -> wrong(number, rigs, {class, reason, __STACKTRACE__}, fault, options)
      end
    catch
      class, reason -> wrong(number, rigs, {class, reason, __STACKTRACE__}, fault, options)
    end
  end

  defp count(number, %{schedules?: schedules?}),
    do: if(schedules?, do: 3, else: 2) + rem(number, 2)

  defp choose(count, %{schedules?: true}), do: Schedule.random(count)

  defp choose(_count, %{scenario: name}) when name not in [nil, :kill], do: name

  defp choose(count, options) do
    if options.scenario == nil and :rand.uniform(@one_in) == 1,
      do: Enum.random(Scenarios.names()),
      else: Round.random(count)
  end

  defp strike(rig, name) when is_atom(name), do: Scenarios.run(name, rig)
  defp strike(rig, %{operation: _} = schedule), do: Schedule.run(rig, schedule)
  defp strike(rig, fault), do: Round.run(rig, fault)

  defp wrong(number, rigs, {class, reason, stack}, fault, options) do
    count = count(number, options)
    rig = rigs[count]

    IO.puts("""
    fault #{number}: WRONG #{describe(fault)}
      again: script/faults #{if options.schedules?, do: "--schedules "}--seed #{options.seed} --only #{number}
      #{indented(Exception.format(class, reason, stack))}
    """)

    if options.only && rig do
      IO.puts("  kept: #{Enum.map_join(rig.machines, " ", & &1.home)}")
      {false, rigs}
    else
      if rig, do: Rig.stop(rig)
      {false, Map.delete(rigs, count)}
    end
  end

  defp indented(text), do: String.replace(String.trim(text), "\n", "\n  ")

  defp say(number, how, fault, started) do
    ms = System.monotonic_time(:millisecond) - started
    IO.puts("fault #{number}: #{how} #{describe(fault)}, #{ms} ms")
  end

  defp describe(name) when is_atom(name), do: "#{name}"
  defp describe(%{operation: _} = schedule), do: Schedule.describe(schedule)

  defp describe(fault) do
    {how, what} = fault.fault
    again = if fault.again, do: ", again at #{inspect(fault.again)} of the start"
    at = if how == :step, do: "at #{inspect(what)}", else: "after #{what} ms"
    "#{fault.kind} from node #{fault.coordinator}, node #{fault.victim} killed #{at}#{again}"
  end
end
