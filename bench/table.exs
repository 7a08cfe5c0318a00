defmodule Bench.Table do
  # What all figures are written with.

  # Every cell as wide as its column.
  def line(widths, cells) do
    widths
    |> Enum.zip_with(cells, fn width, cell -> cell |> to_string() |> String.pad_leading(width) end)
    |> Enum.join(" ")
  end

  # Of what was measured; nil if nothing was.
  def median(values) do
    case values |> Enum.reject(&is_nil/1) |> Enum.sort() do
      [] -> nil
      sorted -> Enum.at(sorted, div(length(sorted), 2))
    end
  end

  # The value below which a share of sorted ones lies; nil if there are none.
  def percentile([], _share), do: nil

  def percentile(sorted, share),
    do: Enum.at(sorted, min(length(sorted) - 1, trunc(length(sorted) * share)))

  # Microseconds of processor time that this VM has used, more exactly than `erlang:statistics(runtime)`: as the scheduler
  # of Linux has counted it for each thread. What else runs on the machine does not count.
  def processor do
    for task <- File.ls!("/proc/self/task"), reduce: 0, do: (sum -> sum + div(spent(task), 1000))
  end

  defp spent(task) do
    case File.read("/proc/self/task/#{task}/schedstat") do
      {:ok, text} -> text |> String.split() |> hd() |> String.to_integer()
      {:error, _ended} -> 0
    end
  end

  # Microseconds as milliseconds; nil if nothing was measured.
  def ms(nil), do: "-"
  def ms(us), do: decimal(us / 1000)

  def decimal(number, digits \\ 1), do: :erlang.float_to_binary(number / 1, decimals: digits)
end
