defmodule HotPatch.Swap.Discovery.Classification do
  @moduledoc false
  # What can be seen of a process without asking it: by proc_lib's note of its initial call,
  # by what its module exports, by its stack, by its label. Where that is not enough it says
  # what the process is to be asked.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Query
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.Wrapper
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.Target

  @callbacks [{:handle_call, 3}, {:handle_cast, 2}, {:handle_info, 2}, {:callback_mode, 0}]

  # In a behaviour's loop by a call that proc_lib notes otherwise than `{Module, :init, 1}`;
  # the callback module is known all the same.
  @never_asked [:supervisor, :supervisor_bridge, :application_controller]

  @typep replaced :: %{module() => Change.t()}

  @doc "The targets that a process is, by its initial call and its label, or what to ask it."
  @spec by_call(pid(), mfa() | nil, label :: term(), replaced()) ::
          [Target.t()] | {:ask, Query.question()}
  def by_call(pid, call, label, replaced) do
    case Hosted.library(call) do
      nil -> by_own_call(pid, call, label, replaced)
      library -> hosted(pid, {library, elem(call, 0)}, replaced)
    end
  end

  # The library's own code_change hands the new state on to the user's.
  defp hosted(pid, {library, _module}, replaced) when is_map_key(replaced, library),
    do: [server(pid, :hosted, replaced[library])]

  defp hosted(pid, {_library, module}, replaced) when is_map_key(replaced, module),
    do: [target(pid, :hosted, :hosted, [{module, change_code?(replaced[module], [3])}])]

  defp hosted(_pid, _names, _replaced), do: []

  defp by_own_call(pid, call, label, replaced) do
    case call do
      {:gen_event, _function, _arity} ->
        {:ask, :handlers}

      {:supervisor, module, _arity} when is_map_key(replaced, module) ->
        [target(pid, :supervisor, :supervisor, [{module, replaced[module].kind == :replace}])]

      {module, function, _arity} when is_map_key(replaced, module) ->
        with [] <- callback(pid, function, replaced[module]),
             do: by_loop(pid, call, label, replaced)

      {module, _function, _arity} ->
        case Wrapper.path(module) do
          nil -> by_loop(pid, call, label, replaced)
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

  @doc "Whether the running module has callbacks of a gen_server or a gen_statem."
  @spec behaves?(module()) :: boolean()
  def behaves?(module), do: exports?(module, @callbacks)

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
  defp by_loop(_pid, {module, _, _}, _label, _replaced) when module in @never_asked, do: []

  defp by_loop(pid, call, label, replaced) do
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
