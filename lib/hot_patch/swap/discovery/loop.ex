defmodule HotPatch.Swap.Discovery.Loop do
  @moduledoc false
  # What a process is in, as the VM's text of its stack shows it: nobody is asked. Whoever waits in
  # the loop of a gen_server or gen_statem has its callback module in hand there, and that is the
  # truth: the module that it began in may be another by now. Of the others it is said what is
  # known, and they are asked where that is not enough (HotPatch.Swap.Discovery.Query).
  #
  # The same text shows which funs it holds (HotPatch.Swap.Discovery.FunHolders): it is read once for both.

  alias HotPatch.Swap.Discovery.CallbackModule
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.FunHolders
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.Wrapper

  # Words of a heap up to which its text is looked at: it would be as large.
  @most_words 100_000

  # Their loops are nobody's callback module.
  @never [:supervisor_bridge, :application_controller, :gen_event]

  @typedoc """
  It works for a module, below which others may be (see CallbackModule); it is in the loop of a behaviour
  that is not OTP's, of that module; it is somewhere else; it has no stack while it hibernates; its
  stack is too large to be read; it is new, and began for a changed module, in the loop of a behaviour that is not
  OTP's or in another. `named?`: whether a changed module's name is among its values.
  """
  @type t ::
          {:works_for, CallbackModule.stack()}
          | {:foreign, module(), named? :: boolean()}
          | {:busy, named? :: boolean()}
          | :asleep
          | :unread
          | {:new, foreign :: module() | nil}

  @typedoc """
  What a process is in, nil where that is of no interest; which funs of interest its text shows, nil where it
  was not read; and its reductions when it was, of one that works for a module.
  """
  @type look :: %{
          loop: t() | nil,
          funs: FunHolders.shown() | nil,
          reductions: non_neg_integer() | nil
        }

  @type facts :: {call :: mfa() | nil, parent :: pid() | nil, label :: term()}

  @not_looked_at %{loop: nil, funs: nil, reductions: nil}

  @doc """
  What each of some processes is in, as far as it is of interest for changes of modules, and of funs: those for
  whom it is not are left out. Of those that are new since a scan before only what may not be as it began: that is looked at when they
  stand still, and time is short.
  """
  @spec of([{pid(), facts()}], [module()], FunHolders.wanted(), new? :: boolean()) ::
          [{pid(), look()}]
  def of(processes, modules, wanted \\ %{}, new? \\ false)

  def of(processes, modules, wanted, true) do
    {began, others} =
      Enum.split_with(processes, fn {_pid, {call, _parent, _label}} ->
        match?({_module, :init, 1}, call) and elem(call, 0) in modules
      end)

    # Tasks and the like come and go in great numbers.
    {servers, rest} =
      Enum.split_with(others, fn {_pid, {call, _parent, _label}} ->
        match?({_module, :init, 1}, call)
      end)

    for(
      {pid, _facts} <- began,
      do: {pid, %{@not_looked_at | loop: {:new, Stacktrace.foreign_loop(pid)}}}
    ) ++
      for({pid, _facts} <- rest, do: {pid, @not_looked_at}) ++
      of(servers, modules, wanted, false)
  end

  def of(processes, modules, wanted, false) do
    if Enum.any?(modules, &Classification.worked_for?/1) do
      names = for module <- modules, do: to_string(:io_lib.write_atom(module))

      looks = %{
        modules: Map.new(modules, &{&1, []}),
        places: CallbackModule.places(),
        names: :binary.compile_pattern(names),
        funs: FunHolders.patterns(wanted)
      }

      Lookers.look(processes, fn part ->
        for {pid, facts} <- part,
            look = look(pid, facts, looks),
            not another?(facts, look, looks.modules),
            do: {pid, look}
      end)
    else
      for {pid, _facts} <- processes, do: {pid, @not_looked_at}
    end
  end

  # The servers of other modules are most of all there are.
  defp another?({{_module, :init, 1}, _, _}, %{loop: {:works_for, stack}, funs: :none}, modules),
    do: not Enum.any?(stack, &is_map_key(modules, &1)) and Wrapper.path(hd(stack)) == nil

  defp another?(_facts, _look, _modules), do: false

  defp look(_pid, {nil, _parent, _label}, _looks), do: @not_looked_at
  defp look(_pid, {{:supervisor, _module, _arity}, _parent, _label}, _looks), do: @not_looked_at

  defp look(_pid, {{module, _, _}, _parent, _label}, _looks) when module in @never,
    do: @not_looked_at

  defp look(pid, _facts, _looks) when pid == self(), do: @not_looked_at

  defp look(pid, _facts, looks) do
    case Process.info(pid, [:total_heap_size, :reductions]) do
      [{:total_heap_size, words}, _reductions] when words > @most_words ->
        %{@not_looked_at | loop: :unread, funs: :unseen}

      [_words, {:reductions, reductions}] ->
        seen(pid, reductions, looks)

      nil ->
        @not_looked_at
    end
  end

  defp seen(pid, reductions, looks) do
    text = Stacktrace.text(pid)
    funs = FunHolders.in_text(text, looks.funs)

    case CallbackModule.stack(text, looks.places) do
      nil -> elsewhere(pid, text, funs, looks)
      stack -> %{loop: {:works_for, stack}, funs: funs, reductions: reductions}
    end
  end

  # From OTP 28 on the stack of one that hibernates in OTP's loops stays, and shows for whom it works.
  @hibernates ["(gen_server:loop_hibernate/", "(gen_statem:loop_hibernate/", "(erlang:hibernate/"]

  defp asleep?(pid, text) do
    [first | _] = :binary.split(text, "\n")
    Stacktrace.hibernates?(pid) or String.contains?(first, @hibernates)
  end

  # Of one that sleeps the text may have nothing, and it is asked for its funs.
  defp elsewhere(pid, text, funs, looks) do
    named? = :binary.match(text, looks.names) != :nomatch

    cond do
      asleep?(pid, text) ->
        %{@not_looked_at | loop: :asleep}

      loop = Stacktrace.foreign_loop(pid) ->
        %{@not_looked_at | loop: {:foreign, loop, named?}, funs: funs}

      true ->
        %{@not_looked_at | loop: {:busy, named?}, funs: funs}
    end
  end
end
