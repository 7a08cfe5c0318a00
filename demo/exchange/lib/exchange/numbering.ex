defmodule Exchange.Numbering do
  @moduledoc "The numbering plan: which zone a dialled number lies in."

  @type t :: String.t()
  @type zone :: :local | :national | :abroad

  @doc "All zones; each has a trunk of its own."
  @spec zones() :: [zone()]
  def zones, do: [:local, :national, :abroad]

  @doc "The zone of a number: `00...` is abroad, `0...` elsewhere in the country."
  @spec zone(t()) :: zone()
  def zone("00" <> _), do: :abroad
  def zone("0" <> _), do: :national
  def zone(_), do: :local
end
