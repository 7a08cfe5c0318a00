defmodule HotPatch.Support.TermWalk do
  @moduledoc false
  # Along all that a term holds: lists, also those whose tail is no list, maps with their keys, tuples, and structs as the maps that
  # they are. Whatever is none of these is a leaf, `[]` too. Values that funs hold are not gone to: whoever cares looks at the leaf.

  @doc """
  A term with something else in the place of its leaves.

      iex> HotPatch.Support.TermWalk.map({1, [2 | 3], %{a: 4}}, &if(is_integer(&1), do: &1 + 1, else: &1))
      {2, [3 | 4], %{a: 5}}
  """
  @spec map(term(), (term() -> term())) :: term()
  def map([head | tail], leaf), do: [map(head, leaf) | map(tail, leaf)]

  def map(map, leaf) when is_map(map),
    do: map |> :maps.to_list() |> map(leaf) |> :maps.from_list()

  def map(tuple, leaf) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> map(leaf) |> List.to_tuple()

  def map(other, leaf), do: leaf.(other)

  @doc """
  Whether one of the leaves is so.

      iex> HotPatch.Support.TermWalk.any?(%{a: [1 | :b]}, &(&1 == :b))
      true
  """
  @spec any?(term(), (term() -> boolean())) :: boolean()
  def any?([head | tail], leaf), do: any?(head, leaf) or any?(tail, leaf)
  def any?(map, leaf) when is_map(map), do: map |> :maps.to_list() |> any?(leaf)
  def any?(tuple, leaf) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> any?(leaf)
  def any?(other, leaf), do: leaf.(other)
end
