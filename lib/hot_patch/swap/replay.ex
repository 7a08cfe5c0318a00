defmodule HotPatch.Swap.Replay do
  @moduledoc false
  # Has messages that processes really receive played by the old and the new code, on copies of their states.
  #
  # The director hears what a sample of processes receives. A process hands out a copy of its state in its own
  # turn, by a system message; that this message is among what is heard says which messages come after the copy. A
  # player (HotPatch.Swap.Replay.Player) plays these one by one, until it does not know any more what the state would be:
  # then there is a new copy. The code that it runs can reach nobody, see HotPatch.Swap.Replay.Gate.

  alias HotPatch.Host.Config
  alias HotPatch.Rehearsal.Replay
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.Replay.Coming
  alias HotPatch.Swap.Replay.Director
  alias HotPatch.Swap.Replay.Funs
  alias HotPatch.Swap.Replay.Sandbox
  alias HotPatch.Swap.Replay.Tally
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.Target
  alias HotPatch.Swap.Views

  @typedoc """
  How it is done. `old` and `new` are shadows of a closed set each, of the patch's modules and of others that they
  call; `values?` says whether values are told; `coming` is what comes with the new code. `shown` are LiveViews, by
  their modules, that do not change, but show what does.
  """
  @type how :: %{
          seconds: pos_integer(),
          values?: boolean(),
          shown: %{module() => [pid()]},
          old: [Shadow.t()],
          new: [Shadow.t()],
          coming: Coming.t()
        }

  # So many processes of each module are heard, unless it is said how many.
  @sample 10

  # Whose messages are played; and whose lead to no code of the module but by the behaviour itself, or by a fun.
  @played [:server, :event_manager, :agent, :hosted]
  @gets_none [:supervisor, :holder]

  # What runs inside the processes concerned, and where nothing shall be loaded.
  @inside [
    HotPatch.Rehearsal.Form,
    HotPatch.Rehearsal.Reason,
    HotPatch.Support.TermWalk,
    HotPatch.Swap.FunRenewal,
    HotPatch.Swap.Hosted,
    HotPatch.Swap.Replay.Agent,
    HotPatch.Swap.Replay.Callback,
    HotPatch.Swap.Replay.Closed,
    HotPatch.Swap.Replay.Coming,
    HotPatch.Swap.Replay.Comparison,
    HotPatch.Swap.Replay.Event,
    HotPatch.Swap.Replay.Funs,
    HotPatch.Swap.Replay.Gate,
    HotPatch.Swap.Replay.Player,
    HotPatch.Swap.Replay.Sandbox,
    HotPatch.Swap.Replay.Statem,
    HotPatch.Swap.Replay.Structs,
    HotPatch.Swap.Replay.Table,
    HotPatch.Swap.Signal
  ]

  @doc "All shadows that it takes."
  @spec shadows(how() | nil) :: [Shadow.t()]
  def shadows(nil), do: []
  def shadows(how), do: how.old ++ how.new

  @doc """
  Runs it for processes that were found, alike ones together. `limits` are those of a rehearsal. The calling process traps exits; `:stop`
  or the end of its `owner` ends it.
  """
  @spec run([Target.group()], [Change.t()], how(), Signal.t(), map()) :: [Replay.t()]
  def run(groups, changes, how, signal, limits) do
    :ok = :code.ensure_modules_loaded(@inside)
    families = %{old: family(how.old), new: family(how.new)}
    works = works(groups, changes) ++ shown(how.shown)
    {tally, chosen} = choose(works, families, limits.sample || @sample)

    if chosen == [] do
      Tally.results(tally)
    else
      funs = Funs.tables(families, changes)
      direct(chosen, tally, {families, funs, how, signal, limits})
    end
  end

  defp direct(chosen, tally, {families, funs, how, signal, limits}) do
    engine = self()
    ref = make_ref()

    about = %{
      families: families,
      funs: funs,
      values?: how.values?,
      coming: how.coming,
      signal: signal,
      until: min(now() + how.seconds * 1_000, limits.deadline),
      deadline: limits.deadline,
      within: limits.within,
      most_words: div(limits.most_bytes, :erlang.system_info(:wordsize))
    }

    # It does little, and what it hears shall not pile up.
    {director, monitor} =
      :erlang.spawn_opt(
        fn -> send(engine, {ref, Director.run(chosen, tally, about, engine)}) end,
        [
          :monitor,
          message_queue_data: :off_heap
        ]
      )

    owner = Process.monitor(limits.owner)
    result = await(ref, director, monitor, owner)
    Process.demonitor(owner, [:flush])
    result
  end

  defp await(ref, director, monitor, owner) do
    receive do
      {^ref, results} ->
        Process.demonitor(monitor, [:flush])
        results

      {:DOWN, ^monitor, :process, ^director, reason} ->
        exit({:replay_died, reason})

      {:DOWN, ^owner, :process, _pid, _reason} ->
        send(director, :stop)
        await(ref, director, monitor, owner)

      :stop ->
        send(director, :stop)
        await(ref, director, monitor, owner)
    end
  end

  defp family(shadows), do: Map.new(shadows, &{&1.module, &1.name})

  defp works(groups, changes) do
    changes = Map.new(changes, &{&1.module, &1})

    for {%{ends?: false, kind: kind} = target, pids} <- groups,
        kind not in @gets_none,
        {module, converts?} <- played(target),
        %{kind: :replace} = change <- [changes[module]],
        do: {%{change | convert?: change.convert? and converts?}, kind, pids}
  end

  # Their own modules stay, and with them their states.
  defp shown(views) do
    for {module, pids} <- views do
      stays = %Change{module: module, kind: :replace, exports: [], md5: nil, convert?: false}
      {stays, :hosted, pids}
    end
  end

  # The processes that are heard, a sample of each module, and why others are not.
  defp choose(works, families, most) do
    by_module = Enum.group_by(works, fn {change, _kind, _pids} -> change.module end)
    tally = Tally.new(Map.new(by_module, fn {module, works} -> {module, count(works)} end))

    Enum.reduce(by_module, {tally, []}, fn {module, works}, {tally, chosen} ->
      {works, others} = Enum.split_with(works, fn {_, kind, _} -> kind in @played end)

      tally =
        for {_change, kind, pids} <- others, reduce: tally do
          tally -> Tally.unheard(tally, module, kind, length(pids))
        end

      case impossible(module, kinds(works), families) do
        nil -> {tally, works |> spread(most) |> Enum.map(&one/1) |> Enum.concat(chosen)}
        why -> {Tally.unheard(tally, module, why, count(works)), chosen}
      end
    end)
    |> heard()
  end

  # Each handler gets what an event manager gets; of callback modules only the one in whose turn it is.
  defp played(%{kind: kind, modules: modules}) when kind in [:event_manager, :below], do: modules
  defp played(%{modules: [own | _below]}), do: [own]

  defp count(works), do: works |> Enum.map(fn {_, _, pids} -> length(pids) end) |> Enum.sum()

  # Who is not in the sample is not counted as one that could not be heard.
  defp heard({tally, chosen}) do
    counts = Enum.frequencies_by(chosen, & &1.module)

    tally =
      Map.new(tally, fn {module, one} ->
        {module, %{one | processes: Map.get(counts, module, 0)}}
      end)

    {tally, chosen}
  end

  defp kinds(works), do: works |> Enum.map(&elem(&1, 1)) |> Enum.uniq()

  # A view or a channel takes the server of its library, too.
  defp impossible(module, kinds, families) do
    copied? = fn one -> is_map_key(families.old, one) and is_map_key(families.new, one) end

    cond do
      not copied?.(module) -> :no_copy
      :hosted in kinds and not copied?.(Hosted.server(module)) -> :hosted
      true -> nil
    end
  end

  defp one({%{module: module} = change, kind, pid}) do
    hosted? = kind == :hosted

    {kind, converter} =
      cond do
        kind == :event_manager -> {:event, {"code_change", 3}}
        kind == :agent -> {:agent, {"code_change", 3}}
        hosted? -> {:server, {"code_change", 3}}
        {"callback_mode", 0} in change.exports -> {:statem, {"code_change", 4}}
        true -> {:server, {"code_change", 3}}
      end

    converts? = change.convert? and converter in change.exports

    %{
      module: module,
      # Whose callbacks are called: a view's or a channel's are called by those of its library.
      plays: if(hosted?, do: Hosted.server(module), else: module),
      renders?: hosted? and Config.current().live_view and Views.running?(),
      pid: pid,
      kind: kind,
      vsn: if(converts?, do: {change.old_vsn, change.extra})
    }
  end

  # Spread over all of them: those that are neighbours are alike.
  defp spread(works, most) do
    every = max(div(count(works), most), 1)
    all = for {change, kind, pids} <- works, pid <- pids, do: {change, kind, pid}
    all |> Enum.take_every(every) |> Enum.take(most)
  end

  defp now, do: System.monotonic_time(:millisecond)

  @doc false
  @spec naming(Sandbox.side()) :: {String.t(), String.t()}
  defdelegate naming(side), to: HotPatch.Swap.Replay.Gate
end
