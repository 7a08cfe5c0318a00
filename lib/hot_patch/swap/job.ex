defmodule HotPatch.Swap.Job do
  @moduledoc false
  # `prepared` is the result of code:prepare_loading/1 of the new code (nil: nothing is loaded,
  # only states are converted), but for `added`: modules that are new here and become current
  # ahead of the rest (see HotPatch.Swap.EarlyLoad). `shadows` are copies under other names, `on_load`
  # the modules that can only be loaded by a step of their own. `pause_timeout`: milliseconds within which all must be suspended
  # and converted. `hold_timeout`: how long they may then wait for a decision; nil if none
  # is asked for. `transition` and `purge`: see HotPatch.apply/2. `after_load` is called while
  # everybody still stands still.
  alias HotPatch.Strategy
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.OnLoad
  alias HotPatch.Swap.Shadow

  @enforce_keys [:changes, :prepared, :pause_timeout]
  defstruct [
    :changes,
    :prepared,
    :pause_timeout,
    :hold_timeout,
    :added,
    shadows: [],
    on_load: [],
    transition: :suspend,
    purge: :soft,
    after_load: nil
  ]

  @type t :: %__MODULE__{
          changes: [Change.t()],
          prepared: term(),
          added: EarlyLoad.added() | nil,
          shadows: [Shadow.t()],
          on_load: [OnLoad.t()],
          pause_timeout: pos_integer(),
          hold_timeout: pos_integer() | nil,
          transition: Strategy.transition(),
          purge: :soft | :force,
          after_load: (() -> term()) | nil
        }
end
