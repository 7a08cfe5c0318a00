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
  alias HotPatch.Swap.Discovery.Glance
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.Wrapper

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
  was not read; its reductions when it was, of one that works for a module; and whether a changed module may be on
  its stack.
  """
  @type look :: %{
          loop: t() | nil,
          funs: FunHolders.shown() | nil,
          reductions: non_neg_integer() | nil,
          runs?: boolean()
        }

  @type facts :: {call :: mfa() | nil, parent :: pid() | nil, label :: term()}

  @not_looked_at %{loop: nil, funs: nil, reductions: nil, runs?: true}

  @doc "Whether texts are read for changes of modules: of those that nobody works for, no."
  @spec texts?([module()]) :: boolean()
  def texts?(modules), do: Enum.any?(modules, &Classification.worked_for?/1)

  @doc """
  What each of some processes is in, as far as it is of interest for changes of modules, and of funs: those for
  whom it is not are left out. Of those that are new since a scan before only what may not be as it began: that is looked at when they
  stand still, and time is short.
  """
  @spec of([Glance.t()], [module()], FunHolders.wanted(), new? :: boolean()) :: [{pid(), look()}]
  def of(glances, modules, wanted \\ %{}, new? \\ false)

  def of(glances, modules, wanted, true) do
    {began, others} =
      Enum.split_with(glances, fn %{facts: {call, _parent, _label}} ->
        match?({_module, :init, 1}, call) and elem(call, 0) in modules
      end)

    # Tasks and the like come and go in great numbers.
    {servers, rest} =
      Enum.split_with(others, fn %{facts: {call, _parent, _label}} ->
        match?({_module, :init, 1}, call)
      end)

    for(
      %{pid: pid} <- began,
      do: {pid, %{@not_looked_at | loop: {:new, Stacktrace.foreign_loop(pid)}}}
    ) ++
      for(%{pid: pid} <- rest, do: {pid, @not_looked_at}) ++
      of(servers, modules, wanted, false)
  end

  def of(glances, modules, wanted, false) do
    if texts?(modules) do
      names = for module <- modules, do: to_string(:io_lib.write_atom(module))

      looks = %{
        modules: Map.new(modules, &{&1, []}),
        places: CallbackModule.places(),
        names: :binary.compile_pattern(names),
        frames: :binary.compile_pattern(Enum.map(names, &"(#{&1}:")),
        funs: FunHolders.patterns(wanted)
      }

      for %{pid: pid, facts: facts} = glance <- glances,
          look = look(glance, looks),
          not another?(facts, look, looks.modules),
          do: {pid, look}
    else
      for %{pid: pid} <- glances, do: {pid, @not_looked_at}
    end
  end

  # The servers of other modules are most of all there are.
  defp another?(
         {{_module, :init, 1}, _, _},
         %{loop: {:works_for, stack}, funs: :none, runs?: false},
         modules
       ),
       do: not Enum.any?(stack, &is_map_key(modules, &1)) and Wrapper.path(hd(stack)) == nil

  defp another?(_facts, _look, _modules), do: false

  defp look(%{facts: {nil, _parent, _label}}, _looks), do: @not_looked_at

  defp look(%{facts: {{module, _, _}, _, _}} = glance, looks)
       when module == :supervisor or module in @never,
       do: %{@not_looked_at | runs?: runs?(glance.text, looks)}

  defp look(%{pid: pid}, _looks) when pid == self(), do: @not_looked_at
  defp look(%{large?: true}, _looks), do: %{@not_looked_at | loop: :unread, funs: :unseen}
  defp look(%{text: nil} = glance, looks), do: seen(glance, Stacktrace.text(glance.pid), looks)
  defp look(glance, looks), do: seen(glance, glance.text, looks)

  defp seen(%{pid: pid, reductions: reductions}, text, looks) do
    funs = FunHolders.in_text(text, looks.funs)
    runs? = runs?(text, looks)

    case CallbackModule.stack(text, looks.places) do
      nil -> %{elsewhere(pid, text, funs, looks) | runs?: runs? or Stacktrace.hibernates?(pid)}
      stack -> %{loop: {:works_for, stack}, funs: funs, reductions: reductions, runs?: runs?}
    end
  end

  # A function that is run, or will go on, is in the text as `(module:function/arity + offset)`.
  defp runs?(nil, _looks), do: true
  defp runs?(text, looks), do: :binary.match(text, looks.frames) != :nomatch

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
