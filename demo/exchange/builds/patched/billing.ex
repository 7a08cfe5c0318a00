defmodule Exchange.Billing do
  @moduledoc "What a call costs. Every minute that has begun is charged."

  @vsn 2

  alias Exchange.{Numbering, Tariff}

  @doc "The price in cents of a call of `seconds` to the number `to`."
  @spec charge(Numbering.t(), non_neg_integer()) :: non_neg_integer()
  def charge(to, seconds) do
    minutes_begun = div(seconds + 59, 60)
    minutes_begun * Tariff.cents_per_minute(Numbering.zone(to))
  end
end
