defmodule Dialling do
  @moduledoc "How numbers are written, and where they lead."

  @vsn 2

  @doc "A number as it is written: abroad with a space behind the country."
  @spec written(String.t()) :: String.t()
  def written("00" <> <<country::binary-size(2)>> <> rest), do: "+#{country} #{rest}"
  def written(number), do: number

  @doc "Where a number leads: abroad, elsewhere in the country, or next door."
  @spec zone(String.t()) :: :abroad | :national | :local
  def zone("00" <> _), do: :abroad
  def zone("0" <> _), do: :national
  def zone(_number), do: :local
end
