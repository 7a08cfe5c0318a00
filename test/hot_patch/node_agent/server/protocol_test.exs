defmodule HotPatch.NodeAgent.Server.ProtocolTest do
  use ExUnit.Case, async: true

  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Server.Data
  alias HotPatch.NodeAgent.Server.Protocol

  @states [:idle, :reserved, :prepared, :committing, :held, :deciding, :adopting_commit]
  @take_back {:take_back, "another node cannot"}

  # A process of its own for each part, for none of them is to be mistaken for another; that they do
  # not live is nothing to a function.
  setup_all do
    parts = [:coordinator, :other, :subscriber, :decider, :caller]
    pids = for {part, n} <- Enum.with_index(parts, 1), into: %{}, do: {part, :c.pid(0, n, 9)}
    %{pids: Map.merge(pids, %{ref: make_ref(), other_ref: make_ref()})}
  end

  defp operation(pids, changes \\ %{}) do
    Map.merge(
      %{
        ref: pids.ref,
        id: "op-1",
        kind: :apply,
        patch: "p-1",
        by: "alice",
        coordinator: pids.coordinator,
        origin: :operator,
        pause_timeout: 5_000,
        hold_timeout: 5_000
      },
      changes
    )
  end

  defp lock(pid), do: %{kind: :restart, patch: "nodes", by: "bob", coordinator: pid}

  defp preparation(pids) do
    struct!(Prepare, examination: nil, accepted: nil, operation: operation(pids), staged: %{})
  end

  defp op do
    %{
      id: "op-0",
      seq: 1,
      kind: :apply,
      patch: "p-0",
      by: "alice",
      at: ~U[2024-01-01 00:00:00Z],
      tried_by: nil,
      scope: :all,
      cumulative?: false
    }
  end

  defp from(pids, tag), do: {pids.caller, tag}

  # What a server may know in each state: of the operation, and beside it.
  defp data(pids) do
    for {state, data} <- within(pids),
        subscriber <- [nil, pids.subscriber],
        lock <- [nil, lock(pids.coordinator), lock(pids.other)],
        {ahead, last} <- [
          {nil, nil},
          {"it failed", {pids.ref, {:error, "it failed"}}},
          {nil, {pids.other_ref, {:error, "it failed"}}}
        ],
        do: {state, %{data | subscriber: subscriber, lock: lock, ahead: ahead, last: last}}
  end

  defp within(pids) do
    reserved = %Data{operation: operation(pids)}
    prepared = %{reserved | preparation: preparation(pids)}
    committing = %{prepared | callers: [from(pids, :commit)]}
    held = %{prepared | decider: pids.decider}
    decided = %{held | callers: [from(pids, :decide)]}
    early = %{committing | deciders: [from(pids, :decide)]}
    catching_up = put_in(held.operation.origin, {:missed, "op"})

    [
      idle: %Data{},
      reserved: reserved,
      prepared: prepared,
      committing: committing,
      committing: %{committing | coordinator_lost?: true},
      committing: %{early | early: :finish},
      committing: %{early | early: :finish, coordinator_lost?: true},
      committing: %{early | early: @take_back},
      committing: %{committing | decision: @take_back},
      held: held,
      held: catching_up,
      deciding: %{decided | decision: :finish},
      deciding: %{decided | decision: @take_back},
      adopting_commit: reserved
    ]
  end

  # A request has the name of what is asked; anything else its own.
  defp events(pids) do
    from = from(pids, :new)

    for(request <- requests(pids) ++ malformed(pids), do: {:call, from, request}) ++
      for purpose <- [{:settle, from}, {:reserve, from, operation(pids)}],
          result <- [:ok, {:error, "no"}, {:busy, lock(pids.other)}] do
        {:settled, purpose, result}
      end ++
      [
        {:held, pids.decider},
        {:ended, %{error: nil}},
        {:ended, %{error: "it failed"}},
        {:ended, nil},
        :silent,
        {:coordinator_lost, :killed},
        {:commit_lost, :killed},
        {:commit_lost, :normal},
        {:lock_lost, :noconnection}
      ]
  end

  defp requests(pids) do
    other = operation(pids, %{ref: pids.other_ref, coordinator: pids.other})

    for ref <- [pids.ref, pids.other_ref],
        request <- [
          {:commit, ref},
          {:abort, ref},
          {:decide, ref, :finish},
          {:decide, ref, @take_back}
        ] do
      request
    end ++
      [
        {:reserve, operation(pids)},
        {:reserve, other},
        {:reserve, %{other | origin: {:missed, "op"}}},
        {:prepared, operation(pids), preparation(pids)},
        {:prepared, other, preparation(pids)},
        {:lock, lock(pids.coordinator)},
        {:lock, lock(pids.other)},
        {:unlock, pids.coordinator},
        {:unlock, pids.other},
        {:finishing?, "op-1"},
        {:finishing?, "op-2"},
        {:subscribe, pids.subscriber},
        {:note, []},
        {:note, [op()]},
        :holder,
        :level,
        :settle
      ]
  end

  # Each of these has the name of something that is asked, or none that is known.
  defp malformed(pids) do
    [
      {:reserve, nil},
      {:reserve, %{}},
      {:reserve, operation(pids, %{coordinator: :nobody})},
      {:reserve, operation(pids, %{patch: <<255>>})},
      {:lock, %{coordinator: nil}},
      {:unlock, nil},
      {:prepared, operation(pids), nil},
      {:prepared, Map.delete(operation(pids), :hold_timeout), preparation(pids)},
      {:prepared, operation(pids, %{hold_timeout: "1"}), preparation(pids)},
      {:commit, nil},
      {:commit, pids.ref, 1},
      {:decide, pids.ref, nil},
      {:decide, pids.ref, {:take_back, nil}},
      {:abort, nil},
      {:finishing?, nil},
      {:subscribe, nil},
      {:note, nil},
      {:note, [nil]},
      {:note, [op() | :y]},
      {:held, pids.decider},
      {:settled, {:settle, nil}, :ok},
      nil,
      {},
      [],
      %{},
      "text"
    ]
  end

  defp name({:call, _from, request}) when is_tuple(request) and request != {},
    do: elem(request, 0)

  defp name({:call, _from, request}), do: request
  defp name(event) when is_tuple(event), do: elem(event, 0)
  defp name(event), do: event

  defp each(pids, check) do
    for {state, data} <- data(pids), event <- events(pids) do
      {next, new, effects} = Protocol.handle(state, event, data)
      check.(%{state: state, data: data, event: event, next: next, new: new, effects: effects})
    end
  end

  describe "the table of transitions" do
    test "is what happens, and nothing else does", %{pids: pids} do
      seen = each(pids, &{&1.state, name(&1.event), &1.next})
      changes = for {state, _name, next} = one <- seen, state != next, uniq: true, do: one
      assert Enum.sort(changes) == Enum.sort(Protocol.transitions())
    end

    test "names states that can be left for idle, all of them" do
      there = for {from, _name, to} <- Protocol.transitions(), state <- [from, to], do: state
      assert Enum.sort(Enum.uniq(there)) == Enum.sort(@states)

      for state <- @states -- [:idle],
          do: assert(Enum.any?(Protocol.transitions(), &match?({^state, _name, :idle}, &1)))
    end
  end

  describe "in every state, whatever happens," do
    test "what is to be done has a form that the server knows", %{pids: pids} do
      each(pids, fn step ->
        assert %Data{} = step.new
        assert step.next in @states
        assert Enum.reject(step.effects, &known?/1) == []
      end)
    end

    test "who asks is answered once, now or when it has ended", %{pids: pids} do
      each(pids, fn step ->
        expected = waiting(step.data) ++ asking(step.event)
        answered = for {:reply, from, _answer} <- step.effects, do: from
        passed_on = Enum.flat_map(step.effects, &passed_on/1)

        assert Enum.sort(answered ++ passed_on ++ waiting(step.new)) == Enum.sort(expected)
      end)
    end

    test "a node that is idle keeps nothing of an operation", %{pids: pids} do
      each(pids, fn
        %{next: :idle, new: new} -> assert Data.without_operation(new) == new
        step -> assert step.new.operation != nil
      end)
    end

    test "what was prepared is used, kept or discarded", %{pids: pids} do
      each(pids, fn
        %{data: %{preparation: nil}} ->
          :ok

        %{state: :prepared, next: :idle} = step ->
          assert {:discard, step.data.preparation} in step.effects

        %{state: :prepared, next: :committing} = step ->
          assert {:start_commit, step.data.preparation} in step.effects

        %{next: :idle, event: {:commit_lost, _reason}} = step ->
          assert hd(step.effects) == {:clean_up, step.data.preparation}

        # The commit has used it.
        %{next: :idle, event: event} ->
          assert {:ended, _result} = event

        step ->
          assert step.new.preparation != nil
      end)
    end

    test "what is not understood changes nothing", %{pids: pids} do
      for {state, data} <- data(pids), request <- malformed(pids) do
        from = from(pids, :new)

        assert {^state, ^data, [{:reply, ^from, {:error, text}}]} =
                 Protocol.handle(state, {:call, from, request}, data)

        assert text =~ "does not understand"
      end
    end

    test "what concerns another operation moves nothing", %{pids: pids} do
      other = operation(pids, %{ref: pids.other_ref})

      for {state, data} <- data(pids),
          request <- [
            {:prepared, other, preparation(pids)},
            {:commit, pids.other_ref},
            {:decide, pids.other_ref, :finish},
            {:decide, pids.other_ref, @take_back},
            {:abort, pids.other_ref}
          ] do
        event = {:call, from(pids, :new), request}
        assert {^state, ^data, effects} = Protocol.handle(state, event, data)
        assert {:reply, _from, _answer} = List.last(effects)
      end
    end

    test "another coordinator is told who has the node", %{pids: pids} do
      for {state, data} <- data(pids), state != :idle do
        holder = if data.lock == lock(pids.other), do: data.operation, else: data.lock
        operation = operation(pids, %{ref: pids.other_ref, coordinator: pids.other})
        event = {:call, from(pids, :new), {:reserve, operation}}
        assert {^state, ^data, [{:reply, _, {:busy, told}}]} = Protocol.handle(state, event, data)
        assert told == (holder || data.operation)
      end
    end
  end

  defp waiting(data), do: data.callers ++ data.deciders

  defp asking({:call, from, _request}), do: [from]
  defp asking({:settled, purpose, _result}), do: [elem(purpose, 1)]
  defp asking(_event), do: []

  defp passed_on({:settle, purpose}), do: [elem(purpose, 1)]
  defp passed_on({:note, from, _ops}), do: [from]
  defp passed_on(_effect), do: []

  defp known?({:reply, {pid, _tag}, _answer}), do: is_pid(pid)
  defp known?({:monitor, role, pid}), do: role in [:coordinator, :lock] and is_pid(pid)
  defp known?({:demonitor, role}), do: role in [:coordinator, :lock, :commit]
  defp known?({:settle, {:settle, {_pid, _tag}}}), do: true
  defp known?({:settle, {:reserve, {_pid, _tag}, %{coordinator: pid}}}), do: is_pid(pid)
  defp known?({:note, {_pid, _tag}, ops}), do: is_list(ops)
  defp known?({:start_commit, %Prepare{}}), do: true
  defp known?({:decide, to, decision}), do: (to == :commit or is_pid(to)) and decision != nil
  defp known?({:discard, %Prepare{}}), do: true
  defp known?({:clean_up, nil}), do: true
  defp known?({:clean_up, %Prepare{}}), do: true
  defp known?({:await_decision, ms}), do: is_integer(ms) and ms >= 0
  defp known?({:tell, pid, {NodeAgent, _message}}), do: is_pid(pid)
  defp known?({:fault_point, point}), do: point in HotPatch.Support.FaultPoint.points()
  defp known?({:warn_of_lost_coordinator, patch}), do: is_binary(patch)
  defp known?(_effect), do: false

  # Events one after the other; gives the last step.
  defp run(state, data, events) do
    Enum.reduce(events, {state, data, []}, fn event, {state, data, _effects} ->
      Protocol.handle(state, event, data)
    end)
  end

  defp call(pids, tag, request), do: {:call, from(pids, tag), request}

  defp to_commit(pids) do
    [
      {:settled, {:reserve, from(pids, :reserve), operation(pids)}, :ok},
      call(pids, :prepared, {:prepared, operation(pids), preparation(pids)}),
      call(pids, :commit, {:commit, pids.ref})
    ]
  end

  describe "an operation" do
    test "is held, decided and ended, and its coordinator hears of each", %{pids: pids} do
      coordinator = pids.coordinator
      [reserved, prepared, commit] = to_commit(pids)
      asked = call(pids, :reserve, {:reserve, operation(pids)})
      assert {:idle, data, [{:settle, purpose}]} = Protocol.handle(:idle, asked, %Data{})
      assert {:settled, ^purpose, :ok} = reserved

      assert {:reserved, data, [{:monitor, :coordinator, ^coordinator}, {:reply, _, :ok}]} =
               Protocol.handle(:idle, reserved, data)

      assert {:prepared, data, [{:reply, _, :ok}]} = Protocol.handle(:reserved, prepared, data)

      assert {:committing, data, [{:start_commit, %Prepare{}}]} =
               Protocol.handle(:prepared, commit, data)

      assert {:held, data, [{:reply, {_, :commit}, :held}, {:await_decision, 4_300}]} =
               Protocol.handle(:committing, {:held, pids.decider}, data)

      decide = call(pids, :decide, {:decide, pids.ref, :finish})
      decider = pids.decider

      assert {:deciding, data, [{:fault_point, :decided}, {:decide, ^decider, :finish}]} =
               Protocol.handle(:held, decide, data)

      assert {:deciding, ^data, [{:reply, _, true}]} =
               Protocol.handle(:deciding, call(pids, :new, {:finishing?, "op-1"}), data)

      ended = {:ended, %{error: nil}}
      assert {:idle, data, effects} = Protocol.handle(:deciding, ended, data)

      assert [
               {:reply, {_, :decide}, ^ended},
               {:demonitor, :commit},
               {:fault_point, :ended},
               {:demonitor, :coordinator}
             ] = effects

      assert data == %Data{last: {pids.ref, ended}}
    end

    test "that is decided before it holds is finished as soon as it does", %{pids: pids} do
      events = to_commit(pids) ++ [call(pids, :decide, {:decide, pids.ref, :finish})]
      assert {:committing, data, []} = run(:idle, %Data{}, events)
      decider = pids.decider

      # Other nodes that ask are told so already.
      assert {:committing, ^data, [{:reply, _, true}]} =
               Protocol.handle(:committing, call(pids, :new, {:finishing?, "op-1"}), data)

      assert {:deciding, data, [{:reply, {_, :commit}, :held}, {:decide, ^decider, :finish}]} =
               Protocol.handle(:committing, {:held, decider}, data)

      assert [{_, :decide}] = data.callers
    end

    test "that is taken back before it holds need not hold", %{pids: pids} do
      events = to_commit(pids) ++ [call(pids, :decide, {:decide, pids.ref, @take_back})]
      assert {:committing, data, [{:decide, :commit, @take_back}]} = run(:idle, %Data{}, events)

      assert {:deciding, data, []} = Protocol.handle(:committing, {:held, pids.decider}, data)

      assert {:idle, _data, [{:reply, _, answer}, {:reply, _, answer} | _]} =
               Protocol.handle(:deciding, {:ended, %{error: "taken back"}}, data)
    end

    test "that was decided and failed leaves the node ahead until it is level", %{pids: pids} do
      events =
        to_commit(pids) ++
          [
            {:held, pids.decider},
            call(pids, :decide, {:decide, pids.ref, :finish}),
            {:ended, %{error: "the disk is full"}}
          ]

      assert {:idle, %{ahead: "the disk is full"} = data, _} = run(:idle, %Data{}, events)
      reserve = call(pids, :new, {:reserve, operation(pids)})

      assert {:idle, ^data, [{:reply, _, {:unfinished, "the disk is full"}}]} =
               Protocol.handle(:idle, reserve, data)

      # Catching up makes it level.
      missed = call(pids, :new, {:reserve, operation(pids, %{origin: {:missed, "op"}})})
      assert {:idle, ^data, [{:settle, _}]} = Protocol.handle(:idle, missed, data)
      assert {:idle, level, _} = Protocol.handle(:idle, call(pids, :new, :level), data)
      assert {:idle, ^level, [{:settle, _}]} = Protocol.handle(:idle, reserve, level)
    end

    test "that has ended is told to one who decides too late, and missed if it was to be done",
         %{pids: pids} do
      subscriber = pids.subscriber
      answer = {:ended, %{error: "no decision came in time"}}
      data = %Data{last: {pids.ref, answer}, subscriber: subscriber}

      assert {:idle, ^data, [{:tell, ^subscriber, {NodeAgent, :ended}}, {:reply, _, ^answer}]} =
               Protocol.handle(:idle, call(pids, :new, {:decide, pids.ref, :finish}), data)

      assert {:idle, ^data, [{:reply, _, ^answer}]} =
               Protocol.handle(:idle, call(pids, :new, {:decide, pids.ref, @take_back}), data)
    end

    test "of a commit that died says what it died of", %{pids: pids} do
      assert {:idle, %{ahead: nil}, [{:clean_up, %Prepare{}}, {:reply, _, {:error, text}} | _]} =
               run(:idle, %Data{}, to_commit(pids) ++ [{:commit_lost, :killed}])

      assert text =~ "died: :killed"
    end

    test "whose agent died is over when its commit is, and nobody says that it failed",
         %{pids: pids} do
      assert {:adopting_commit, data} = Protocol.begin({:commit, operation(pids)})

      assert {:idle, %{last: {_ref, {:error, text}}}, [{:clean_up, nil} | _]} =
               Protocol.handle(:adopting_commit, {:commit_lost, :normal}, data)

      assert text =~ "does not know how that ended"
      refute text =~ "commit on"
    end
  end

  describe "a coordinator that dies" do
    test "takes its reservation along, and what was prepared", %{pids: pids} do
      preparation = preparation(pids)
      lost = {:coordinator_lost, :killed}
      [reserved, prepared, _commit] = to_commit(pids)

      assert {:idle, %Data{operation: nil},
              [{:warn_of_lost_coordinator, "p-1"}, {:demonitor, :coordinator}]} =
               run(:idle, %Data{}, [reserved, lost])

      assert {:idle, %Data{preparation: nil}, [_, {:discard, ^preparation}, _]} =
               run(:idle, %Data{}, [reserved, prepared, lost])

      assert {:idle, _data, [{:reply, _, :gone}]} =
               run(:idle, %Data{}, [reserved, lost, prepared])
    end

    test "leaves a node that holds in doubt: others are asked", %{pids: pids} do
      subscriber = pids.subscriber
      alone = %Data{}
      known = %Data{subscriber: subscriber}
      lost = {:coordinator_lost, :killed}
      held = {:held, pids.decider}
      doubt = {NodeAgent, {:in_doubt, operation(pids), :dead}}

      for events <- [[held, lost], [lost, held]] do
        assert {:held, _data, effects} = run(:idle, known, to_commit(pids) ++ events)
        assert {:tell, subscriber, doubt} in effects

        # Nobody knows other nodes.
        assert {:deciding, _data, effects} = run(:idle, alone, to_commit(pids) ++ events)
        assert {:decide, decider, {:take_back, why}} = List.last(effects)
        assert decider == pids.decider
        assert why =~ "died before it decided"
      end
    end

    test "is asked about as well when it is only silent, and may still decide", %{pids: pids} do
      subscriber = pids.subscriber
      events = to_commit(pids) ++ [{:held, pids.decider}, :silent]
      doubt = {NodeAgent, {:in_doubt, operation(pids), :silent}}
      known = %Data{subscriber: subscriber}
      assert {:held, _data, [{:tell, ^subscriber, ^doubt}]} = run(:idle, known, events)
      assert {:held, _data, []} = run(:idle, %Data{}, events)

      decide = call(pids, :decide, {:decide, pids.ref, :finish})
      assert {:deciding, _data, _effects} = run(:idle, known, events ++ [decide])
    end

    test "no longer locks the node", %{pids: pids} do
      data = %Data{lock: lock(pids.coordinator), subscriber: pids.subscriber}

      assert {:idle, %Data{lock: nil}, [{:tell, _, {NodeAgent, :ended}}, {:demonitor, :lock}]} =
               Protocol.handle(:idle, {:lock_lost, :killed}, data)
    end
  end

  # As the server does it, with a commit that answers and processes that die at any time.
  test "any sequence of events comes to an end, and leaves nobody waiting", %{pids: pids} do
    :rand.seed(:exsss, {1, 2, 3})

    for _walk <- 1..300 do
      world = %{state: :idle, data: %Data{}, monitors: MapSet.new(), open: MapSet.new(), n: 0}
      world = Enum.reduce(1..60, world, fn _step, world -> step(world, pids) end)
      world = if :commit in world.monitors, do: happen(world, {:commit_lost, :x}), else: world

      world =
        if :coordinator in world.monitors, do: happen(world, {:coordinator_lost, :x}), else: world

      assert world.state == :idle
      assert world.open == MapSet.new()
      assert MapSet.subset?(world.monitors, MapSet.new([:lock]))
      assert world.data.lock != nil == :lock in world.monitors
    end
  end

  defp step(world, pids) do
    requests =
      for request <- requests(pids) ++ malformed(pids),
          do: {:call, from(pids, world.n), request}

    lost = for role <- world.monitors, do: {:"#{role}_lost", :killed}
    commit = if :commit in world.monitors, do: said(world, pids), else: []
    # What brings an operation on comes as often as all else together.
    on = for {:call, _, {what, _}} = one <- requests, what in [:commit, :reserve], do: one
    chosen = Enum.random([requests, on, lost, commit, [:silent]])
    if chosen == [], do: world, else: happen(%{world | n: world.n + 1}, Enum.random(chosen))
  end

  defp said(%{state: :committing}, pids), do: [{:held, pids.decider}, {:ended, %{error: "x"}}]
  defp said(_world, _pids), do: [{:ended, %{error: Enum.random([nil, "x"])}}]

  defp happen(world, event) do
    open = if match?({:call, _, _}, event), do: MapSet.new(asking(event)), else: MapSet.new()
    {next, data, effects} = Protocol.handle(world.state, event, world.data)
    world = %{world | state: next, data: data, open: MapSet.union(world.open, open)}
    Enum.reduce(effects, world, &carry_out/2)
  end

  defp carry_out({:reply, from, _answer}, world) do
    assert from in world.open
    %{world | open: MapSet.delete(world.open, from)}
  end

  defp carry_out({:note, from, _ops}, world), do: carry_out({:reply, from, :ok}, world)

  defp carry_out({:settle, purpose}, world),
    do: happen(world, {:settled, purpose, Enum.random([:ok, :ok, {:error, "no"}])})

  defp carry_out({:monitor, role, _pid}, world) do
    refute role in world.monitors
    %{world | monitors: MapSet.put(world.monitors, role)}
  end

  defp carry_out({:start_commit, _}, world), do: carry_out({:monitor, :commit, nil}, world)

  defp carry_out({:demonitor, role}, world),
    do: %{world | monitors: MapSet.delete(world.monitors, role)}

  defp carry_out({:decide, :commit, _decision}, world) do
    assert :commit in world.monitors
    world
  end

  defp carry_out(_effect, world), do: world
end
