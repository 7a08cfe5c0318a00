defmodule Exchange.Billing do
  @moduledoc """
  What a call costs.

  This build has the bug: a minute that has begun is not charged, so short calls are free.
  """

  @vsn 1

  alias Exchange.Numbering

  @cents_per_minute %{local: 3, national: 10, abroad: 45}

  @doc "The price in cents of a call of `seconds` to the number `to`."
  @spec charge(Numbering.t(), non_neg_integer()) :: non_neg_integer()
  def charge(to, seconds) do
    div(seconds, 60) * Map.fetch!(@cents_per_minute, Numbering.zone(to))
  end
end
