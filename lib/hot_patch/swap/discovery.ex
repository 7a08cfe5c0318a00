defmodule HotPatch.Swap.Discovery do
  @moduledoc false
  # Finds the processes that have a changed module as their callback module: reads what is
  # known of every process without asking it, and asks only those of which that is not
  # enough (see HotPatch.Swap.Discovery.Classification and HotPatch.Swap.Discovery.Query).

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.FunHolders
  alias HotPatch.Swap.Discovery.Glance
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Discovery.Loop
  alias HotPatch.Swap.Discovery.Query
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.Target

  @typedoc """
  What a scan has found. `targets` have a state to convert, those in `unpaused` have not: their
  callback modules export no code_change and they hold no fun that would have to be made anew, so
  nothing would be done to them while they stood still; or their module goes. `parents` are the supervisors of targets,
  `starters` others that have started some; `children` processes by the one that
  started them; `silent` those that had to be asked, may be targets, and were too busy to
  answer; `unborn` those of which it cannot be told yet what they will be; `running` those, of a first scan, that may
  have a changed module on their stack (see Running); `seen` all processes that need not be looked at again.
  """
  @type found :: %{
          targets: [Target.t()],
          unpaused: [Target.t()],
          parents: [pid()],
          starters: [pid()],
          children: %{pid() => [pid()]},
          silent: [pid()],
          unborn: [pid()],
          running: [pid()],
          list: [pid()],
          seen: %{pid() => []}
        }

  @doc "What there was before any scan."
  @spec nothing() :: found()
  def nothing do
    %{
      targets: [],
      unpaused: [],
      parents: [],
      starters: [],
      children: %{},
      silent: [],
      unborn: [],
      running: [],
      list: [],
      seen: %{}
    }
  end

  @doc """
  Scans the processes that are not in `before` yet; what it gives are those alone, with
  `seen` extended. With nothing before, this is a scan of all. `list` is what
  `Process.list/0` has given, now or a while ago.
  """
  @spec find([Change.t()], found(), [pid()]) :: found()
  def find(changes, before \\ nothing(), list \\ Process.list()) do
    %{pids: pids, fresh: fresh} = looked_at = scan(changes, list, before)
    # One that is not looked at yet shall not be taken for seen the next time.
    list = if length(pids) == fresh, do: list, else: before.list
    # Not Map.new/2, which keeps a scheduler to itself until it is done with all of them.
    seen = Enum.reduce(pids, before.seen, fn pid, seen -> Map.put(seen, pid, []) end)
    %{looked_at.found | list: list, seen: seen}
  end

  @doc """
  The same for those who look once, at all or at some: what was seen is not kept, but for the list of those that need
  not be looked at again.
  """
  @spec look([Change.t()], [pid()]) :: found()
  def look(changes, list \\ Process.list()) do
    looked_at = scan(changes, list, nothing())
    %{looked_at.found | list: looked_at.pids}
  end

  @doc "What a later scan has found, with what was found before."
  @spec merge(found(), found()) :: found()
  def merge(new, before) do
    %{
      new
      | targets: new.targets ++ before.targets,
        unpaused: new.unpaused ++ before.unpaused,
        parents: new.parents ++ before.parents,
        starters: new.starters ++ before.starters,
        silent: new.silent ++ before.silent
    }
  end

  # Most that live now did so at the last scan, and are in both lists in the same order: that is
  # quicker to see than by looking each of them up.
  defp fresh([pid | list], [pid | before], seen, fresh), do: fresh(list, before, seen, fresh)
  defp fresh([], _before, _seen, fresh), do: fresh

  defp fresh([pid | rest] = list, before, seen, fresh) do
    case before do
      _ when not is_map_key(seen, pid) -> fresh(rest, before, seen, [pid | fresh])
      [_died | before] -> fresh(list, before, seen, fresh)
      [] -> fresh(rest, [], seen, fresh)
    end
  end

  # What is found; which processes need not be looked at again, and how many were new.
  defp scan(changes, list, before) do
    replaced =
      for %Change{kind: kind} = change <- changes,
          kind in [:replace, :delete],
          into: %{},
          do: {change.module, change}

    if replaced == %{},
      do: %{found: nothing(), pids: [], fresh: nil},
      else: scan_for(replaced, list, before)
  end

  defp scan_for(replaced, list, before) do
    fresh = fresh(list, before.list, before.seen, [])
    later? = map_size(before.seen) > 0
    wanted = FunHolders.wanted(replaced)
    parts = Lookers.look(fresh, &[part(&1, replaced, wanted, later?)])
    all = fn key -> Enum.flat_map(parts, &Map.fetch!(&1, key)) end

    {silent, asked} = Query.ask(all.(:to_ask), replaced)
    {targets, unpaused} = Enum.split_with(asked ++ all.(:targets), &converts?/1)
    found = MapSet.new(if(all.(:hosts) == [], do: [], else: targets ++ unpaused), & &1.pid)
    pids = Enum.filter(all.(:hosts), &(&1 in found)) ++ all.(:pids)

    {own, others} = FunHolders.among(all.(:shown), targets, unpaused, wanted)

    targets = own ++ targets
    holding = for %{rule: :holds_fun, pid: pid} <- others ++ before.targets, do: pid
    {parents, starters} = parents(targets, Map.new(all.(:facts)))

    found = %{
      nothing()
      | targets: others ++ targets,
        unpaused: unpaused -- Enum.map(own, &%{&1 | holds?: false}),
        parents: (parents -- before.parents) -- holding,
        starters: starters -- before.starters,
        children: Enum.group_by(all.(:children), &elem(&1, 0), &elem(&1, 1)),
        silent: silent,
        unborn: all.(:unborn),
        running: all.(:running)
    }

    %{found: found, pids: pids, fresh: length(fresh)}
  end

  # Of some processes, so that what is known of those that are of no interest is forgotten at once: of a
  # hundred thousand it is more than anybody should have to carry along. `hosts` are those that Phoenix has
  # started: one that is to mount or to join works for nobody yet.
  defp part(pids, replaced, wanted, later?) do
    modules = Map.keys(replaced)
    # Of those that are new since a scan before, texts are read of few.
    texts? = not later? and Loop.texts?(modules)
    glances = for pid <- pids, glance = Glance.of(pid, texts?), do: glance
    {unborn, glances} = Enum.split_with(glances, &unborn?(&1, replaced))
    facts = for glance <- glances, do: {glance.pid, glance.facts}
    by_pid = Map.new(facts)
    looks = Loop.of(glances, modules, wanted, later?)
    {targets, to_ask} = Enum.flat_map_reduce(looks, [], &recognise(&1, by_pid, &2, replaced))
    {hosts, others} = Enum.split_with(facts, &host?/1)
    concerned = Enum.map(targets, & &1.pid) ++ Enum.map(to_ask, &elem(&1, 0))

    %{
      targets: targets,
      to_ask: to_ask,
      facts: Map.to_list(Map.take(by_pid, concerned)),
      # Of a first scan these are everybody's; only what is younger can be in its init.
      children: if(later?, do: children(facts), else: []),
      unborn: Enum.map(unborn, & &1.pid),
      running: if(later?, do: [], else: running(unborn, looks)),
      shown: for({pid, %{funs: funs}} <- looks, do: {pid, funs}),
      hosts: Enum.map(hosts, &elem(&1, 0)),
      pids: Enum.map(others, &elem(&1, 0))
    }
  end

  defp running(unborn, looks),
    do: Enum.map(unborn, & &1.pid) ++ for({pid, %{runs?: true}} <- looks, do: pid)

  defp host?({_pid, {call, _parent, _label}}),
    do: is_tuple(call) and Hosted.library?(elem(call, 0))

  # One of a changed module that proc_lib has not handed to the behaviour's code yet, or to a loop that was
  # written by hand: the stack does not show which of both it will be.
  defp unborn?(%{facts: :unborn}, _replaced), do: true

  defp unborn?(%{pid: pid, facts: {{module, :init, _arity}, _parent, _label}}, replaced)
       when is_map_key(replaced, module),
       do: Stacktrace.in_proc_lib?(pid)

  defp unborn?(_glance, _replaced), do: false

  defp recognise({pid, %{loop: loop, reductions: reductions}}, facts, to_ask, replaced) do
    case Classification.by_loop(pid, facts[pid], loop, replaced) do
      {:ask, question} -> {[], [{pid, question} | to_ask]}
      [] -> {[], to_ask}
      targets -> {for(target <- targets, do: %{target | reductions: reductions}), to_ask}
    end
  end

  defp converts?(target),
    do: Enum.any?(target.modules, fn {_module, change_code?} -> change_code? end)

  defp children(facts),
    do: for({pid, {_call, parent, _label}} <- facts, parent != nil, do: {parent, pid})

  @doc "Whether a process is a Task."
  @spec task?(pid()) :: boolean()
  defdelegate task?(pid), to: Stacktrace

  # Supervisors stand still with their children. Other parents have work of their own.
  defp parents(targets, facts) do
    own = MapSet.new(targets, & &1.pid)

    for %{pid: pid} <- targets,
        {_call, parent, _label} <- [facts[pid]],
        is_pid(parent) and node(parent) == node() and parent not in own,
        uniq: true do
      parent
    end
    |> Enum.split_with(&supervisor?(&1, facts))
  end

  defp supervisor?(pid, facts) do
    facts =
      Map.get_lazy(facts, pid, fn -> with %{facts: facts} <- Glance.of(pid, false), do: facts end)

    match?({{:supervisor, _module, _arity}, _, _}, facts)
  end
end
