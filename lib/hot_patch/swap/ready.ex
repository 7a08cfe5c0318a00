defmodule HotPatch.Swap.Ready do
  @moduledoc false
  # A job with everything done that needs no pause. `back` is the code that runs now, to
  # be made current again, or why there is none; nil where it cannot be needed. `ahead?`: what
  # becomes current ahead of the rest is current. `fatal`: why processes would die of the change.
  # `signal` is that of the processes concerned. `load` is settled when the load begins: what was
  # decided, and what only came ahead of it, can be told apart from outside. `funs` are those that are
  # made anew in the states of processes that stand still.
  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Job
  alias HotPatch.Swap.PreviousCode
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Signal

  @enforce_keys [:job, :found, :shadows]
  defstruct [:job, :found, :shadows, :back, :signal, :load, :funs, ahead?: false, fatal: %{}]

  @type t :: %__MODULE__{
          job: Job.t(),
          found: Discovery.found(),
          shadows: [Shadow.t()],
          back: PreviousCode.t() | nil,
          signal: Signal.t() | nil,
          load: Signal.t() | nil,
          funs: FunRenewal.shared() | nil,
          ahead?: boolean(),
          fatal: Casualties.reasons()
        }
end
