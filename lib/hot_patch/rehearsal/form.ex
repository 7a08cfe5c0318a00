defmodule HotPatch.Rehearsal.Form do
  @moduledoc """
  The form of a term, without any value of it: `{_, _}`, `%{a, b}`, `%MyApp.Call{id, to}`, `[_]`, `integer`.

  Keys that are atoms are the form of a map, as the names of fields are; other keys may be anybody's names or
  numbers and are not shown, nor are those of a map with many.
  """

  @most_keys 32
  @most_elements 16

  @doc """
  The form of a term.

      iex> HotPatch.Rehearsal.Form.of({:call, 7, "0123"})
      "{_, _, _}"
      iex> HotPatch.Rehearsal.Form.of(%{b: 1, a: [2]})
      "%{a, b}"
      iex> HotPatch.Rehearsal.Form.of(%{"0123" => 1})
      "%{_ => _}"
  """
  @spec of(term()) :: String.t()
  def of(%{__struct__: module} = struct) when is_atom(module),
    do: "%#{inspect(module)}#{struct |> Map.delete(:__struct__) |> of_map()}"

  def of(map) when is_map(map), do: "%" <> of_map(map)

  def of(tuple) when is_tuple(tuple) and tuple_size(tuple) > @most_elements,
    do: "{#{tuple_size(tuple)} elements}"

  def of(tuple) when is_tuple(tuple),
    do: "{#{"_" |> List.duplicate(tuple_size(tuple)) |> Enum.join(", ")}}"

  def of([]), do: "[]"
  def of(list) when is_list(list), do: "[_]"
  def of(nil), do: "nil"
  def of(boolean) when is_boolean(boolean), do: "boolean"
  def of(atom) when is_atom(atom), do: "atom"
  def of(binary) when is_binary(binary), do: "binary"
  def of(bits) when is_bitstring(bits), do: "bitstring"
  def of(integer) when is_integer(integer), do: "integer"
  def of(float) when is_float(float), do: "float"
  def of(pid) when is_pid(pid), do: "pid"
  def of(ref) when is_reference(ref), do: "reference"
  def of(port) when is_port(port), do: "port"
  def of(fun) when is_function(fun), do: "function"

  @doc """
  The form of a message or an answer: an atom that stands first in a tuple names what it is, as the name of a
  field does.

      iex> HotPatch.Rehearsal.Form.tagged({:charge, 7, "0123"})
      "{:charge, integer, binary}"
      iex> HotPatch.Rehearsal.Form.tagged([1])
      "[_]"
  """
  @spec tagged(term()) :: String.t()
  def tagged(tuple)
      when is_tuple(tuple) and tuple_size(tuple) in 2..@most_elements and is_atom(elem(tuple, 0)) do
    [tag | rest] = Tuple.to_list(tuple)
    "{#{Enum.join([inspect(tag) | Enum.map(rest, &of/1)], ", ")}}"
  end

  def tagged(other), do: of(other)

  @doc """
  The form of what a gen_server, or an event handler, gets: how it comes, and its name.

      iex> HotPatch.Rehearsal.Form.message({:"$gen_call", {self(), make_ref()}, {:charge, 7}})
      "call {:charge, integer}"
      iex> HotPatch.Rehearsal.Form.message({:"$gen_cast", :reset})
      "cast :reset"
      iex> HotPatch.Rehearsal.Form.message({:tick, "0123"})
      "info {:tick, binary}"
      iex> HotPatch.Rehearsal.Form.told({:event, {:tick, "0123"}})
      "event {:tick, binary}"
  """
  @spec message(term()) :: String.t()
  def message({:"$gen_call", _from, request}), do: "call #{named(request)}"
  def message({:"$gen_cast", request}), do: "cast #{named(request)}"
  def message(other), do: "info #{named(other)}"

  @doc "The same of what an event handler gets."
  @spec told({:event, term()} | {:call, term(), term()} | {:info, term()}) :: String.t()
  def told({:event, event}), do: "event #{named(event)}"
  def told({:call, _from, query}), do: "call #{named(query)}"
  def told({:info, message}), do: "info #{named(message)}"

  @doc "What is in such a message."
  @spec content(term()) :: term()
  def content({:"$gen_call", _from, request}), do: request
  def content({:"$gen_cast", request}), do: request
  def content(other), do: other

  defp named(atom) when is_atom(atom), do: inspect(atom)
  defp named(other), do: tagged(other)

  defp of_map(map) when map_size(map) > @most_keys, do: "{_ => _}"

  defp of_map(map) do
    keys = Map.keys(map)

    if Enum.all?(keys, &is_atom/1),
      do: "{#{keys |> Enum.sort() |> Enum.map_join(", ", &key/1)}}",
      else: "{_ => _}"
  end

  # As it is written in front of a colon.
  defp key(atom), do: :key |> Macro.inspect_atom(atom) |> String.trim_trailing(":")
end
