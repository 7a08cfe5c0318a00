defmodule HotPatch.NodeAgent.Server.Protocol do
  @moduledoc false
  # The state machine of the agent's server, without a process: given a state, what has happened and
  # the data, it says the next state, the new data and what is to be done, in this order. The
  # server carries that out.
  #
  # `@transitions` is the diagram: a test compares it with what `handle/3` does. Whatever is not in
  # the table leaves the state as it is.
  #
  # Who holds is in doubt when the coordinator dies, or is silent for too long: the decision may have
  # been made and told to others. Whoever knows other nodes (the subscriber) is told, asks them, and
  # decides. Nobody waits for that beyond the engine's own limit: taken back too early, the
  # operation is one that this node has missed.

  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.Commit
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Server.Data
  alias HotPatch.NodeAgent.Server.Request
  alias HotPatch.Operation
  alias HotPatch.Store.Applied

  @transitions [
    # A coordinator reserves the node. Before it gets it, what earlier operations have left on disk
    # is settled: the answer is the event.
    {:idle, :settled, :reserved},
    {:reserved, :prepared, :prepared},
    {:prepared, :commit, :committing},
    # Nothing has begun yet: without a coordinator, all is as if it had never come.
    {:reserved, :abort, :idle},
    {:reserved, :coordinator_lost, :idle},
    {:prepared, :abort, :idle},
    {:prepared, :coordinator_lost, :idle},
    # The commit stands still with everything changed, and waits for the decision.
    {:committing, :held, :held},
    {:held, :decide, :deciding},
    # It was decided before the commit held.
    {:committing, :held, :deciding},
    # There is nobody who could ask other nodes.
    {:held, :coordinator_lost, :deciding},
    # A commit that has begun ends by itself, whoever dies.
    {:committing, :ended, :idle},
    {:held, :ended, :idle},
    {:deciding, :ended, :idle},
    {:committing, :commit_lost, :idle},
    {:held, :commit_lost, :idle},
    {:deciding, :commit_lost, :idle},
    # The agent before this one died, and its commit goes on.
    {:adopting_commit, :commit_lost, :idle}
  ]

  @typedoc "`adopting_commit` is where a server begins that finds the commit of one that died."
  @type state ::
          :idle | :reserved | :prepared | :committing | :held | :deciding | :adopting_commit

  @typedoc """
  What has happened. `settled` answers the effect `settle`; `silent`: nobody has decided for too
  long; `*_lost`: a process died that was monitored under this name.
  """
  @type event ::
          {:call, GenServer.from(), request :: term()}
          | {:settled, purpose(), :ok | {:busy, Data.holder()} | {:error, String.t()}}
          | {:held, decider :: pid()}
          | {:ended, Commit.result()}
          | :silent
          | {:coordinator_lost, reason :: term()}
          | {:commit_lost, reason :: term()}
          | {:lock_lost, reason :: term()}

  @typedoc "Who wants it settled: a coordinator that reserves, or somebody who only asks for it."
  @type purpose ::
          {:reserve, GenServer.from(), Operation.t()} | {:settle, GenServer.from()}

  @typedoc """
  What is to be done. `settle` ends on disk what operations have left, and its result is the next
  event. `clean_up` follows the death of a commit. `decide` tells a decision to the process that waits
  for it, or to the commit that does not hold yet.
  """
  @type effect ::
          {:reply, GenServer.from(), term()}
          | {:monitor, :coordinator | :lock, pid()}
          | {:demonitor, :coordinator | :lock | :commit}
          | {:settle, purpose()}
          | {:note, GenServer.from(), [Applied.op()]}
          | {:start_commit, Prepare.t()}
          | {:decide, pid() | :commit, Commit.decision()}
          | {:discard, Prepare.t()}
          | {:clean_up, Prepare.t() | nil}
          | {:await_decision, milliseconds :: non_neg_integer()}
          | {:tell, pid(), message :: term()}
          | {:fault_point, atom()}
          | {:warn_of_lost_coordinator, patch :: String.t()}

  @type step :: {state(), Data.t(), [effect()]}

  # Milliseconds before the engine gives up waiting for a decision: time to ask others.
  @in_doubt_before 700

  # A commit that has begun is not let go of.
  @not_begun [:reserved, :prepared]
  @begun [:committing, :held, :deciding]

  @doc "The diagram: states, what happens in them, and the states it leads to."
  @spec transitions() :: [{state(), event :: atom(), state()}]
  def transitions, do: @transitions

  @doc "Where a server begins that finds nothing going on, or the commit of an operation."
  @spec begin(:nothing | {:commit, Operation.t()}) :: {state(), Data.t()}
  def begin(:nothing), do: {:idle, %Data{}}
  def begin({:commit, operation}), do: {:adopting_commit, %Data{operation: operation}}

  @doc "What follows from an event. What is asked may come from other nodes: it is looked at first."
  @spec handle(state(), event(), Data.t()) :: step()
  def handle(state, {:call, {pid, _tag} = from, request}, data) do
    if Request.understood?(request, pid),
      do: answer(request, from, state, data),
      else: reply(state, data, from, {:error, "#{node()} does not understand what it was asked"})
  end

  def handle(state, event, data), do: happened(event, state, data)

  defp answer(
         {:reserve, %{coordinator: other}},
         from,
         state,
         %{lock: %{coordinator: pid} = lock} = data
       )
       when other != pid,
       do: reply(state, data, from, {:busy, lock})

  # rule: ahead-first
  defp answer({:reserve, %{origin: origin}}, from, :idle, %{ahead: text} = data)
       when is_atom(origin) and text != nil,
       do: reply(:idle, data, from, {:unfinished, text})

  # rule: grant-idle
  defp answer({:reserve, operation}, from, :idle, data),
    do: {:idle, data, [{:settle, {:reserve, from, operation}}]}

  defp answer({:reserve, _operation}, from, state, data),
    do: reply(state, data, from, {:busy, Data.holder(data)})

  defp answer({:lock, %{coordinator: pid} = holder}, from, :idle, %{lock: nil} = data),
    do: {:idle, %{data | lock: holder}, [{:monitor, :lock, pid}, {:reply, from, :ok}]}

  defp answer({:lock, _holder}, from, state, data),
    do: reply(state, data, from, {:busy, Data.holder(data)})

  # Meanwhile nobody could catch up.
  defp answer({:unlock, pid}, from, state, %{lock: %{coordinator: pid}} = data) do
    effects = tell_of_end(data) ++ [{:demonitor, :lock}, {:reply, from, :ok}]
    {state, %{data | lock: nil}, effects}
  end

  defp answer({:unlock, _pid}, from, state, data), do: reply(state, data, from, :ok)

  defp answer(
         {:prepared, %{ref: ref} = operation, preparation},
         from,
         :reserved,
         %{operation: %{ref: ref}} = data
       ) do
    data = %{data | operation: operation, preparation: preparation}
    reply(:prepared, data, from, :ok)
  end

  defp answer({:prepared, _operation, _preparation}, from, state, data),
    do: reply(state, data, from, :gone)

  defp answer({:commit, ref}, from, :prepared, %{operation: %{ref: ref}} = data),
    do: {:committing, %{data | callers: [from]}, [{:start_commit, data.preparation}]}

  defp answer({:commit, _ref}, from, state, data), do: reply(state, data, from, nothing())

  defp answer({:decide, ref, decision}, from, state, %{operation: %{ref: ref}} = data),
    do: decided(decision, from, state, data)

  defp answer({:decide, ref, decision}, from, state, data),
    do: too_late(ref, decision, from, state, data)

  defp answer({:abort, ref}, from, state, %{operation: %{ref: ref}} = data)
       when state in @not_begun do
    {state, data, effects} = let_go(data)
    {state, data, effects ++ [{:reply, from, :ok}]}
  end

  defp answer({:abort, _ref}, from, state, data), do: reply(state, data, from, :ok)

  defp answer(:holder, from, state, data), do: reply(state, data, from, Data.holder(data))

  # What was decided early is decided, though the commit does not hold yet.
  defp answer({:finishing?, id}, from, state, data) do
    finishing? = match?(%{operation: %{id: ^id}}, data) and :finish in [data.decision, data.early]
    reply(state, data, from, finishing?)
  end

  # Nobody else writes the state now.
  defp answer({:note, ops}, from, :idle, data), do: {:idle, data, [{:note, from, ops}]}

  defp answer({:note, _ops}, from, state, data),
    do: reply(state, data, from, {:error, "an operation has begun meanwhile"})

  # A commit that goes on may still make it so.
  defp answer(:level, from, :idle, data), do: reply(:idle, %{data | ahead: nil}, from, :ok)
  defp answer(:level, from, state, data), do: reply(state, data, from, :ok)

  defp answer(:settle, from, :idle, data), do: {:idle, data, [{:settle, {:settle, from}}]}
  defp answer(:settle, from, state, data), do: reply(state, data, from, :ok)

  defp answer({:subscribe, pid}, from, state, data),
    do: reply(state, %{data | subscriber: pid}, from, :ok)

  defp decided(decision, from, :held, data) do
    {state, data, effects} = decide(decision, %{data | callers: [from]})
    {state, data, [{:fault_point, :decided} | effects]}
  end

  # The coordinator does not wait for this node: it need not come to hold, and is not asked again.
  defp decided({:take_back, _why} = decision, from, :committing, data) do
    data = %{data | decision: decision, callers: [from | data.callers]}
    {:committing, data, [{:decide, :commit, decision}]}
  end

  # The coordinator waits no longer for this node to hold. What it has decided is done when this
  # node holds; should it fail before, the coordinator hears of that.
  defp decided(decision, from, :committing, data),
    do: {:committing, %{data | early: decision, deciders: [from | data.deciders]}, []}

  # Somebody who was asked in doubt has said so first.
  defp decided(decision, from, :deciding, %{decision: decision} = data),
    do: {:deciding, %{data | callers: [from | data.callers]}, []}

  defp decided(decision, from, state, data),
    do: too_late(data.operation.ref, decision, from, state, data)

  # It did not wait: the deadline came first. What was decided all the same is now missed here,
  # and nothing else that ends would have it looked for.
  defp too_late(ref, decision, from, state, data) do
    told = if decision == :finish, do: tell_of_end(data), else: []

    answer =
      case data.last do
        {^ref, answer} -> answer
        _another_or_none -> nothing()
      end

    {state, data, told ++ [{:reply, from, answer}]}
  end

  defp happened({:settled, {:settle, from}, result}, state, data),
    do: reply(state, data, from, result)

  defp happened({:settled, {:reserve, from, operation}, :ok}, :idle, data) do
    effects = [{:monitor, :coordinator, operation.coordinator}, {:reply, from, :ok}]
    {:reserved, %{data | operation: operation}, effects}
  end

  defp happened({:settled, {:reserve, from, _operation}, :ok}, state, data),
    do: reply(state, data, from, {:busy, Data.holder(data)})

  defp happened({:settled, {:reserve, from, _operation}, {:error, text}}, state, data),
    do: reply(state, data, from, {:unfinished, text})

  defp happened({:settled, {:reserve, from, _operation}, {:busy, holder}}, state, data),
    do: reply(state, data, from, {:busy, holder})

  # It was told before it came to this.
  defp happened({:held, decider}, :committing, %{decision: decision} = data) when decision != nil,
    do: {:deciding, %{data | decider: decider}, []}

  defp happened({:held, decider}, :committing, data) do
    replies = replies(data.callers, :held)
    {state, data, effects} = held(%{data | callers: [], decider: decider})
    {state, data, replies ++ effects}
  end

  defp happened({:ended, result}, state, data) when state in @begun,
    do: ended({:ended, result}, data)

  # Its files may be half in place: as at a start, what was decided is finished.
  defp happened({:commit_lost, reason}, state, data)
       when state in @begun or state == :adopting_commit do
    {next, after_it, effects} = ended({:error, lost(state, reason)}, data)
    {next, after_it, [{:clean_up, data.preparation} | effects]}
  end

  defp happened({:coordinator_lost, _reason}, state, %{operation: %{patch: patch}} = data) do
    {state, data, effects} = without_coordinator(state, data)
    {state, data, [{:warn_of_lost_coordinator, patch} | effects]}
  end

  defp happened({:lock_lost, _reason}, state, %{lock: lock} = data) when lock != nil,
    do: {state, %{data | lock: nil}, tell_of_end(data) ++ [{:demonitor, :lock}]}

  defp happened(:silent, :held, data), do: in_doubt(data, :silent)

  # What comes late, or is nothing to this state.
  defp happened(_event, state, data), do: {state, data, []}

  defp held(%{early: decision} = data) when decision != nil,
    do: decide(decision, %{data | callers: data.deciders, deciders: []})

  defp held(%{coordinator_lost?: true, subscriber: nil} = data), do: in_doubt(data, :dead)

  defp held(data) do
    # rule: hold-ends
    wait = {:await_decision, max(data.operation.hold_timeout - @in_doubt_before, 0)}

    {state, data, effects} =
      if data.coordinator_lost?, do: in_doubt(data, :dead), else: {:held, data, []}

    {state, data, [wait | effects]}
  end

  # rule: let-go
  defp without_coordinator(state, data) when state in @not_begun, do: let_go(data)
  defp without_coordinator(:held, data), do: in_doubt(data, :dead)

  defp without_coordinator(:committing, data),
    do: {:committing, %{data | coordinator_lost?: true}, []}

  # It is decided, or nobody here can decide it.
  defp without_coordinator(state, data), do: {state, data, []}

  # The one that is asked to find out ends it by its decision.
  # rule: take-back-unsure
  defp in_doubt(%{subscriber: nil} = data, :dead),
    do: decide({:take_back, "the coordinator died before it decided"}, data)

  defp in_doubt(%{subscriber: nil} = data, :silent), do: {:held, data, []}

  defp in_doubt(data, coordinator) do
    message = {NodeAgent, {:in_doubt, data.operation, coordinator}}
    {:held, data, [{:tell, data.subscriber, message}]}
  end

  defp decide(decision, data),
    do: {:deciding, %{data | decision: decision}, [{:decide, data.decider, decision}]}

  # The coordinator hears of it before the subscriber does, and the node is free after that.
  defp ended(answer, data) do
    effects =
      replies(data.callers ++ data.deciders, answer) ++
        [{:demonitor, :commit}] ++
        tell_of_operation(data) ++
        [{:fault_point, :ended}, {:demonitor, :coordinator}]

    data = %{data | ahead: ahead(data, answer), last: {data.operation.ref, answer}}
    {:idle, Data.without_operation(data), effects}
  end

  # Its end went to the agent before this one.
  defp lost(:adopting_commit, reason) when reason in [:normal, :noproc],
    do:
      "the agent on #{node()} died during the commit, and the one that follows it does not know how " <>
        "that ended: look at the journal of #{node()}"

  defp lost(_state, reason), do: "the commit on #{node()} died: #{inspect(reason)}"

  defp ahead(_data, {:ended, %{error: nil}}), do: nil
  defp ahead(%{decision: :finish}, {:ended, %{error: text}}), do: text
  defp ahead(%{decision: :finish}, {:error, text}), do: text
  defp ahead(data, _nothing_was_done), do: data.ahead

  defp let_go(data) do
    discard = if data.preparation, do: [{:discard, data.preparation}], else: []
    {:idle, Data.without_operation(data), discard ++ [{:demonitor, :coordinator}]}
  end

  # Who catches up knows by itself when that has ended, and would try again at once for ever.
  defp tell_of_operation(%{operation: %{origin: origin}} = data) when is_atom(origin),
    do: tell_of_end(data)

  defp tell_of_operation(_data), do: []

  defp tell_of_end(%{subscriber: nil}), do: []
  defp tell_of_end(%{subscriber: pid}), do: [{:tell, pid, {NodeAgent, :ended}}]

  defp reply(state, data, from, answer), do: {state, data, [{:reply, from, answer}]}
  defp replies(callers, answer), do: for(from <- callers, do: {:reply, from, answer})

  defp nothing, do: {:error, "nothing is prepared or held for this operation on #{node()}"}
end
