defmodule HotPatch.Swap.Discovery.Running do
  @moduledoc false
  # Who has a function of some modules on its stack, seen by one look at each process: those that run the module
  # without speaking the system messages, and those that only wait in it. Of a deep stack the VM shows only a part:
  # it is read in full where that does not take too long. Who hibernates has no stack before OTP 28; of those it
  # counts where they began.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Target

  @typedoc """
  The process, and its stack from the innermost function; of one that hibernates the function in which it began.
  """
  @type t :: {pid(), :waits | :runs | :hibernates, Exception.stacktrace()}

  @doc "Of changes, among some processes; those that are found already are not looked at."
  @spec of([Change.t()], [Target.t()], [pid()]) :: [t()]
  def of(changes, targets, list \\ Process.list()) do
    case Change.replaced(changes) do
      [] -> []
      replaced -> of_modules(MapSet.new(replaced), targets, list)
    end
  end

  defp of_modules(replaced, targets, list) do
    known = MapSet.new(targets, & &1.pid)
    unknown = Enum.reject(list, &MapSet.member?(known, &1))
    Lookers.look(unknown, &look_at_each(&1, replaced))
  end

  defp look_at_each(pids, replaced) do
    for pid <- pids,
        [status: status, current_stacktrace: stack] <-
          [Process.info(pid, [:status, :current_stacktrace])],
        seen = seen(pid, status, stack, replaced),
        do: seen
  end

  defp seen(pid, _status, [], replaced) do
    with true <- Stacktrace.hibernates?(pid),
         {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         {module, function, arity} <- dictionary[:"$initial_call"],
         true <- MapSet.member?(replaced, module) do
      {pid, :hibernates, [{module, function, arity, []}]}
    else
      _of_others -> nil
    end
  end

  defp seen(pid, status, stack, replaced) do
    how = if status == :waiting, do: :waits, else: :runs

    cond do
      Enum.any?(stack, &on?(&1, replaced)) ->
        {pid, how, stack}

      module = Stacktrace.deeper(pid, stack, replaced) ->
        {pid, how, stack ++ [{module, :_, 0, []}]}

      true ->
        nil
    end
  end

  @doc """
  Processes that run changed modules without speaking the system messages: hand-written loops, tasks. They are
  never suspended and move to the new code by themselves, or not.
  """
  @spec bare([t()], [Change.t()]) :: [{pid(), module()}]
  def bare(running, changes) do
    replaced = MapSet.new(Change.replaced(changes))

    for {pid, how, stack} when how != :hibernates <- running,
        {module, _, _, _} <- Enum.take(Enum.filter(stack, &on?(&1, replaced)), 1),
        do: {pid, module}
  end

  @doc "Those that wait in a function of changed modules."
  @spec loops([t()], [Change.t()]) :: %{module() => [pid()]}
  def loops(running, changes) do
    replaced = MapSet.new(Change.replaced(changes))

    for {pid, :waits, [{module, _, _, _} = innermost | _]} <- running,
        on?(innermost, replaced),
        reduce: %{} do
      found -> Map.update(found, module, [pid], &[pid | &1])
    end
  end

  @doc "Those that hibernate and began in a function of changed modules, but for some."
  @spec asleep([t()], [Change.t()], [pid()]) :: %{module() => [pid()]}
  def asleep(running, changes, but) do
    replaced = MapSet.new(Change.replaced(changes))

    for {pid, :hibernates, [{module, _, _, _} = began]} <- running,
        on?(began, replaced),
        pid not in but,
        reduce: %{} do
      found -> Map.update(found, module, [pid], &[pid | &1])
    end
  end

  defp on?({module, _function, _arity, _location}, replaced), do: MapSet.member?(replaced, module)
end
