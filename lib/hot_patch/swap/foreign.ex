defmodule HotPatch.Swap.Foreign do
  @moduledoc false
  # Processes in the loop of a behaviour that is not OTP's: gen_server2, p1_server, p1_fsm, whatever
  # speaks the system messages. How such a loop keeps its callback module and the state is known to
  # itself alone: its system_code_change/4 takes them out of its internal term, calls code_change,
  # and puts the result back (sys.erl, do_change_code/5).
  #
  # So it is asked to do just that, with a module of ours where the callback module stands. What that is
  # called with is the very term that code_change will get, and where it comes from in the internal
  # term is found by putting something else there. This runs nothing of the user's. It takes the
  # internal term: a loop without system_replace_state/2 hands it to the function of
  # `replace_state`. With one, the state is the loop's own notion, and nothing is certain.
  #
  # A loop may do more in its system_code_change/4 than to put the state back: where it does, it is
  # called again when the new code is current. What it returns is looked at before it is believed:
  # RabbitMQ's gen_server2 puts a list around its term there, and dies of that with its next step.

  alias HotPatch.Swap.Foreign.Decoy
  alias HotPatch.Swap.Foreign.Probe

  @typedoc """
  Where the callback module and the parts of the state are in the internal term; the parts, which are
  what code_change gets; and whether the loop changes nothing but the state.
  """
  @type form :: %{module: place(), state: [place()], parts: [term()], plain?: boolean()}
  @type place :: [pos_integer()]

  # How deep a loop's own fields are in its term, and how many of them there are at most.
  @depth 3
  @most_places 200

  @doc "Whether a loop hands its internal term to the function of `replace_state`."
  @spec open?(module()) :: boolean()
  def open?(loop), do: not function_exported?(loop, :system_replace_state, 2)

  @doc """
  Which of modules a loop's term works for; nil if none of them, or it cannot be told.
  """
  @spec works_for(term(), module(), [module()]) :: module() | nil
  def works_for(term, loop, modules) do
    there =
      term |> places(&(is_atom(&1) and &1 in modules)) |> Enum.map(&at(term, &1)) |> Enum.uniq()

    Enum.find(there, &match?({:ok, _form}, form(term, loop, &1)))
  end

  @doc "How a loop's term is made, if the module is its callback module."
  @spec form(term(), module(), module()) :: {:ok, form()} | :unknown
  def form(term, loop, module) do
    with [place] <- Enum.filter(places(term, &(&1 === module)), &leads?(term, loop, module, &1)),
         {:called, parts} <- called(term, loop, place),
         {:ok, states} <- states(term, loop, place, parts),
         {:ok, plain?} <- plain?(term, loop, place) do
      {:ok, %{module: place, state: states, parts: parts, plain?: plain?}}
    else
      _none_or_several -> :unknown
    end
  end

  # Whether the callback module stands at a place. Wherever it might stand there is one of ours
  # meanwhile: no code_change of the user's is run if it is another place.
  defp leads?(term, loop, module, place) do
    converts? =
      &(function_exported?(&1, :code_change, 3) or function_exported?(&1, :code_change, 4))

    term
    |> places(&(is_atom(&1) and (&1 === module or converts?.(&1))))
    |> Enum.reduce(term, &put(&2, &1, Decoy))
    |> called(loop, place) != :not_called
  end

  @doc "The parts of the state as code_change makes them, of a module or of what stands for it."
  @spec converted(form(), module(), term(), term()) :: {:ok, [term()]} | term()
  def converted(%{parts: [_one, _two] = parts}, module, vsn, extra) do
    with {:ok, one, two} <- apply(module, :code_change, [vsn | parts] ++ [extra]),
         do: {:ok, [one, two]}
  end

  def converted(%{parts: [state]}, module, vsn, extra) do
    with {:ok, new} <- module.code_change(vsn, state, extra), do: {:ok, [new]}
  end

  @doc "The term with other parts of the state."
  @spec with_parts(term(), form(), [term()]) :: term()
  def with_parts(term, form, parts) do
    form.state
    |> Enum.zip(parts)
    |> Enum.reduce(term, fn {place, part}, term -> put(term, place, part) end)
  end

  @doc """
  The term as the loop itself makes it of the one before, now that the new code is current; the
  one that was made of the rehearsal's parts where the loop fails at it, or makes something else.
  """
  @spec by_loop(
          before :: term,
          made :: term,
          module(),
          {module(), vsn :: term(), extra :: term()}
        ) ::
          term
        when term: term()
  def by_loop(before, made, loop, {module, vsn, extra}) do
    case loop.system_code_change(before, module, vsn, extra) do
      {:ok, new} -> if alike?(new, made), do: new, else: unwrapped(new, made)
      _failed -> made
    end
  catch
    _kind, _reason -> made
  end

  defp unwrapped([new], made), do: if(alike?(new, made), do: new, else: made)
  defp unwrapped(_new, made), do: made

  # The same kind of term: a record of the same name and size, or a list as long.
  defp alike?(new, made) when is_tuple(new) and is_tuple(made) and tuple_size(new) > 0,
    do: tuple_size(new) == tuple_size(made) and elem(new, 0) === elem(made, 0)

  defp alike?([_ | _] = new, [_ | _] = made),
    do: List.improper?(new) == List.improper?(made) and length(new) == length(made)

  defp alike?(new, made) when is_map(new) and is_map(made),
    do: Enum.sort(Map.keys(new)) == Enum.sort(Map.keys(made))

  defp alike?(_new, _made), do: false

  # The parts of the state are where something else, put there, gets to the module.
  defp states(term, loop, place, parts) do
    marks = Enum.map(parts, fn _part -> make_ref() end)

    [parts, marks]
    |> Enum.zip()
    |> Enum.reduce_while({:ok, []}, fn {part, mark}, {:ok, found} ->
      index = length(found)

      case for place_of <- places(term, &(&1 === part)) -- [place],
               {:called, called} <- [called(put(term, place_of, mark), loop, place)],
               Enum.at(called, index) === mark,
               do: place_of do
        [place_of] -> {:cont, {:ok, found ++ [place_of]}}
        _none_or_several -> {:halt, :unknown}
      end
    end)
  end

  # With the parts given back as they are, the term is the same.
  defp plain?(term, loop, place) do
    probed = put(term, place, Probe)

    case change(probed, loop) do
      {{:called, _parts}, {:ok, new}} -> {:ok, new === probed}
      _other -> :unknown
    end
  end

  defp called(term, loop, place) do
    {called, _result} = term |> put(place, Probe) |> change(loop)
    called
  end

  defp change(term, loop),
    do: Probe.watch(fn -> loop.system_code_change(term, Probe, nil, []) end)

  @doc false
  # The places of a term that are such, in tuples, lists and maps, not deeper than a loop keeps its own.
  @spec places(term(), (term() -> boolean())) :: [place()]
  def places(term, wanted?) do
    term |> places(wanted?, [], @depth) |> Enum.map(&Enum.reverse/1)
  end

  defp places(term, wanted?, way, depth) do
    own = if wanted?.(term) and way != [], do: [way], else: []

    inner =
      if depth > 0,
        do:
          for(
            {step, part} <- parts(term),
            place <- places(part, wanted?, [step | way], depth - 1),
            do: place
          ),
        else: []

    own ++ inner
  end

  defp parts(tuple) when is_tuple(tuple) and tuple_size(tuple) <= @most_places,
    do: tuple |> Tuple.to_list() |> Enum.with_index(1) |> Enum.map(fn {part, n} -> {n, part} end)

  defp parts([_ | _] = list) do
    if not List.improper?(list) and length(list) <= @most_places,
      do: list |> Enum.with_index(1) |> Enum.map(fn {part, n} -> {n, part} end),
      else: []
  end

  defp parts(map) when is_map(map) and map_size(map) <= @most_places, do: :maps.to_list(map)
  defp parts(_other), do: []

  defp at(term, []), do: term
  defp at(tuple, [step | way]) when is_tuple(tuple), do: tuple |> elem(step - 1) |> at(way)
  defp at(list, [step | way]) when is_list(list), do: list |> Enum.at(step - 1) |> at(way)
  defp at(map, [key | way]) when is_map(map), do: map |> Map.fetch!(key) |> at(way)

  defp put(_term, [], new), do: new

  defp put(tuple, [step | way], new) when is_tuple(tuple),
    do: put_elem(tuple, step - 1, put(elem(tuple, step - 1), way, new))

  defp put(list, [step | way], new) when is_list(list),
    do: List.update_at(list, step - 1, &put(&1, way, new))

  defp put(map, [key | way], new) when is_map(map), do: Map.update!(map, key, &put(&1, way, new))
end
