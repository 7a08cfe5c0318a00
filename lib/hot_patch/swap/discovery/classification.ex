defmodule HotPatch.Swap.Discovery.Classification do
  @moduledoc false
  # What can be seen of a process without asking it: by its loop, which knows for whom it works; where
  # that is not seen by proc_lib's note of its initial call, by what its module exports, by its
  # stack, by its label. Where that is not enough it says what the process is to be asked.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Loop
  alias HotPatch.Swap.Discovery.Query
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.Wrapper
  alias HotPatch.Swap.Foreign
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.Target

  @callbacks [{:handle_call, 3}, {:handle_cast, 2}, {:handle_info, 2}, {:callback_mode, 0}]

  # In a behaviour's loop by a call that proc_lib notes otherwise than `{Module, :init, 1}`;
  # the callback module is known all the same.
  @never_asked [:supervisor, :supervisor_bridge, :application_controller]

  @typep replaced :: %{module() => Change.t()}

  @doc "The targets that a process is, by what is known of it and by its loop, or what to ask it."
  @spec by_loop(pid(), Loop.facts(), Loop.t() | nil, replaced()) ::
          [Target.t()] | {:ask, Query.question()}
  def by_loop(pid, {call, _parent, _label} = facts, loop, replaced) do
    case Hosted.library(call) do
      nil -> by_own_loop(pid, facts, loop, replaced)
      library -> hosted(pid, {library, elem(call, 0)}, replaced)
    end
  end

  # The library's own code_change hands the new state on to the user's.
  defp hosted(pid, {library, _module}, replaced) when is_map_key(replaced, library),
    do: [server(pid, :hosted, replaced[library])]

  defp hosted(pid, {_library, module}, replaced) when is_map_key(replaced, module),
    do: [target(pid, :hosted, :hosted, [{module, change_code?(replaced[module], [3])}])]

  defp hosted(_pid, _names, _replaced), do: []

  defp by_own_loop(pid, {call, _parent, label}, loop, replaced) do
    case loop do
      {:works_for, [Agent.Server]} when is_map_key(replaced, elem(call, 0)) ->
        [agent(pid, replaced[elem(call, 0)])]

      {:works_for, [module | below]} ->
        works_for(pid, {module, below}, rule(module, call, label, replaced), replaced)

      {:foreign, loop, named?} ->
        in_foreign(pid, loop, call, named? or began?(call, replaced), replaced)

      :asleep ->
        asleep(pid, call, label, replaced)

      {:busy, named?} ->
        by_call(pid, call, label, named?, replaced)

      {:new, loop} when loop != nil and loop != elem(call, 0) ->
        [foreign(pid, loop, replaced[elem(call, 0)])]

      {:new, _otp} ->
        with [%{kind: :server} = target] <- by_call(pid, call, label, false, replaced),
             do: [%{target | sure?: true}]

      _unread ->
        by_call(pid, call, label, false, replaced)
    end
  end

  @doc "What a process is that works for a module, above others."
  @spec works_for(pid(), {module(), [module()]}, Target.rule(), replaced()) ::
          [Target.t()] | {:ask, Query.question()}
  def works_for(pid, {module, below}, rule, replaced) do
    others = for one <- below, is_map_key(replaced, one), one != module, do: {one, false}

    cond do
      is_map_key(replaced, module) and others == [] ->
        [%{server(pid, rule, replaced[module]) | sure?: true}]

      is_map_key(replaced, module) ->
        server = server(pid, rule, replaced[module])
        [%{server | modules: server.modules ++ others, sure?: true}]

      others != [] ->
        others = for {one, false} <- others, do: {one, change_code?(replaced[one], [4])}
        [%{target(pid, :below, :below, others) | sure?: true}]

      path = Wrapper.path(module) ->
        {:ask, {:inside_state, path}}

      true ->
        []
    end
  end

  defp rule(module, call, label, replaced) do
    case call do
      _ when is_map_key(replaced, module) and elem(call, 0) == module ->
        if elem(call, 1) == :init, do: :initial_call, else: :entered_loop

      _ ->
        if names?(label, replaced), do: :label, else: :entered_elsewhere
    end
  end

  # An Agent takes the name of the function that made its state. Its module's code_change is for that state
  # where the module is nothing else.
  defp agent(pid, change) do
    converts? = not behaves?(change.module) and change_code?(change, [3])
    %{target(pid, :agent, :agent, [{change.module, converts?}]) | sure?: true}
  end

  defp began?({module, _function, _arity}, replaced), do: is_map_key(replaced, module)

  # The loop's own module: what changes is what handles the next message, and any system message has a
  # process go through system_continue/3. Its callback module and the state stay.
  defp in_foreign(pid, loop, call, _worth?, replaced) when is_map_key(replaced, loop) do
    case call do
      {^loop, _function, _arity} -> special(pid, replaced[loop])
      _another -> [target(pid, :special, :system_continue, [{loop, false}])]
    end
  end

  defp in_foreign(_pid, _loop, _call, false, _replaced), do: []
  defp in_foreign(_pid, _loop, _call, true, _replaced), do: {:ask, {:callback_module, :loop}}

  # It has no stack. Who began in a behaviour is asked; what is written by hand would see the message.
  defp asleep(pid, {module, function, _arity} = call, label, replaced) do
    if function == :init and in_behaviour?(module) and Wrapper.path(module) == nil,
      do: {:ask, {:callback_module, rule(module, call, label, replaced)}},
      else: by_call(pid, call, label, false, replaced)
  end

  # The callbacks of a behaviour that is not OTP's may have any names, but for this one.
  defp in_behaviour?(module) do
    not exports?(module, system_continue: 3) and
      (behaves?(module) or exports?(module, code_change: 3, code_change: 4))
  end

  # Whoever began in a behaviour for a module may have become another's since.
  defp by_call(pid, {module, :init, 1} = call, label, true, replaced)
       when not is_map_key(replaced, module) do
    if behaves?(module) and Wrapper.path(module) == nil,
      do: ask(pid, :entered_elsewhere, fn _stack -> true end),
      else: by_call(pid, call, label, replaced)
  end

  defp by_call(pid, call, label, _named?, replaced), do: by_call(pid, call, label, replaced)

  defp by_call(pid, call, label, replaced) do
    case call do
      {:gen_event, _function, _arity} ->
        {:ask, :handlers}

      {:supervisor, module, _arity} when is_map_key(replaced, module) ->
        [target(pid, :supervisor, :supervisor, [{module, replaced[module].kind == :replace}])]

      {module, function, _arity} when is_map_key(replaced, module) ->
        with [] <- callback(pid, function, replaced[module]),
             do: by_stack(pid, call, label, replaced)

      {module, _function, _arity} ->
        case Wrapper.path(module) do
          nil -> by_stack(pid, call, label, replaced)
          path -> {:ask, {:inside_state, path}}
        end

      nil ->
        []
    end
  end

  @doc "Whether the new code has a callback for the state; where not, it stays as it is."
  @spec change_code?(Change.t(), [arity()]) :: boolean()
  def change_code?(change, arities) do
    change.kind == :replace and change.convert? and
      Enum.any?(arities, &({"code_change", &1} in change.exports))
  end

  @doc "Whether the running module exports any of these functions."
  @spec exports?(module(), [{atom(), arity()}]) :: boolean()
  def exports?(module, functions) do
    Enum.any?(functions, fn {name, arity} -> function_exported?(module, name, arity) end)
  end

  @doc "A target."
  @spec target(pid(), Target.kind(), Target.rule(), [{module(), boolean()}]) ::
          Target.t()
  def target(pid, kind, rule, modules),
    do: %Target{pid: pid, kind: kind, rule: rule, modules: modules}

  @doc "A target that is a gen_server or a gen_statem."
  @spec server(pid(), Target.rule(), Change.t()) :: Target.t()
  def server(pid, rule, change) do
    target(pid, :server, rule, [{change.module, change_code?(change, [3, 4])}])
  end

  @doc "A target in the loop of a behaviour that is not OTP's."
  @spec foreign(pid(), module(), Change.t()) :: Target.t()
  def foreign(pid, loop, change) do
    modules = [{change.module, change_code?(change, [3, 4])}]
    %{target(pid, :foreign, :loop, modules) | loop: loop, sure?: Foreign.open?(loop)}
  end

  @doc "Whether the running module has callbacks of a gen_server or a gen_statem."
  @spec behaves?(module()) :: boolean()
  def behaves?(module), do: exports?(module, @callbacks)

  @doc "Whether processes may work for the running module, in whichever behaviour."
  @spec worked_for?(module()) :: boolean()
  def worked_for?(module),
    do: behaves?(module) or exports?(module, init: 1, code_change: 3, code_change: 4)

  # A callback module's process began in its init/1. Others that proc_lib started speak
  # the system messages only if the module says so; a loop written by hand, or a Task, would never
  # answer, and its code would see what it is sent.
  defp callback(pid, :init, change) do
    if behaves?(change.module) and not Stacktrace.by_hand?(pid),
      do: [server(pid, :initial_call, change)],
      else: special(pid, change)
  end

  # Or it began in another function of the module and entered a behaviour's loop later.
  defp callback(pid, _function, change) do
    case special(pid, change) do
      [] ->
        if behaves?(change.module) and entered?(pid),
          do: [server(pid, :entered_loop, change)],
          else: []

      special ->
        special
    end
  end

  # One that hibernates shows nothing of a loop, but where else could it be?
  defp entered?(pid),
    do: Stacktrace.in_loop?(pid, fn _stack -> true end) or Stacktrace.hibernates?(pid)

  # Whoever is in a loop answers system messages, and only who is can be asked. What began in the
  # `init/1` of a callback module was begun by the behaviour, for that module.
  defp by_stack(_pid, {module, _, _}, _label, _replaced) when module in @never_asked, do: []

  defp by_stack(pid, call, label, replaced) do
    cond do
      names?(label, replaced) -> ask(pid, :label, fn _stack -> true end)
      match?({_module, :init, 1}, call) and behaves?(elem(call, 0)) -> []
      true -> ask(pid, :entered_elsewhere, &Stacktrace.any?(&1, replaced))
    end
  end

  defp ask(pid, rule, worth?) do
    if Stacktrace.in_loop?(pid, worth?), do: {:ask, {:callback_module, rule}}, else: []
  end

  defp names?(nil, _replaced), do: false
  defp names?(label, replaced) when is_atom(label), do: is_map_key(replaced, label)

  defp names?(label, replaced) when is_tuple(label) and tuple_size(label) > 0,
    do: is_map_key(replaced, elem(label, 0))

  defp names?(_label, _replaced), do: false

  defp special(pid, change) do
    if exports?(change.module, [{:system_continue, 3}]) and not Stacktrace.task?(pid) do
      new? =
        change.kind == :replace and change.convert? and
          {"system_code_change", 4} in change.exports

      [target(pid, :special, :system_continue, [{change.module, new?}])]
    else
      []
    end
  end
end
