defmodule HotPatch.Swap.StateForm do
  @moduledoc false
  # Of what form a state is, as far as two versions of a module may differ in it: its type, its size, its
  # tag or its keys. What is in it is of no interest.

  # Keys of a map up to which they are its form; beyond them it is a table.
  @most_keys 200

  @type t :: term()

  @doc "The form of what a process keeps: of a gen_statem that of its data."
  @spec of(term(), kind :: atom()) :: t()
  def of({_state, data}, :statem), do: of(data)
  def of(state, _kind), do: of(state)

  @doc "The form of a term."
  @spec of(term()) :: t()
  def of(tuple) when is_tuple(tuple) and tuple_size(tuple) > 0 do
    tag = elem(tuple, 0)
    {:tuple, tuple_size(tuple), if(is_atom(tag), do: tag)}
  end

  def of(%name{} = struct), do: {:struct, name, struct |> Map.keys() |> Enum.sort()}

  def of(map) when is_map(map) and map_size(map) <= @most_keys do
    keys = Map.keys(map)
    if Enum.all?(keys, &is_atom/1), do: {:map, Enum.sort(keys)}, else: :map
  end

  def of(map) when is_map(map), do: :map
  def of({}), do: {:tuple, 0, nil}
  def of(list) when is_list(list), do: :list
  def of(atom) when is_atom(atom), do: {:atom, atom}
  def of(number) when is_integer(number), do: :integer
  def of(number) when is_float(number), do: :float
  def of(bits) when is_bitstring(bits), do: :bits
  def of(_fun_pid_port_or_reference), do: :opaque

  @doc "Which of two versions a state is of, by the forms that states of both have; nil if that does not tell."
  @spec version(t(), [{before :: t(), now :: t()}]) :: :before | :now | nil
  def version(form, pairs) do
    case {List.keymember?(pairs, form, 0), List.keymember?(pairs, form, 1)} do
      {true, false} -> :before
      {false, true} -> :now
      _both_or_none -> nil
    end
  end
end
