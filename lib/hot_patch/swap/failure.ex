defmodule HotPatch.Swap.Failure do
  @moduledoc false
  # Why a swap failed. Nothing was changed, unless the new code is `loaded?`. The text names the process
  # at fault. Where it is `told?` none is: whoever decides has said that it is to be taken back.

  alias HotPatch.Swap.PhaseTimes

  @type reason ::
          :old_code
          | :busy
          | :fatal
          | :shadow
          | :on_load
          | :abandoned
          | :taken_back
          | :engine_died
          | :half
          | atom()

  @type t :: %__MODULE__{
          reason: reason(),
          text: String.t(),
          pause_us: non_neg_integer(),
          loaded?: boolean(),
          told?: boolean(),
          phases: [PhaseTimes.t()]
        }
  @enforce_keys [:reason, :text]
  defstruct [:reason, :text, pause_us: 0, loaded?: false, told?: false, phases: []]

  @doc """
  A failure; `pause_us` and `loaded?` are given where anybody stood still, or the code was loaded. The
  reason `:told` stands for `:taken_back` by whoever decides.
  """
  @spec new(reason() | :told, String.t(), keyword()) :: t()
  def new(reason, text, more \\ [])
  def new(:told, text, more), do: new(:taken_back, text, [told?: true] ++ more)

  def new(reason, text, more),
    do: struct!(%__MODULE__{reason: reason, text: text}, more)
end
