defmodule HotPatch.Swap.Rehearsal.Round do
  @moduledoc false
  # Asks processes to try their conversion, a few at a time, and collects what comes of it. Nobody is waited
  # for beyond its time, and nothing beyond that of the whole.

  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Rehearsal
  alias HotPatch.Swap.Rehearsal.Tally
  alias HotPatch.Swap.Rehearsal.Turn
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage

  # So many at a time for each scheduler: enough that none is idle, few enough that copies of states do not
  # pile up.
  @at_a_time 4

  # Milliseconds between two looks at who is late.
  @tick 20

  @doc """
  Runs it; gives the tally, and those who did not get to their turn in time, with what they were doing then.
  """
  @spec run([Tally.chosen()], Tally.t(), {reference(), Signal.t()}, Rehearsal.how()) ::
          {Tally.t(), [{pid(), String.t() | nil}]}
  def run(works, tally, {ref, signal}, how) do
    owner = Process.monitor(how.owner)

    round =
      loop(%{
        ref: ref,
        signal: signal,
        how: how,
        owner: owner,
        waiting: works,
        running: %{},
        tally: tally,
        late: [],
        killed: [],
        looked: now()
      })

    SysMessage.close(ref)
    Process.demonitor(owner, [:flush])
    {round.tally, Enum.reverse(round.late)}
  end

  defp loop(round) do
    round = look(fill(round))

    cond do
      round.running == %{} and round.waiting == [] -> round
      now() >= round.how.deadline -> give_up(round)
      true -> hear(round)
    end
  end

  defp fill(%{waiting: [{_conversions, []} | rest]} = round), do: fill(%{round | waiting: rest})

  defp fill(%{waiting: [{conversions, [pid | pids]} | rest]} = round) do
    if map_size(round.running) < @at_a_time * System.schedulers_online(),
      do: fill(asked(%{round | waiting: [{conversions, pids} | rest]}, pid, conversions)),
      else: round
  end

  defp fill(round), do: round

  defp asked(round, pid, conversions) do
    order = %{
      ref: round.ref,
      signal: round.signal,
      engine: self(),
      conversions: conversions,
      most_words: div(round.how.most_bytes, :erlang.system_info(:wordsize))
    }

    event_manager? = match?([%{kind: :event} | _], Map.values(conversions))

    one = %{
      sent: System.monotonic_time(),
      deadline: now() + round.how.within,
      # An event manager has a turn for each handler; its last answer is that to a probe.
      turn?: true,
      event_manager?: event_manager?,
      modules: Map.keys(conversions),
      attempts: %{},
      early: []
    }

    SysMessage.run_in(pid, &Turn.run(&1, order))
    if event_manager?, do: SysMessage.probe(pid, round.ref)
    put_in(round.running[pid], one)
  end

  defp hear(%{ref: ref, owner: owner} = round) do
    receive do
      {[[:alias | ^ref] | from], told} -> loop(told(told, from, round))
      {:EXIT, attempt, reason} -> loop(ended(attempt, reason, round))
      {:DOWN, ^owner, :process, _pid, _reason} -> give_up(round)
      :stop -> give_up(round)
    after
      @tick -> loop(round)
    end
  end

  defp told({:turn, at, what}, pid, round) do
    case round.running do
      %{^pid => one} -> turned(what, pid, one, waited(round, one, at))
      _given_up -> disowned(what, round)
    end
  end

  defp told({:result, pid, module, result}, attempt, round) do
    case round.running do
      %{^pid => one} ->
        known? = is_map_key(one.attempts, attempt)
        one = %{one | attempts: Map.delete(one.attempts, attempt)}
        one = if known?, do: one, else: %{one | early: [attempt | one.early]}
        put(round, pid, one, &Tally.add(&1, module, result, pid))

      _given_up ->
        round
    end
  end

  # The answer to a probe: all handlers have had their turn.
  defp told(_answer, pid, round) do
    case round.running do
      %{^pid => one} -> put(round, pid, %{one | turn?: false}, & &1)
      _given_up -> round
    end
  end

  defp waited(round, one, at), do: update_in(round.tally, &Tally.waited(&1, at - one.sent))

  defp turned({why, module}, pid, one, round) when why in [:too_large, :works_for_another],
    do: put(round, pid, turn_over(one), &Tally.left(&1, module, why))

  defp turned({:tries, attempt, module}, pid, one, round) do
    one = turn_over(one)

    # It may have been quicker than its process.
    cond do
      attempt in one.early ->
        put(round, pid, %{one | early: List.delete(one.early, attempt)}, & &1)

      attempt in round.killed ->
        round = %{round | killed: List.delete(round.killed, attempt)}
        put(round, pid, one, &Tally.left(&1, module, :too_much_memory))

      true ->
        facts = %{module: module, until: now() + round.how.within}
        put(round, pid, put_in(one.attempts[attempt], facts), & &1)
    end
  end

  defp turn_over(%{event_manager?: true} = one), do: one
  defp turn_over(one), do: %{one | turn?: false}

  defp disowned({:tries, attempt, _module}, round) do
    Process.exit(attempt, :kill)
    round
  end

  defp disowned(_not_tried, round), do: round

  # It has told nothing, and never will: only its limit of memory, or its own callback, kills it.
  defp ended(_attempt, :normal, round), do: round

  defp ended(attempt, _reason, round) do
    case Enum.find(round.running, fn {_pid, one} -> is_map_key(one.attempts, attempt) end) do
      {pid, one} ->
        {%{module: module}, attempts} = Map.pop(one.attempts, attempt)
        put(round, pid, %{one | attempts: attempts}, &Tally.left(&1, module, :too_much_memory))

      nil ->
        %{round | killed: [attempt | round.killed]}
    end
  end

  defp put(round, pid, one, change) do
    round = update_in(round.tally, change)

    if one.turn? or one.attempts != %{},
      do: put_in(round.running[pid], one),
      else: %{round | running: Map.delete(round.running, pid)}
  end

  defp look(round) do
    now = now()

    if now - round.looked < @tick,
      do: round,
      else: Enum.reduce(round.running, %{round | looked: now}, &overdue(&1, &2, now))
  end

  defp overdue({pid, one}, round, now) do
    round = Enum.reduce(one.attempts, round, &too_long(&1, pid, &2, now))

    case round.running do
      %{^pid => %{turn?: true} = one} -> absent(pid, one, round, now)
      _its_turn_is_over -> round
    end
  end

  defp too_long({_attempt, %{until: until}}, _pid, round, now) when now < until, do: round

  defp too_long({attempt, %{module: module}}, pid, round, _now) do
    place = stands(attempt, module)
    kill(attempt)
    one = round.running[pid]
    one = %{one | attempts: Map.delete(one.attempts, attempt)}
    text = "it takes longer than #{round.how.within} ms"
    failed = {:failed, %{us: round.how.within * 1_000, reason: text, place: place}}

    # One that ended before anybody could hear of it was ended by its limit.
    if place,
      do: put(round, pid, one, &Tally.add(&1, module, failed, pid)),
      else: put(round, pid, one, &Tally.left(&1, module, :too_much_memory))
  end

  defp stands(attempt, module) do
    case Process.info(attempt, :current_stacktrace) do
      {:current_stacktrace, [_ | _] = stack} -> Description.where(module, stack)
      _ended -> nil
    end
  end

  defp absent(pid, one, round, now) do
    cond do
      not Process.alive?(pid) -> without(pid, one, round, :gone)
      now < one.deadline -> round
      true -> %{without(pid, one, round, :late) | late: [{pid, busy(pid)} | round.late]}
    end
  end

  # While it is what it was late for.
  defp busy(pid), do: if(Process.alive?(pid), do: Description.process(pid))

  # Its handlers have been tried, but for those that it did not come to.
  defp without(pid, one, round, why) do
    for {attempt, _facts} <- one.attempts, do: kill(attempt)
    round = %{round | running: Map.delete(round.running, pid)}

    Enum.reduce(one.modules, round, fn module, round ->
      update_in(round.tally, &Tally.left(&1, module, why))
    end)
  end

  # What is under way ends; nobody new is asked.
  defp give_up(round) do
    _ = Signal.settle(round.signal, :drop)
    for {_pid, one} <- round.running, {attempt, _facts} <- one.attempts, do: kill(attempt)

    left =
      for({_pid, one} <- round.running, module <- one.modules, do: {module, 1}) ++
        for {conversions, pids} <- round.waiting,
            module <- Map.keys(conversions),
            do: {module, length(pids)}

    tally =
      Enum.reduce(left, round.tally, fn {module, count}, tally ->
        Tally.left(tally, module, :out_of_time, count)
      end)

    %{round | tally: tally, running: %{}, waiting: []}
  end

  defp kill(attempt), do: Process.exit(attempt, :kill)

  defp now, do: System.monotonic_time(:millisecond)
end
