defprotocol Exchange.Printable do
  @moduledoc "What can stand on a bill."

  @doc "The line on the bill."
  @spec line(t()) :: String.t()
  def line(item)
end

defimpl Exchange.Printable, for: Exchange.Record do
  def line(record) do
    cents = record.cents |> rem(100) |> Integer.to_string() |> String.pad_leading(2, "0")
    "#{record.from} to #{record.to}, #{record.seconds} s: #{div(record.cents, 100)}.#{cents}"
  end
end
