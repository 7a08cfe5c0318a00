defmodule HotPatch.Swap.Discovery.Loop do
  @moduledoc false
  # What a process is in, as the VM's text of its stack shows it: nobody is asked. Whoever waits in
  # the loop of a gen_server or gen_statem has its callback module in hand there, and that is the
  # truth: the module that it began in may be another by now. Of the others it is said what is
  # known, and they are asked where that is not enough (HotPatch.Swap.Discovery.Query).

  alias HotPatch.Swap.Discovery.CallbackModule
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Discovery.Stacktrace

  # Words of a heap up to which its text is looked at: it would be as large.
  @most_words 100_000

  # Their loops are nobody's callback module.
  @never [:supervisor_bridge, :application_controller, :gen_event]

  @typedoc """
  It works for a module, below which others may be (see CallbackModule); it is in the loop of a behaviour
  that is not OTP's, of that module; it is somewhere else; it has no stack while it hibernates; its
  stack is too large to be read. `named?`: whether a changed module's name is among its values.
  """
  @type t ::
          {:works_for, CallbackModule.stack()}
          | {:foreign, module(), named? :: boolean()}
          | {:busy, named? :: boolean()}
          | :asleep
          | :unread
          | :new

  @type facts :: {call :: mfa() | nil, parent :: pid() | nil, label :: term()}

  @doc """
  What each of some processes is in, as far as it is of interest for changes of modules. Of those that are
  new since a scan before only what may not be as it began (`:new`): that is looked at when they stand
  still, and time is short.
  """
  @spec of([{pid(), facts()}], [module()], new? :: boolean()) :: [{pid(), t() | nil}]
  def of(processes, modules, new? \\ false)

  def of(processes, modules, true) do
    {began, others} =
      Enum.split_with(processes, fn {_pid, {call, _parent, _label}} ->
        match?({_module, :init, 1}, call) and elem(call, 0) in modules
      end)

    # Tasks and the like come and go in great numbers.
    {servers, rest} =
      Enum.split_with(others, fn {_pid, {call, _parent, _label}} ->
        match?({_module, :init, 1}, call)
      end)

    for({pid, _facts} <- began, do: {pid, :new}) ++
      for({pid, _facts} <- rest, do: {pid, nil}) ++ of(servers, modules, false)
  end

  def of(processes, modules, false) do
    if Enum.any?(modules, &Classification.worked_for?/1) do
      names = for module <- modules, do: to_string(:io_lib.write_atom(module))
      looks = %{places: CallbackModule.places(), names: :binary.compile_pattern(names)}
      Lookers.look(processes, &look_at_each(&1, looks))
    else
      for {pid, _facts} <- processes, do: {pid, nil}
    end
  end

  defp look_at_each(processes, looks) do
    for {pid, facts} <- processes, do: {pid, look(pid, facts, looks)}
  end

  defp look(_pid, {nil, _parent, _label}, _looks), do: nil
  defp look(_pid, {{:supervisor, _module, _arity}, _parent, _label}, _looks), do: nil
  defp look(_pid, {{module, _, _}, _parent, _label}, _looks) when module in @never, do: nil
  defp look(pid, _facts, _looks) when pid == self(), do: nil

  defp look(pid, _facts, looks) do
    case Process.info(pid, :total_heap_size) do
      {:total_heap_size, words} when words > @most_words -> :unread
      {:total_heap_size, _words} -> seen(pid, looks)
      nil -> nil
    end
  end

  defp seen(pid, looks) do
    text = CallbackModule.text(pid)

    case CallbackModule.stack(text, looks.places) do
      nil -> elsewhere(pid, text, looks)
      stack -> {:works_for, stack}
    end
  end

  # From OTP 28 on the stack of one that hibernates stays, at a point that is none of those that are
  # learnt.
  @hibernates ["(gen_server:loop_hibernate/", "(gen_statem:loop_hibernate/", "(erlang:hibernate/"]

  defp asleep?(pid, text) do
    [first | _] = :binary.split(text, "\n")
    Stacktrace.hibernates?(pid) or String.contains?(first, @hibernates)
  end

  defp elsewhere(pid, text, looks) do
    named? = :binary.match(text, looks.names) != :nomatch

    cond do
      asleep?(pid, text) -> :asleep
      loop = Stacktrace.foreign_loop(pid) -> {:foreign, loop, named?}
      true -> {:busy, named?}
    end
  end
end
