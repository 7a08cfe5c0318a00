defmodule Exchange.Record do
  @moduledoc "A call detail record: what remains of a call once it has ended."

  alias Exchange.Numbering

  @enforce_keys [:id, :from, :to, :seconds, :cents]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          id: pos_integer(),
          from: Numbering.t(),
          to: Numbering.t(),
          seconds: non_neg_integer(),
          cents: non_neg_integer()
        }
end
