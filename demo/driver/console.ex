defmodule Demo.Console do
  @moduledoc false
  # What the demo looks like: a headline per step, everything else indented below it.

  @indent "   "

  @spec title(String.t()) :: :ok
  def title(text), do: IO.puts(["\n", paint(:bright, text)])

  @spec headline(pos_integer(), String.t()) :: :ok
  def headline(number, text), do: IO.puts(["\n", paint(:bright, "#{number}. #{text}")])

  @doc "Prints text of one or more lines."
  @spec say(String.Chars.t()) :: :ok
  def say(text \\ "") do
    text
    |> to_string()
    |> String.trim_trailing()
    |> String.split("\n")
    |> Enum.each(&IO.puts(String.trim_trailing(@indent <> &1)))
  end

  @doc "Prints what a call answers as the operator sees it: it has the whole width."
  @spec answer(String.Chars.t()) :: :ok
  def answer(text), do: text |> to_string() |> String.trim_trailing() |> IO.puts()

  @doc "Prints a call as an operator would type it."
  @spec prompt(node(), String.t()) :: :ok
  def prompt(node, code) do
    [name, _host] = node |> Atom.to_string() |> String.split("@")
    IO.puts(["\n", paint(:cyan, "iex(#{name})> #{code}")])
  end

  @spec verdict(boolean(), String.t()) :: :ok
  def verdict(true, text), do: IO.puts([@indent, paint(:green, "ok  "), text])
  def verdict(false, text), do: IO.puts([@indent, paint(:red, "NO  "), text])

  @doc "Prints rows of cells below a header; numbers are aligned to the right."
  @spec table([String.t()], [[term()]]) :: :ok
  def table(header, rows) do
    rows = for row <- rows, do: Enum.map(row, &cell/1)

    widths =
      Enum.zip_with([Enum.map(header, &{:left, &1}) | rows], fn column ->
        column |> Enum.map(fn {_, text} -> String.length(text) end) |> Enum.max()
      end)

    # A heading stands over its column the way the column's cells do.
    sides = for {side, _text} <- hd(rows), do: side

    for row <- [Enum.zip(sides, header) | rows] do
      row |> Enum.zip_with(widths, &pad/2) |> Enum.join("  ") |> say()
    end

    :ok
  end

  @doc "An integer with its thousands separated."
  @spec count(integer()) :: String.t()
  def count(integer) do
    integer |> Integer.to_string() |> String.replace(~r/(?<=\d)(?=(\d{3})+$)/, ",")
  end

  @doc "Microseconds, in milliseconds."
  @spec milliseconds(number()) :: String.t()
  def milliseconds(us) when us < 99_950,
    do: "#{:erlang.float_to_binary(us / 1000, decimals: 1)} ms"

  def milliseconds(us), do: "#{count(round(us / 1000))} ms"

  defp cell({:us, nil}), do: {:right, "-"}
  defp cell({:us, us}), do: {:right, milliseconds(us)}
  defp cell(integer) when is_integer(integer), do: {:right, count(integer)}
  defp cell(text), do: {:left, to_string(text)}

  defp pad({:left, text}, width), do: String.pad_trailing(text, width)
  defp pad({:right, text}, width), do: String.pad_leading(text, width)

  defp paint(style, text), do: IO.ANSI.format([style, text])
end
