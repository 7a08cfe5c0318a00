defmodule HotPatch.Swap.Target do
  @moduledoc false
  # A process that a swap has to do with, as HotPatch.Swap.Discovery finds it. What is done with it is
  # a HotPatch.Swap.ProcessTask.

  @typedoc """
  A process to suspend and the modules whose `change_code` it is to be sent. `rule` says by
  what it was found:

    * `:initial_call` - proc_lib noted that it began in the module's `init/1`
    * `:entered_loop` - it began in another function of the module and is in a behaviour's loop
    * `:supervisor` - proc_lib noted the supervisor's callback module
    * `:system_continue` - a special process: the module exports system_continue/3
    * `:handlers` - asked: an event manager named its handlers
    * `:hosted` - it took the name of the module for its initial call when it mounted or joined: a
      LiveView or a channel, in the loop of Phoenix's server
    * `:inside_state` - asked: a wrapper named the callback module that it keeps in its state
    * `:entered_elsewhere` - asked: it began in a function of another module, is in a behaviour's
      loop, and the module is the callback module there
    * `:loop` - it is in the loop of a behaviour that is not OTP's, whose callback module is the module
    * `:agent` - it is an Agent, and a function of the module made its state
    * `:below` - a gen_statem that will come back to the module (pop_callback_module)
    * `:holds_fun` - it works for another module and holds a fun that a changed one has made
    * `:label` - asked: the same of one whose label (`proc_lib:set_label/1`) is a changed module
      or a tuple that begins with one, wherever it began

  One that `keeps?` its state converts nothing, one that `holds?` funs of the code that goes only makes
  them anew where it has nothing to convert, and one that `ends?` is ended with the load. Of one that is
  `sure?` it was read in its loop that it works for the module; of the others that is looked at when
  they stand still. `reductions` are those that it had when it was read; nil where it was not. `loop` is the
  module of a behaviour that is not OTP's.
  """
  @type t :: %__MODULE__{
          pid: pid(),
          kind: kind(),
          rule: rule(),
          modules: [{module(), change_code? :: boolean()}],
          keeps?: boolean(),
          holds?: boolean(),
          ends?: boolean(),
          sure?: boolean(),
          reductions: non_neg_integer() | nil,
          loop: module() | nil
        }
  @type kind ::
          :server
          | :supervisor
          | :event_manager
          | :special
          | :hosted
          | :wrapper
          | :holder
          | :foreign
          | :below
          | :agent
  @type rule ::
          :initial_call
          | :entered_loop
          | :supervisor
          | :system_continue
          | :handlers
          | :hosted
          | :inside_state
          | :entered_elsewhere
          | :label
          | :loop
          | :below
          | :agent
          | :holds_fun

  @enforce_keys [:pid, :kind, :rule, :modules]
  defstruct [
    :pid,
    :kind,
    :rule,
    :modules,
    :loop,
    :reductions,
    keeps?: false,
    holds?: false,
    ends?: false,
    sure?: false
  ]

  @typedoc "Some that are alike in all that is to be done with them; of the target only what they have in common counts."
  @type group :: {t(), [pid(), ...]}

  @doc "Their pids, by what they have in common."
  @spec alike([t()]) :: %{t() => [pid(), ...]}
  # How many reductions one had is of interest only to who comes back to it.
  def alike(targets), do: Enum.group_by(targets, &%{&1 | pid: nil, reductions: nil}, & &1.pid)

  @doc "The way back."
  @spec apart(Enumerable.t(group())) :: [t()]
  def apart(groups), do: for({target, pids} <- groups, pid <- pids, do: %{target | pid: pid})
end
