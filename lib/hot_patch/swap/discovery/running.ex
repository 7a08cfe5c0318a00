defmodule HotPatch.Swap.Discovery.Running do
  @moduledoc false
  # Who has a function of some modules on the part of its stack that the VM shows, seen by one look at each
  # process: those that run the module without speaking the system messages, and those that only wait in it.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Target

  @typedoc "The process, whether it waits, and its stack from the innermost function."
  @type t :: {pid(), waits? :: boolean(), Exception.stacktrace()}

  @doc "Of changes; processes that are found already are not looked at."
  @spec of([Change.t()], [Target.t()]) :: [t()]
  def of(changes, targets) do
    replaced = MapSet.new(Change.replaced(changes))
    known = MapSet.new(targets, & &1.pid)
    unknown = Enum.reject(Process.list(), &MapSet.member?(known, &1))
    Lookers.look(unknown, &look_at_each(&1, replaced))
  end

  defp look_at_each(pids, replaced) do
    for pid <- pids,
        [status: status, current_stacktrace: stack] <-
          [Process.info(pid, [:status, :current_stacktrace])],
        Enum.any?(stack, &on?(&1, replaced)),
        do: {pid, status == :waiting, stack}
  end

  @doc """
  Processes that run changed modules without speaking the system messages: hand-written loops, tasks. They are
  never suspended and move to the new code by themselves, or not.
  """
  @spec bare([t()], [Change.t()]) :: [{pid(), module()}]
  def bare(running, changes) do
    replaced = MapSet.new(Change.replaced(changes))

    for {pid, _waits?, stack} <- running,
        {module, _, _, _} <- Enum.take(Enum.filter(stack, &on?(&1, replaced)), 1),
        do: {pid, module}
  end

  @doc "Those that wait in a function of changed modules."
  @spec loops([t()], [Change.t()]) :: %{module() => [pid()]}
  def loops(running, changes) do
    replaced = MapSet.new(Change.replaced(changes))

    for {pid, true, [{module, _, _, _} = innermost | _]} <- running,
        on?(innermost, replaced),
        reduce: %{} do
      found -> Map.update(found, module, [pid], &[pid | &1])
    end
  end

  defp on?({module, _function, _arity, _location}, replaced), do: MapSet.member?(replaced, module)
end
