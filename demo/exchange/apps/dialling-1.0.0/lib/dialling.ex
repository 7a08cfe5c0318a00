defmodule Dialling do
  @moduledoc "How numbers are written."

  @vsn 1

  @doc "A number as it is written."
  @spec written(String.t()) :: String.t()
  def written("00" <> abroad), do: "+" <> abroad
  def written(number), do: number
end
