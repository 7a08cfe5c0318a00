defmodule HotPatch.Swap.Done do
  @moduledoc false
  # What a swap has done that went well; as it is made, one in which nobody took part.

  alias HotPatch.Swap.PhaseTimes

  @typedoc """
  `pause_us`: first suspend to last resume; `suspended`: how many processes; `releases`: how
  often one had to go on for a moment because another waited for it; `unsure`: processes
  that were started in the very moment of the load, by the old code or the new; `killed`:
  those that a purge by force has ended; `phases`: what took how long, in the order of time.
  """
  @type t :: %__MODULE__{
          killed: [pid()],
          pause_us: non_neg_integer(),
          suspended: non_neg_integer(),
          releases: non_neg_integer(),
          unsure: [pid()],
          phases: [PhaseTimes.t()]
        }
  defstruct killed: [], pause_us: 0, suspended: 0, releases: 0, unsure: [], phases: []
end
