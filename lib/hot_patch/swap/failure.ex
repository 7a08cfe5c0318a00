defmodule HotPatch.Swap.Failure do
  @moduledoc false
  # Why a swap failed. Nothing was changed, unless the new code is `loaded?`. The text names the process
  # at fault. `:told` is none: whoever decides has said that it is to be taken back.

  alias HotPatch.Swap.PhaseTimes

  @type reason ::
          :old_code
          | :busy
          | :fatal
          | :shadow
          | :on_load
          | :abandoned
          | :taken_back
          | :told
          | :engine_died
          | :half
          | atom()

  @type t :: %__MODULE__{
          reason: reason(),
          text: String.t(),
          pause_us: non_neg_integer(),
          loaded?: boolean(),
          phases: [PhaseTimes.t()]
        }
  @enforce_keys [:reason, :text]
  defstruct [:reason, :text, pause_us: 0, loaded?: false, phases: []]

  @doc "A failure; `pause_us` and `loaded?` are given where anybody stood still, or the code was loaded."
  @spec new(reason(), String.t(), keyword()) :: t()
  def new(reason, text, more \\ []),
    do: struct!(%__MODULE__{reason: reason, text: text}, more)
end
