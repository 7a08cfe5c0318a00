defmodule HotPatch.Swap.Replay.Tally do
  @moduledoc false
  # Counts what a replay has found, by module. Pure.

  alias HotPatch.Rehearsal.Replay
  alias HotPatch.Swap.Replay.Comparison

  # Kinds of findings of a module that are told one by one, and values of each.
  @kinds 100
  @values 3

  @type t :: %{module() => map()}

  @doc "Nothing is counted yet; the modules with the number of processes that are to be heard."
  @spec new(%{module() => non_neg_integer()}) :: t()
  def new(modules) do
    Map.new(modules, fn {module, processes} ->
      {module,
       %{
         processes: processes,
         messages: 0,
         same: 0,
         crashes: %{},
         differences: %{},
         left: %{},
         unheard: %{}
       }}
    end)
  end

  @doc "What was found of a message."
  @spec add(t(), module(), Comparison.finding() | :not_its_own) :: t()
  def add(tally, _module, :not_its_own), do: tally
  def add(tally, module, {:left, reason}), do: left(tally, module, reason)

  def add(tally, module, :same),
    do: change(tally, module, &%{&1 | messages: &1.messages + 1, same: &1.same + 1})

  def add(tally, module, {:crash, crash, values}) do
    change(tally, module, fn one ->
      %{one | messages: one.messages + 1, crashes: counted(one.crashes, crash, values)}
    end)
  end

  def add(tally, module, {:differs, differences}) do
    change(tally, module, fn one ->
      kinds =
        Enum.reduce(differences, one.differences, fn {difference, values}, kinds ->
          counted(kinds, difference, values)
        end)

      %{one | messages: one.messages + 1, differences: kinds}
    end)
  end

  @doc "Messages that were left aside."
  @spec left(t(), module(), term(), pos_integer()) :: t()
  def left(tally, module, reason, count \\ 1),
    do: change(tally, module, &%{&1 | left: more(&1.left, reason, count)})

  @doc "Processes that are not heard."
  @spec unheard(t(), module(), term(), non_neg_integer()) :: t()
  def unheard(tally, module, reason, count \\ 1)
  def unheard(tally, _module, _reason, 0), do: tally

  def unheard(tally, module, reason, count),
    do: change(tally, module, &%{&1 | unheard: more(&1.unheard, reason, count)})

  defp change(tally, module, fun), do: Map.update!(tally, module, fun)

  defp more(counts, key, count) when map_size(counts) < @kinds or is_map_key(counts, key),
    do: Map.update(counts, key, count, &(&1 + count))

  defp more(counts, _key, count), do: Map.update(counts, :others, count, &(&1 + count))

  defp counted(kinds, kind, values) when map_size(kinds) < @kinds or is_map_key(kinds, kind) do
    {count, kept} = Map.get(kinds, kind, {0, []})
    kept = if values != nil and count < @values, do: [values | kept], else: kept
    Map.put(kinds, kind, {count + 1, kept})
  end

  # The message counts; of the kind there are too many.
  defp counted(kinds, _kind, _values), do: kinds

  @doc "What was found of each module."
  @spec results(t()) :: [Replay.t()]
  def results(tally) do
    for {module, one} <- Enum.sort(tally) do
      %Replay{
        module: inspect(module),
        processes: one.processes,
        messages: one.messages,
        same: one.same,
        crashes: told(one.crashes),
        differences: told(one.differences),
        left_aside: reasons(one.left),
        unheard: reasons(one.unheard)
      }
    end
  end

  # The most frequent first.
  defp told(kinds) do
    for {kind, {count, values}} <-
          Enum.sort_by(kinds, fn {kind, {count, _}} -> {-count, kind} end),
        do: Map.merge(kind, %{count: count, values: Enum.reverse(values)})
  end

  defp reasons(counts) do
    for {reason, count} <- Enum.sort_by(counts, fn {reason, count} -> {-count, reason} end) do
      why = if is_tuple(reason), do: elem(reason, 0), else: reason
      %{why: why, text: text(reason), count: count}
    end
  end

  defp text({:calls, {module, function, arity}}) when is_atom(module) and is_atom(function),
    do: "calls #{Exception.format_mfa(module, function, arity)}"

  defp text({:fun_of, module}), do: "calls a fun of #{inspect(module)}"

  defp text({:not_there, {module, function, arity}}),
    do:
      "reads with #{Exception.format_mfa(module, function, arity)} what is not there now, and may be there then"

  defp text({:fun_without, module}),
    do:
      "calls a fun of #{inspect(module)} of which it is not known which one of the new code it is"

  defp text({:struct_of, module}),
    do: "has #{inspect(module)} called by a library, by a protocol or its name"

  defp text({:kind, text}), do: text
  defp text(reason), do: Map.fetch!(texts(), reason)

  defp texts do
    %{
      receives: "receives messages by itself",
      unknown_fun: "hands on a fun of which it is not known where it leads",
      own_table: "reads an ETS table that only the process itself may read",
      atoms: "makes an atom that is not there yet",
      many_arguments: "hands on a fun of many arguments",
      too_long_before: "the old code takes long for it",
      too_much_memory: "needs more memory than a replay gives",
      failed: "the replay itself failed at it",
      overtaken: "more came than could be played",
      out_of_time: "was not got to in time",
      crashed: "its state could not be converted, see above",
      conversion: "its code_change was left aside",
      too_large: "has a state larger than max_state_bytes",
      late: "did not get to its turn in time",
      gone: "ended meanwhile",
      traced: "is traced by somebody else",
      sample: "not in the sample",
      no_copy: "its code cannot be copied, see below",
      special: "special processes are not played",
      hosted: "the server of its library cannot be copied",
      wrapper: "servers that keep the module in their state are not played",
      foreign: "servers of a behaviour that is not OTP's are not played",
      below: "a gen_statem has another callback module now, and may come back to this one",
      others: "other reasons"
    }
  end
end
