defmodule Bench.Swap.Table do
  # A line of a table, every cell as wide as its column.

  def line(widths, cells) do
    widths
    |> Enum.zip_with(cells, fn width, cell -> cell |> to_string() |> String.pad_leading(width) end)
    |> Enum.join(" ")
  end
end
