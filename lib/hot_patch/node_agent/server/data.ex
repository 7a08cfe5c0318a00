defmodule HotPatch.NodeAgent.Server.Data do
  @moduledoc false
  # What the agent's server knows besides the state it is in. It holds no monitors and no timers:
  # those belong to the process, and Protocol calls them by name.

  alias HotPatch.NodeAgent.Commit
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.Operation

  @typedoc "Who has this node, and what for: an operation, or what a coordinator locks it for."
  @type holder :: Operation.holder()

  @typedoc "How a commit ended, as its coordinator is told."
  @type answer :: {:ended, Commit.result()} | {:error, String.t()}

  @typedoc """
  - `operation`: what this node is held for, and `preparation` what was prepared for it.
  - `callers` wait for the commit to hold, or for its end; `deciders` have decided before it held,
    and wait for its end.
  - `early`: what was decided before it held; it is carried out when it holds.
  - `decision`: what the commit was told, and `decider` the process that waits for that.
  - `coordinator_lost?`: the coordinator died while it was still committing.
  - `last`: how the last operation ended, for a coordinator that asks too late.
  - `lock`: the coordinator that keeps this node for several operations of its own.
  - `ahead`: why memory may be ahead of disk: an operation was decided and failed all the same. Until
    this node has caught up, another operation would not find what it is to take back.
  - `subscriber`: who knows other nodes. It is told of ends, and asked when this node is in doubt.
  """
  @type t :: %__MODULE__{
          operation: Operation.t() | nil,
          preparation: Prepare.t() | nil,
          callers: [GenServer.from()],
          deciders: [GenServer.from()],
          early: Commit.decision() | nil,
          decision: Commit.decision() | nil,
          decider: pid() | nil,
          coordinator_lost?: boolean(),
          last: {reference(), answer()} | nil,
          lock: holder() | nil,
          ahead: String.t() | nil,
          subscriber: pid() | nil
        }
  defstruct [
    :operation,
    :preparation,
    :early,
    :decision,
    :decider,
    :last,
    :lock,
    :ahead,
    :subscriber,
    callers: [],
    deciders: [],
    coordinator_lost?: false
  ]

  @doc "Who holds this node, if anyone."
  @spec holder(t()) :: holder() | nil
  def holder(%__MODULE__{operation: nil, lock: lock}), do: lock
  def holder(%__MODULE__{operation: operation}), do: operation

  @doc "The data when an operation is over: what concerns other operations, too, stays."
  @spec without_operation(t()) :: t()
  def without_operation(%__MODULE__{} = data) do
    %__MODULE__{
      last: data.last,
      lock: data.lock,
      ahead: data.ahead,
      subscriber: data.subscriber
    }
  end
end
