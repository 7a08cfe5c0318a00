defmodule HotPatch.Swap.OldCode.Users do
  @moduledoc false
  # Processes that run old code, of any number of modules in one pass over all processes.
  #
  # The VM answers for one process and one module at a time, so that asking every process
  # for every module takes their product: a minute at a hundred modules and a hundred
  # thousand processes. A stack trace names all modules at once, and only who has one of
  # them on it is asked.
  #
  # What this sees may be over in a moment, and a fun of the old code can take a process
  # into it again. Whether old code may go is decided by its purge alone, see
  # HotPatch.Swap.OldCode.Purge.

  alias HotPatch.Swap.Discovery.Lookers

  @type holder :: {pid(), module(), Exception.stacktrace()}
  @typep question :: {pid(), module()}

  # Stack traces are never cut shorter, unless somebody has set the VM so.
  @shortest_cut 8

  # A process answers when it gets to a scheduler. On a busy node it has to wait for that: not a hundred thousand times
  # one after the other. All questions at once would fill the mailbox.
  @asked_at_once 500

  @doc "Who runs old code of which of these modules, and what it is doing."
  @spec of([module()]) :: [holder()]
  def of(modules) do
    old = modules |> Enum.filter(&:erlang.check_old_code/1) |> Enum.uniq()
    for {pid, module} <- old |> suspects() |> ask(), stack <- stack(pid), do: {pid, module, stack}
  end

  @doc "Everybody who runs old code of one module, whatever the stacks show."
  @spec of_one(module()) :: [pid()]
  def of_one(module), do: for({pid, _module} <- ask(everybody(module)), do: pid)

  @spec suspects([module()]) :: [question()]
  defp suspects([]), do: []
  # One question takes less than a stack trace.
  defp suspects([module]), do: everybody(module)

  defp suspects(modules) do
    seen = seen(MapSet.new(modules))
    # Where the VM cuts a stack trace cannot be read, but the longest are those that it has
    # cut, if any. What lies below may be of any module.
    cut = for({_pid, depth, _on_stack} <- seen, do: depth) |> Enum.max(fn -> 0 end)

    for {pid, depth, on_stack} <- seen,
        module <- if(depth == max(cut, @shortest_cut), do: modules, else: on_stack),
        do: {pid, module}
  end

  defp everybody(module), do: for(pid <- others(), do: {pid, module})
  defp others, do: List.delete(Process.list(), self())

  # Who has one of the modules on its stack, or so deep a stack that it may have been cut.
  defp seen(modules) do
    Lookers.look(others(), &look(&1, modules))
  end

  defp look(pids, modules) do
    for pid <- pids,
        stack <- stack(pid),
        depth = length(stack),
        on_stack = Enum.uniq(for {module, _, _, _} <- stack, module in modules, do: module),
        on_stack != [] or depth >= @shortest_cut,
        do: {pid, depth, on_stack}
  end

  # None of a process that is dead.
  defp stack(pid) do
    case Process.info(pid, :current_stacktrace) do
      {:current_stacktrace, stack} -> [stack]
      nil -> []
    end
  end

  @spec ask([question()]) :: [question()]
  defp ask(questions),
    do: questions |> Enum.chunk_every(@asked_at_once) |> Enum.flat_map(&ask_some/1)

  defp ask_some(questions) do
    ref = make_ref()

    for {pid, module} = question <- questions,
        do: :erlang.check_process_code(pid, module, async: {ref, question})

    # Also the dead answer: no.
    for _ <- questions, question <- yes(ref), do: question
  end

  defp yes(ref) do
    receive do
      {:check_process_code, {^ref, question}, runs?} -> if runs?, do: [question], else: []
    end
  end
end
