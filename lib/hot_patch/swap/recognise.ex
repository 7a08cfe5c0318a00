defmodule HotPatch.Swap.Recognise do
  @moduledoc false
  # What can be seen of a process without asking it: by proc_lib's note of its initial call,
  # by what its module exports, by its stack.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Wrapper

  @callbacks [{:handle_call, 3}, {:handle_cast, 2}, {:handle_info, 2}, {:callback_mode, 0}]

  @doc "The targets that a process is, by its initial call; `:ask` if only it can tell."
  @spec by_call(pid(), mfa() | nil, %{module() => Change.t()}) :: [Processes.target()] | :ask
  def by_call(pid, call, replaced) do
    case call do
      {:gen_event, _function, _arity} ->
        :ask

      {:supervisor, module, _arity} when is_map_key(replaced, module) ->
        [target(pid, :supervisor, :supervisor, [{module, true}])]

      {module, function, _arity} when is_map_key(replaced, module) ->
        callback(pid, function, replaced[module])

      {module, _function, _arity} ->
        if Wrapper.wrapper?(module), do: :ask, else: []

      nil ->
        []
    end
  end

  @doc "Whether the new code has a callback for the state; where not, it stays as it is."
  @spec change_code?(Change.t(), [arity()]) :: boolean()
  def change_code?(change, arities) do
    Enum.any?(arities, &({"code_change", &1} in change.exports))
  end

  @doc "Whether the running module exports any of these functions."
  @spec exports?(module(), [{atom(), arity()}]) :: boolean()
  def exports?(module, functions) do
    Enum.any?(functions, fn {name, arity} -> function_exported?(module, name, arity) end)
  end

  @doc "A target."
  @spec target(pid(), Processes.kind(), Processes.rule(), [{module(), boolean()}]) ::
          Processes.target()
  def target(pid, kind, rule, modules), do: %{pid: pid, kind: kind, rule: rule, modules: modules}

  # A callback module's process began in its init/1. Others that proc_lib started speak
  # the system messages only if the module says so; a Task, say, would never answer.
  defp callback(pid, :init, change) do
    if behaves?(change.module),
      do: [server(pid, :initial_call, change)],
      else: special(pid, change)
  end

  # Or it began elsewhere and entered a behaviour's loop later.
  defp callback(pid, _function, change) do
    case special(pid, change) do
      [] ->
        if behaves?(change.module) and in_behaviour?(pid),
          do: [server(pid, :entered_loop, change)],
          else: []

      special ->
        special
    end
  end

  defp behaves?(module), do: exports?(module, @callbacks)

  defp server(pid, rule, change) do
    target(pid, :server, rule, [{change.module, change_code?(change, [3, 4])}])
  end

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
      [target(pid, :special, :system_continue, [{change.module, new?}])]
    else
      []
    end
  end
end
