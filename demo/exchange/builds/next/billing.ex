defmodule Exchange.Billing do
  @moduledoc "What a call costs: every interval that has begun, at the rates of the application `rates`."

  @vsn 3

  alias Exchange.Numbering

  @seconds Application.compile_env!(:exchange, :charged_seconds)

  @doc "The price in cents of a call of `seconds` to the number `to`."
  @spec charge(Numbering.t(), non_neg_integer()) :: non_neg_integer()
  def charge(to, seconds) do
    intervals_begun = div(seconds + @seconds - 1, @seconds)
    div(intervals_begun * @seconds * Rates.cents_per_minute(to), 60)
  end
end
