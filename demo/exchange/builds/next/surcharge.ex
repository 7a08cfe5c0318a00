defmodule Exchange.Surcharge do
  @moduledoc "What is on a bill beside calls."

  @enforce_keys [:for, :cents]
  defstruct @enforce_keys

  @type t :: %__MODULE__{for: String.t(), cents: non_neg_integer()}

  @doc "The region whose surcharges count here."
  @spec region() :: String.t()
  def region, do: Application.fetch_env!(:exchange, :region)
end

defimpl Exchange.Printable, for: Exchange.Surcharge do
  def line(surcharge), do: "#{surcharge.for}: #{surcharge.cents} cents"
end
