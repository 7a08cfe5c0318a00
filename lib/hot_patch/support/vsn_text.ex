defmodule HotPatch.Support.VsnText do
  @moduledoc false
  # The text of a module's `vsn`, letter for letter as the native reader writes it: so that a
  # version in a manifest can be compared with the code that runs, and no atom is made of it.

  import Bitwise

  # The reader writes out no larger integer.
  @largest 1 <<< 512

  @doc "The text of an attribute's value; nil for none, or one that has no text."
  @spec text(term()) :: String.t() | nil
  def text([]), do: nil

  def text(vsn) do
    vsn |> write() |> IO.iodata_to_binary()
  catch
    :no_text -> nil
  end

  defp write(number) when is_integer(number) and number < @largest and number > -@largest,
    do: Integer.to_string(number)

  defp write(atom) when is_atom(atom), do: quoted(Atom.to_string(atom), ?')
  defp write(bytes) when is_binary(bytes), do: ["<<", numbers(:binary.bin_to_list(bytes)), ">>"]
  defp write(tuple) when is_tuple(tuple), do: [?{, all(Tuple.to_list(tuple)), ?}]

  defp write(list) when is_list(list) do
    cond do
      List.improper?(list) -> throw(:no_text)
      list == [] or not Enum.all?(list, &(&1 in 0..255)) -> [?[, all(list), ?]]
      Enum.all?(list, &(&1 in ?\s..?~)) -> quoted(List.to_string(list), ?")
      true -> [?[, numbers(list), ?]]
    end
  end

  defp write(_float_map_or_fun), do: throw(:no_text)

  defp quoted(text, quote) do
    escaped = for <<c::utf8 <- text>>, do: if(c in [quote, ?\\], do: [?\\, c], else: <<c::utf8>>)
    [quote, escaped, quote]
  end

  defp numbers(bytes), do: Enum.map_join(bytes, ",", &Integer.to_string/1)
  defp all(terms), do: terms |> Enum.map(&write/1) |> Enum.intersperse(?,)
end
