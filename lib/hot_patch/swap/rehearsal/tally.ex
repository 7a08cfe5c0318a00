defmodule HotPatch.Swap.Rehearsal.Tally do
  @moduledoc false
  # Counts what a rehearsal has found, by module, and works out what it means for the real thing. Pure.

  alias HotPatch.Rehearsal.ModuleResult
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Rehearsal.Attempt

  @typedoc "Processes that are alike, and how their modules convert; nil where that cannot be tried."
  @type work :: %{kind: atom(), modules: [{module(), Conversion.t() | nil}], pids: [pid()]}

  @typedoc "Processes that are to try the same."
  @type chosen :: {%{module() => Conversion.t()}, [pid()]}
  @type t :: %__MODULE__{modules: %{module() => map()}, wait: non_neg_integer()}
  defstruct modules: %{}, wait: 0

  # What standing still takes of a process beside its conversion, in microseconds: measured, see
  # docs/figures.md.
  @each_us 6

  # So many processes are named for failures that are alike.
  @named 5

  @doc "Nothing is counted yet: modules with their kinds, and how many processes each has."
  @spec new([{module(), atom(), non_neg_integer()}]) :: t()
  def new(modules) do
    %__MODULE__{
      modules:
        for {module, kind, count} <- modules, into: %{} do
          {module,
           %{
             kind: kind,
             processes: count,
             us: 0,
             made: 0,
             words: 0,
             longest: 0,
             forms: %{},
             failures: %{},
             left: %{}
           }}
        end
    }
  end

  @doc """
  What is to be tried: a sample of each module, without those that cannot or shall not be. Gives what processes
  are to try, and a tally in which the others are counted.
  """
  @spec begin([work()], %{
          :sample => pos_integer() | nil,
          :without => [module()],
          optional(atom()) => term()
        }) :: {t(), [chosen()]}
  def begin(works, how) do
    by_module =
      for(
        work <- works,
        {module, conversion} <- work.modules,
        do: {module, {(conversion && conversion.kind) || work.kind, conversion, work.pids}}
      )
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))

    tally =
      new(for {module, [{kind, _, _} | _] = ones} <- by_module, do: {module, kind, count(ones)})

    tally = Enum.reduce(by_module, tally, &left_out(&1, &2, how.without))
    {tally, chosen(works, how.without, how.sample)}
  end

  defp count(ones), do: ones |> Enum.map(fn {_kind, _, pids} -> length(pids) end) |> Enum.sum()

  defp left_out({module, ones}, tally, without) do
    if module in without,
      do: left(tally, module, :effects, count(ones)),
      else: left(tally, module, :no_copy, ones |> Enum.filter(&(elem(&1, 1) == nil)) |> count())
  end

  defp chosen(works, without, sample) do
    possible =
      for %{modules: modules, pids: pids} <- works,
          tried = for({module, %{} = one} <- modules, module not in without, do: {module, one}),
          tried != [],
          do: {tried, pids}

    if sample,
      do: sampled(possible, sample),
      else: for({tried, pids} <- possible, do: {Map.new(tried), pids})
  end

  # So many of each module. The few that have several try those for which they were taken.
  defp sampled(possible, most) do
    for({tried, pids} <- possible, one <- tried, do: {one, pids})
    |> Enum.group_by(fn {{module, _conversion}, _pids} -> module end)
    |> Enum.flat_map(fn {_module, ones} -> spread(ones, most) end)
    |> Enum.group_by(&elem(&1, 1), &elem(&1, 0))
    |> Enum.map(fn {pid, tried} -> {Map.new(tried), [pid]} end)
  end

  # Spread over all of them: those that are neighbours are alike.
  defp spread(ones, most) do
    count = ones |> Enum.map(fn {_one, pids} -> length(pids) end) |> Enum.sum()
    every = max(div(count, most), 1)

    for({one, pids} <- ones, pid <- pids, do: {one, pid})
    |> Enum.take_every(every)
    |> Enum.take(most)
  end

  @doc "A process took so long, in native units, until it got to its turn."
  @spec waited(t(), integer()) :: t()
  def waited(tally, native), do: %{tally | wait: max(tally.wait, native)}

  @doc "What came of an attempt."
  @spec add(t(), module(), Attempt.result(), pid()) :: t()
  def add(tally, module, {:made, made}, _pid) do
    change(tally, module, fn one ->
      %{timed(one, made.us) | made: one.made + 1, words: one.words + made.words}
      |> update_in([:forms], fn forms -> Map.update(forms, {made.from, made.to}, 1, &(&1 + 1)) end)
    end)
  end

  def add(tally, module, {:failed, failed}, pid) do
    change(tally, module, fn one ->
      key = {failed.reason, failed.place}
      first = fn -> {0, []} end
      {count, named} = Map.get_lazy(one.failures, key, first)
      named = if count < @named, do: [inspect(pid) | named], else: named
      put_in(timed(one, failed.us).failures[key], {count + 1, named})
    end)
  end

  def add(tally, module, {why, _facts}, _pid) when why in [:own_table, :unasked],
    do: left(tally, module, why)

  defp timed(one, us), do: %{one | us: one.us + us, longest: max(one.longest, us)}

  @doc "Processes that could not be tried."
  @spec left(t(), module(), ModuleResult.why(), non_neg_integer()) :: t()
  def left(tally, module, why, count \\ 1)
  def left(tally, _module, _why, 0), do: tally

  def left(tally, module, why, count) do
    change(tally, module, fn one ->
      update_in(one.left, fn left -> Map.update(left, why, count, &(&1 + count)) end)
    end)
  end

  defp change(tally, module, fun), do: update_in(tally.modules[module], fun)

  @doc "What was found of each module."
  @spec results(t()) :: [ModuleResult.t()]
  def results(tally) do
    for {module, one} <- Enum.sort(tally.modules) do
      %ModuleResult{
        module: inspect(module),
        kind: one.kind,
        processes: one.processes,
        tried: tried(one),
        forms:
          for(
            {{from, to}, count} <- Enum.sort(one.forms),
            do: %{from: from, to: to, count: count}
          ),
        convert_us: one.us,
        longest_us: one.longest,
        memory_bytes: bytes(one.words),
        failures: failures(one),
        left_out:
          for(
            {why, count} <- Enum.sort(one.left),
            do: %{why: why, count: count, text: ModuleResult.text(why)}
          )
      }
    end
  end

  defp failures(one) do
    for {{reason, place}, {count, named}} <- Enum.sort(one.failures),
        do: %{reason: reason, place: place, count: count, processes: Enum.reverse(named)}
  end

  defp tried(one),
    do: one.made + (one.failures |> Map.values() |> Enum.map(&elem(&1, 0)) |> Enum.sum())

  @doc """
  About what it would take: the others are taken to be as those that were tried. All stand still from the
  first that stops to the last that goes on, so that the one that came to its turn last is waited for by all.
  """
  @spec figures(t(), non_neg_integer(), pos_integer()) :: %{
          suspended: non_neg_integer(),
          wait_us: non_neg_integer(),
          pause_us: non_neg_integer(),
          memory_bytes: non_neg_integer()
        }
  def figures(tally, suspended, schedulers) do
    wait_us = System.convert_time_unit(tally.wait, :native, :microsecond)
    modules = Map.values(tally.modules)
    convert_us = modules |> Enum.map(&whole(&1.us, tried(&1), &1.processes)) |> Enum.sum()
    longest_us = modules |> Enum.map(& &1.longest) |> Enum.max(fn -> 0 end)
    pause_us = wait_us + @each_us * suspended + max(longest_us, div(convert_us, schedulers))

    %{
      suspended: suspended,
      wait_us: wait_us,
      pause_us: if(suspended == 0, do: 0, else: pause_us),
      memory_bytes:
        modules |> Enum.map(&whole(bytes(&1.words), &1.made, &1.processes)) |> Enum.sum()
    }
  end

  defp whole(_sum, 0, _count), do: 0
  defp whole(sum, of, count), do: div(sum * count, of)

  defp bytes(words), do: words * :erlang.system_info(:wordsize)
end
