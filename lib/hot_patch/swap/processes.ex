defmodule HotPatch.Swap.Processes do
  @moduledoc false
  # Finds the processes that have a changed module as their callback module, without
  # calling into any of them. Only event managers are asked (they alone know their
  # handlers), all at once and with a short deadline.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.SysMessage

  @typedoc """
  A process to suspend and the modules whose `change_code` it is to be sent; `kind` tells
  by what it was found.
  """
  @type target :: %{pid: pid(), kind: kind(), modules: [{module(), change_code? :: boolean()}]}
  @type kind :: :server | :supervisor | :event_manager | :special

  @event_managers_answer_within 500

  @typedoc """
  What a scan has found. `targets` have a state to convert, those in `unpaused` have not: their
  callback modules export no code_change, so nothing would be done to them while they
  stood still. `parents` are the supervisors of targets; `children` processes by
  the one that started them; `silent` the event managers that were too busy to say whether
  they are among them; `seen` all processes that need not be looked at again.
  """
  @type found :: %{
          targets: [target()],
          unpaused: [target()],
          parents: [pid()],
          children: %{pid() => [pid()]},
          silent: [pid()],
          seen: %{pid() => []}
        }

  @doc "What there was before any scan."
  @spec nothing() :: found()
  def nothing, do: %{targets: [], unpaused: [], parents: [], children: %{}, silent: [], seen: %{}}

  @doc """
  Scans the processes that are not in `before` yet; what it gives are those alone, with
  `seen` extended. With nothing before, this is a scan of all.
  """
  @spec find([Change.t()], found()) :: found()
  def find(changes, before \\ nothing()) do
    replaced =
      for %Change{kind: :replace} = change <- changes, into: %{}, do: {change.module, change}

    if replaced == %{}, do: %{nothing() | seen: before.seen}, else: scan(replaced, before)
  end

  @doc "What a later scan has found, with what was found before."
  @spec merge(found(), found()) :: found()
  def merge(new, before) do
    %{
      new
      | targets: new.targets ++ before.targets,
        unpaused: new.unpaused ++ before.unpaused,
        parents: new.parents ++ before.parents,
        silent: new.silent ++ before.silent
    }
  end

  defp scan(replaced, before) do
    seen = before.seen
    fresh = for pid <- Process.list(), not is_map_key(seen, pid), do: pid
    facts = for pid <- fresh, facts = facts(pid), facts != :unborn, do: {pid, facts}

    {managers, targets} =
      Enum.reduce(facts, {[], []}, fn {pid, {call, _parent}}, acc ->
        sort_out(pid, call, acc, replaced)
      end)

    {silent, handling} = event_managers(managers, replaced)
    {targets, unpaused} = Enum.split_with(handling ++ targets, &converts?/1)

    %{
      targets: targets,
      unpaused: unpaused,
      parents: parents(targets, Map.new(facts)) -- before.parents,
      # Of a first scan these are everybody's; only what is younger can be in its init.
      children: if(map_size(seen) == 0, do: %{}, else: children(facts)),
      silent: silent,
      seen: Enum.reduce(facts, seen, fn {pid, _facts}, seen -> Map.put(seen, pid, []) end)
    }
  end

  defp converts?(target),
    do: Enum.any?(target.modules, fn {_module, change_code?} -> change_code? end)

  defp children(facts) do
    Enum.group_by(
      for({pid, {_call, parent}} <- facts, parent != nil, do: {parent, pid}),
      &elem(&1, 0),
      &elem(&1, 1)
    )
  end

  @doc """
  Processes that run changed modules without speaking the system messages: hand-written
  loops, tasks. They are never suspended and move to the new code by themselves, or not.
  """
  @spec bare([Change.t()], [target()]) :: [{pid(), module()}]
  def bare(changes, targets) do
    replaced =
      for %Change{kind: :replace, module: module} <- changes, into: MapSet.new(), do: module

    suspended = MapSet.new(targets, & &1.pid)

    for pid <- Process.list(),
        pid not in suspended,
        {:current_stacktrace, stack} <- [Process.info(pid, :current_stacktrace)],
        {module, _function, _arity, _location} <-
          Enum.take(Enum.filter(stack, &(elem(&1, 0) in replaced)), 1),
        do: {pid, module}
  end

  defp sort_out(pid, call, {managers, found}, replaced) do
    case call do
      {:gen_event, _function, _arity} ->
        {[pid | managers], found}

      {:supervisor, module, _arity} when is_map_key(replaced, module) ->
        {managers, [target(pid, :supervisor, [{module, true}]) | found]}

      {module, function, _arity} when is_map_key(replaced, module) ->
        {managers, callback(pid, function, replaced[module]) ++ found}

      _ ->
        {managers, found}
    end
  end

  # What proc_lib noted when it started the process; bare processes have nothing. One that
  # proc_lib has just spawned is known only when it has run its first lines. A dictionary
  # may be large: it is copied only where there is something in it to find.
  defp facts(pid) do
    case Process.info(pid, :initial_call) do
      {:initial_call, {:proc_lib, :init_p, _arity}} ->
        with {:dictionary, dictionary} <- Process.info(pid, :dictionary) do
          case Keyword.get(dictionary, :"$initial_call") do
            nil -> :unborn
            call -> {call, parent(Keyword.get(dictionary, :"$ancestors"))}
          end
        end

      {:initial_call, _bare} ->
        {nil, nil}

      nil ->
        nil
    end
  end

  defp parent([pid | _]) when is_pid(pid), do: pid
  defp parent([name | _]) when is_atom(name), do: Process.whereis(name)
  defp parent(_), do: nil

  # Only supervisors start children while they stand still themselves; other parents have
  # work of their own.
  defp parents(targets, facts) do
    own = MapSet.new(targets, & &1.pid)

    for %{pid: pid} <- targets,
        {_call, parent} <- [facts[pid]],
        is_pid(parent),
        uniq: true do
      parent
    end
    |> Enum.filter(fn parent ->
      parent not in own and node(parent) == node() and supervisor?(parent, facts)
    end)
  end

  defp supervisor?(pid, facts) do
    match?({{:supervisor, _module, _arity}, _}, Map.get_lazy(facts, pid, fn -> facts(pid) end))
  end

  # A callback module's process began in its init/1. Others that proc_lib started speak
  # the system messages only if the module says so; a Task, say, would never answer.
  defp callback(pid, :init, change) do
    if behaves?(change.module), do: [server(pid, change)], else: special(pid, change)
  end

  # Or it began elsewhere and entered a behaviour's loop later.
  defp callback(pid, _function, change) do
    case special(pid, change) do
      [] -> if behaves?(change.module) and in_behaviour?(pid), do: [server(pid, change)], else: []
      special -> special
    end
  end

  @callbacks [{:handle_call, 3}, {:handle_cast, 2}, {:handle_info, 2}, {:callback_mode, 0}]

  defp behaves?(module), do: exports?(module, @callbacks)

  defp server(pid, change),
    do: target(pid, :server, [{change.module, change_code?(change, [3, 4])}])

  defp in_behaviour?(pid) do
    case Process.info(pid, :current_stacktrace) do
      {:current_stacktrace, stack} ->
        Enum.any?(stack, &(elem(&1, 0) in [:gen_server, :gen_statem]))

      nil ->
        false
    end
  end

  defp special(pid, change) do
    if exports?(change.module, [{:system_continue, 3}]) do
      new? = {"system_code_change", 4} in change.exports
      [target(pid, :special, [{change.module, new?}])]
    else
      []
    end
  end

  defp exports?(module, functions) do
    Enum.any?(functions, fn {name, arity} -> function_exported?(module, name, arity) end)
  end

  # A behaviour calls code_change of the new code; where that has none the state stays as
  # it is, while asking for it would be an undef.
  defp change_code?(change, arities) do
    Enum.any?(arities, &({"code_change", &1} in change.exports))
  end

  # Only if a changed module can be a handler at all: any manager may be busy.
  defp event_managers(pids, replaced) do
    if Enum.any?(Map.keys(replaced), &exports?(&1, [{:handle_event, 2}])),
      do: ask_event_managers(pids, replaced),
      else: {[], []}
  end

  # gen_event answers get_modules, as release_handler asks it (gen_event.erl, handle_msg).
  defp ask_event_managers(pids, replaced) do
    ref = make_ref()
    for pid <- pids, do: send(pid, {self(), {self(), {ref, pid}}, :get_modules})
    deadline = System.monotonic_time(:millisecond) + @event_managers_answer_within
    {silent, answers} = SysMessage.collect_until(ref, pids, deadline, [], &note/3)

    {silent, Enum.flat_map(answers, &event_manager(&1, replaced))}
  end

  defp note(pid, modules, answers) when is_list(modules), do: {:done, [{pid, modules} | answers]}
  defp note(_pid, _no_event_manager, answers), do: {:done, answers}

  defp event_manager({pid, modules}, replaced) do
    case for module <- Enum.uniq(modules), is_map_key(replaced, module), do: module do
      [] ->
        []

      changed ->
        modules = Enum.map(changed, &{&1, change_code?(replaced[&1], [3])})
        [target(pid, :event_manager, modules)]
    end
  end

  defp target(pid, kind, modules), do: %{pid: pid, kind: kind, modules: modules}
end
