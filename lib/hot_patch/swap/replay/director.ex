defmodule HotPatch.Swap.Replay.Director do
  @moduledoc false
  # Hears what processes receive, and has players play it. See HotPatch.Swap.Replay.

  alias HotPatch.Rehearsal.Replay
  alias HotPatch.Swap.Replay.Player
  alias HotPatch.Swap.Replay.Tally
  alias HotPatch.Swap.Replay.Tap
  alias HotPatch.Swap.SysMessage

  # Milliseconds between two looks at who is late.
  @tick 20
  # Milliseconds between two copies of a process at least, and how much longer than a copy took.
  @between 50
  @times 20
  # Milliseconds that one message may take of both, and those after the end for what was heard.
  @message_within 2_000
  @drain 3_000
  # Messages of one process that wait, and of all that are heard at once.
  @waiting 1_000
  @heard 50_000

  @doc "Runs it; the one who is told of it ends it by `:stop`, or by its own end."
  @spec run([map()], Tally.t(), map(), pid()) :: [Replay.t()]
  def run(chosen, tally, about, engine) do
    Process.flag(:trap_exit, true)
    monitor = Process.monitor(engine)
    ref = make_ref()
    tap = Tap.open()

    all =
      Map.merge(about, %{
        ref: ref,
        engine: monitor,
        tap: tap,
        tally: tally,
        ones: %{},
        keys: %{},
        players: %{},
        looked: now()
      })

    all = chosen |> Enum.reduce(all, &heard/2) |> loop()
    Enum.each(all.keys, fn {pid, _keys} -> Tap.off(tap, pid) end)
    all |> drain() |> ended()
  end

  # Of an event manager there may be several: who is heard is known by its pid and its module.
  defp heard(%{pid: pid} = one, all) do
    case if(is_map_key(all.keys, pid), do: :ok, else: Tap.on(all.tap, pid)) do
      :ok ->
        key = {pid, one.module}

        one =
          Map.merge(one, %{
            doing: :nothing,
            order: nil,
            cut?: false,
            queue: :queue.new(),
            player: nil,
            stage: :atomics.new(1, []),
            at: now(),
            ever?: false,
            copy: 0
          })

        all = put_in(all.ones[key], Map.put(one, :key, key))
        %{all | keys: Map.update(all.keys, pid, [key], &[key | &1])}

      why ->
        %{all | tally: Tally.unheard(all.tally, one.module, why)}
    end
  end

  defp loop(all) do
    all = look(all)

    if now() >= all.until do
      all
    else
      case hear(all, @tick) do
        {:on, all} -> loop(all)
        {:stop, all} -> %{all | deadline: now()}
      end
    end
  end

  # What was heard is played to its end.
  defp drain(all) do
    all = %{all | deadline: min(all.deadline, now() + @drain)}
    drained(%{all | until: now()})
  end

  defp drained(all) do
    all = look(all)
    busy? = Enum.any?(all.ones, fn {_key, one} -> one.doing in [:plays, :begins] end)

    if busy? and now() < all.deadline do
      case hear(all, @tick) do
        {:on, all} -> drained(all)
        {:stop, all} -> all
      end
    else
      all
    end
  end

  defp ended(all) do
    :ok = Tap.close(all.tap)
    for {player, _key} <- all.players, do: Process.exit(player, :kill)

    all.ones
    |> Enum.reduce(all.tally, fn {_key, one}, tally ->
      waiting = :queue.len(one.queue)
      waiting = if one.doing == :plays, do: waiting + 1, else: waiting

      cond do
        waiting > 0 and one.player != nil -> Tally.left(tally, one.module, :out_of_time, waiting)
        one.ever? or one.doing == :off -> tally
        true -> Tally.unheard(tally, one.module, :late)
      end
    end)
    |> Tally.results()
  end

  defp hear(%{ref: ref, engine: engine} = all, within) do
    receive do
      {:trace, pid, :receive, message} -> {:on, hear_all(all, pid, message)}
      {^ref, key, {:turn, told, us}} -> {:on, change(all, key, &turned(&1, told, us, &2))}
      {^ref, player, {:player, what}} -> {:on, told(all, player, what)}
      {:EXIT, player, reason} -> {:on, died(all, player, reason)}
      {:DOWN, ^engine, :process, _pid, _reason} -> {:stop, all}
      :stop -> {:stop, all}
    after
      within -> {:on, all}
    end
  end

  defp hear_all(all, pid, message) do
    all.keys
    |> Map.get(pid, [])
    |> Enum.reduce(all, fn key, all -> change(all, key, &received(&1, message, &2)) end)
  end

  defp change(all, key, fun) do
    case all.ones do
      %{^key => one} ->
        {one, all} = fun.(one, all)
        put_in(all.ones[key], one)

      _nobody ->
        all
    end
  end

  # The question for the copy: what comes from here on comes after it.
  defp received(%{order: %{id: id}} = one, {:system, _from, {:replace_state, fun}} = message, all)
       when is_function(fun) do
    case Function.info(fun, :env) do
      {:env, [%{id: ^id} | _]} -> {%{one | cut?: true, queue: :queue.new()}, all}
      _somebody_elses -> system(one, message, all)
    end
  end

  defp received(one, {:system, _from, _request} = message, all), do: system(one, message, all)
  defp received(%{cut?: false} = one, _message, all), do: {one, all}

  defp received(one, message, all) do
    if :queue.len(one.queue) >= @waiting do
      tally = Tally.left(all.tally, one.module, :overtaken, :queue.len(one.queue) + 1)
      {lost(one), %{all | tally: tally}}
    else
      {next(%{one | queue: :queue.in(message, one.queue)}, all), all}
    end
  end

  # Who only looks changes nothing.
  defp system(one, {:system, _from, request}, all) when request in [:get_state, :get_status],
    do: {one, all}

  # So does the question for the copy of another handler.
  defp system(one, {:system, _from, {:replace_state, fun}} = message, %{ref: ref} = all)
       when is_function(fun) do
    case Function.info(fun, :env) do
      {:env, [%{ref: ^ref, id: _} | _]} -> {one, all}
      _somebody_elses -> changed(one, message, all)
    end
  end

  defp system(one, message, all), do: changed(one, message, all)

  defp changed(%{cut?: false} = one, _message, all), do: {one, all}

  defp changed(one, _message, all),
    do: {next(%{one | queue: :queue.in(:lost, one.queue)}, all), all}

  defp next(%{doing: :ready} = one, all) do
    case :queue.out(one.queue) do
      {:empty, _queue} ->
        one

      {{:value, :lost}, _queue} ->
        lost(one)

      {{:value, message}, queue} ->
        send(one.player, {all.ref, :play, message})
        %{one | queue: queue, doing: :plays, at: now()}
    end
  end

  defp next(one, _all), do: one

  # A new copy is asked for.
  defp lost(one) do
    if one.player, do: Process.exit(one.player, :kill)
    pause = max(@between, div(@times * one.copy, 1_000))

    %{
      one
      | doing: :nothing,
        order: nil,
        cut?: false,
        queue: :queue.new(),
        player: nil,
        at: now() + pause
    }
  end

  defp off(one, why, all) do
    if one.player, do: Process.exit(one.player, :kill)
    alone? = all.keys[one.pid] |> List.delete(one.key) |> Enum.all?(&(all.ones[&1].doing == :off))
    if alone?, do: Tap.off(all.tap, one.pid)
    tally = if one.ever?, do: all.tally, else: Tally.unheard(all.tally, one.module, why)
    {%{lost(%{one | player: nil}) | doing: :off}, %{all | tally: tally}}
  end

  defp turned(%{doing: :asked} = one, {:played_by, player}, us, all) do
    about = Map.take(all, [:families, :funs, :coming, :values?])

    send(
      player,
      {all.ref, :about,
       Map.merge(about, Map.take(one, [:stage, :module, :plays, :renders?, :kind, :vsn]))}
    )

    all = put_in(all.players[player], one.key)
    {%{one | doing: :begins, player: player, copy: us, at: now()}, all}
  end

  defp turned(%{doing: :asked} = one, :too_large, _us, all), do: off(one, :too_large, all)

  # Nobody waits for it any more.
  defp turned(one, {:played_by, player}, _us, all) do
    Process.exit(player, :kill)
    {one, all}
  end

  defp turned(one, _too_large, _us, all), do: {one, all}

  defp told(all, player, what) do
    case all.players do
      %{^player => key} -> change(all, key, &said(&1, player, what, &2))
      _unknown -> all
    end
  end

  defp said(%{player: player} = one, player, what, all) do
    case what do
      :ready ->
        one = %{one | doing: :ready, ever?: true}
        {next(one, all), all}

      {:found, finding} ->
        {one, %{all | tally: Tally.add(all.tally, one.module, finding)}}

      {:unconverted, :crashed} ->
        off(one, :crashed, all)

      {:unconverted, reason} ->
        off(one, reason, all)

      {:played, finding, goes_on?} ->
        all = %{all | tally: Tally.add(all.tally, one.module, finding)}
        if goes_on?, do: {next(%{one | doing: :ready}, all), all}, else: {lost(one), all}
    end
  end

  defp said(one, _former_player, _what, all), do: {one, all}

  defp died(all, player, reason) do
    case Map.pop(all.players, player) do
      {nil, _players} ->
        all

      {key, players} ->
        change(%{all | players: players}, key, fn
          %{player: ^player} = one, all when reason != :normal ->
            why = if reason == :killed, do: :too_much_memory, else: :failed
            {lost(%{one | player: nil}), %{all | tally: Tally.left(all.tally, one.module, why)}}

          one, all ->
            {one, all}
        end)
    end
  end

  defp look(all) do
    now = now()

    if now - all.looked < @tick do
      all
    else
      all = %{all | looked: now}
      {:message_queue_len, heard} = Process.info(self(), :message_queue_len)
      all = if heard > @heard, do: too_many(all), else: all

      Enum.reduce(Map.keys(all.ones), all, fn key, all ->
        change(all, key, &overdue(&1, now, &2))
      end)
    end
  end

  # What is heard comes in the way of those who are heard.
  defp too_many(all) do
    Enum.reduce(all.ones, all, fn {key, one}, all ->
      if one.doing == :off do
        all
      else
        {one, all} = off(one, :overtaken, all)
        put_in(%{all | tally: Tally.left(all.tally, one.module, :overtaken)}.ones[key], one)
      end
    end)
  end

  defp overdue(%{doing: :nothing, at: at} = one, now, all) when now >= at do
    cond do
      now >= all.until -> {one, all}
      Process.alive?(one.pid) -> {asked(one, all), all}
      true -> off(one, :gone, all)
    end
  end

  defp overdue(%{doing: :asked, at: at} = one, now, all) when now - at > 1_000 do
    cond do
      not Process.alive?(one.pid) -> off(one, :gone, all)
      now - at > all.within -> off(one, :late, all)
      true -> {one, all}
    end
  end

  defp overdue(%{doing: doing, at: at} = one, now, all)
       when doing in [:plays, :begins] and now - at > @message_within,
       do: too_long(one, all)

  defp overdue(one, _now, all), do: {one, all}

  defp too_long(one, all) do
    stage = :atomics.get(one.stage, 1)
    :atomics.put(one.stage, 1, 0)

    tally =
      case {one.doing, stage} do
        {:plays, 2} -> Tally.add(all.tally, one.module, too_long())
        _old_or_conversion -> Tally.left(all.tally, one.module, :too_long_before)
      end

    {lost(one), %{all | tally: tally}}
  end

  defp too_long do
    crash = %{
      message: "a message",
      reason: "it takes longer than #{@message_within} ms, which the old code does not",
      place: nil,
      stack: []
    }

    {:crash, crash, nil}
  end

  defp asked(one, all) do
    order = %{
      ref: all.ref,
      id: make_ref(),
      key: one.key,
      kind: one.kind,
      director: self(),
      signal: all.signal,
      most_words: all.most_words
    }

    SysMessage.run_in(one.pid, &Player.turn(&1, order))
    %{one | doing: :asked, order: order, cut?: false, queue: :queue.new(), at: now()}
  end

  defp now, do: System.monotonic_time(:millisecond)
end
