defmodule HotPatch.Swap.ProcessTask do
  @moduledoc false
  # What is to be done with each process concerned: how it stands still, which conversions it
  # runs before the load, and what its module has to do by itself.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Employment
  alias HotPatch.Swap.Foreign
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Shadow
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.Target

  @typedoc """
  How a process stands still: inside a function of ours (HotPatch.Swap.Parking), or suspended
  by a system message, where its behaviour has to do more than to keep a state. Or it does not,
  and is suspended only for its own change, in its turn.
  """
  @type how :: :still | :suspended | :in_turn

  @typedoc """
  One process, and the loop that it is in where that is not OTP's. `conversions` are run before the load, and may be none; `by_itself` are the modules that
  have to change by themselves. Processes of one `like` are alike in all that is to be done. `reductions` are
  those of the process when it was looked at.
  """
  @type t :: %__MODULE__{
          pid: pid(),
          reductions: Employment.before(),
          loop: module() | nil,
          how: how(),
          conversions: %{module() => Conversion.t()},
          by_itself: [module()],
          like: integer()
        }
  @enforce_keys [:pid]
  defstruct [:pid, :loop, :reductions, how: :still, conversions: %{}, by_itself: [], like: 0]

  @doc """
  The work on targets, in windows: enough of them at a time to keep the schedulers busy, few
  enough that answers do not pile up. Conversions answer under a ref, and end with a signal.
  """
  @spec of([Target.t()], Ready.t(), {reference(), Signal.t()}, pos_integer()) :: [[t()]]
  def of(targets, ready, under, window \\ 1_000) do
    conversions = conversions(ready, under)
    hold = hold(ready, under)

    # Most targets are alike: what is to be done for one is worked out once for all of them.
    {tasks, _alike} =
      Enum.map_reduce(targets, %{}, fn target, alike ->
        %{modules: modules, sure?: sure?, loop: loop} = target
        key = {target.kind, modules, sure?, loop, target.keeps?, target.ends?, target.holds?}
        new = fn -> %{task(target, conversions, hold) | like: :erlang.unique_integer()} end
        alike = Map.put_new_lazy(alike, key, new)
        {%{alike[key] | pid: target.pid, reductions: target.reductions}, alike}
      end)

    Enum.chunk_every(tasks, window)
  end

  @doc """
  Whether a process converts its state as soon as it stands still. Any other does so when all stand still
  that are to: what it calls may have effects, or read what others still change.
  """
  @spec at_once?(t()) :: boolean()
  def at_once?(%{how: :still, conversions: conversions}) when map_size(conversions) == 1,
    do: Enum.all?(conversions, fn {_module, conversion} -> conversion.at_once? end)

  def at_once?(_task), do: false

  @doc "The same process, which does not convert its state at once."
  @spec later(t()) :: t()
  def later(task), do: converting(task, &%{&1 | at_once?: false})

  @doc "How a process that stands still looks for whom it works; nil where it need not."
  @spec looks(t()) :: Employment.looks() | nil
  def looks(%{how: :still, conversions: conversions}) when map_size(conversions) == 1 do
    case Map.to_list(conversions) do
      [{_module, %{works_for: nil}}] -> nil
      [{module, %{works_for: works_for}}] -> {works_for, module}
    end
  end

  def looks(_task), do: nil

  @doc "The conversion of a process that has one state, as all have but event managers."
  @spec only(t()) :: Conversion.t()
  def only(%{conversions: conversions}) do
    [{_module, conversion}] = Map.to_list(conversions)
    conversion
  end

  @doc "The work of one process, of which nothing is kept: it is only tried."
  @spec rehearsal(t()) :: t()
  def rehearsal(task), do: converting(task, &%{&1 | rehearsal?: true})

  defp converting(task, change) do
    conversions = for {module, conversion} <- task.conversions, do: {module, change.(conversion)}
    %{task | conversions: Map.new(conversions)}
  end

  @doc "Processes in which nothing is to be converted."
  @spec bystanders([pid()], pos_integer()) :: [[t()]]
  def bystanders(pids, window \\ 1_000) do
    for(pid <- pids, do: %__MODULE__{pid: pid}) |> Enum.chunk_every(window)
  end

  @doc "The modules that have to do it by themselves, by process."
  @spec by_itself([[t()]]) :: [{pid(), module()}]
  def by_itself(windows) do
    for window <- windows, task <- window, module <- task.by_itself, do: {task.pid, module}
  end

  @doc "The conversion of a process in a loop that is not OTP's, by the code that is current after the load."
  @spec foreign(HotPatch.Swap.Job.t(), Target.t(), module(), {reference(), Signal.t()}) ::
          Conversion.t()
  def foreign(job, %{loop: loop}, module, under) do
    change = Enum.find(job.changes, &(&1.module == module))
    base = conversion(change, %{name: module, lambdas?: false}, under)
    %{base | kind: :foreign, loop: loop}
  end

  @doc "What a process is sent that changes a module's state by itself."
  @spec messages(HotPatch.Swap.Job.t()) :: %{module() => tuple()}
  def messages(job) do
    Map.new(job.changes, &{&1.module, {:change_code, &1.module, &1.old_vsn, &1.extra}})
  end

  @doc "The same for one process: an Agent is told by the message itself how its state is changed."
  @spec message(tuple(), Target.kind() | nil) :: tuple()
  def message({:change_code, module, vsn, extra}, :agent) do
    change = fn state ->
      {:ok, new} = module.code_change(vsn, state, extra)
      new
    end

    {:change_code, module, vsn, change}
  end

  def message(message, _kind), do: message

  # One conversion for each changed module that has a callback for it and a shadow.
  defp conversions(ready, under) do
    shadows = Map.new(ready.shadows, &{&1.module, &1})
    gone = for %{kind: :delete, module: module} <- ready.job.changes, do: module
    depth = Employment.depth()

    for change <- ready.job.changes, into: %{} do
      conversion = conversion(change, shadow(change, shadows), under)
      conversion = conversion && %{conversion | gone: gone, funs: ready.funs}
      {change.module, {change, conversion, depth, under}}
    end
  end

  # Of those that keep their state, but for the funs in it.
  defp hold(%{funs: nil}, _under), do: %{}

  defp hold(ready, under) do
    for change <- ready.job.changes, into: %{} do
      base = conversion(change, %{name: change.module, lambdas?: false}, under)
      at_once? = change.direction == :up
      {change.module, %{base | keeps?: true, at_once?: at_once?, funs: ready.funs}}
    end
  end

  @doc "The conversion of one target's state by the code that is current after the load."
  @spec after_load(Target.t(), Change.t(), Ready.t(), reference()) :: Conversion.t()
  def after_load(target, change, ready, ref) do
    base = conversion(change, %{name: change.module, lambdas?: false}, {ref, ready.signal})
    %{base | kind: Shadow.kind(target.kind, change), funs: ready.funs}
  end

  # The way down is known to the code that is current until the load.
  defp shadow(%{direction: :down, module: module}, _shadows),
    do: %{name: module, lambdas?: false}

  defp shadow(change, shadows), do: shadows[change.module]

  # What has been found of the code (native/beam, functions/effects.rs). Of the code that runs nothing is
  # known.
  defp pure?(shadow), do: Map.get(shadow, :effect, :unknown) == nil

  defp conversion(_change, nil, _under), do: nil

  defp conversion(change, shadow, {ref, signal}) do
    %{
      module: change.module,
      shadow: shadow.name,
      lambdas?: shadow.lambdas?,
      md5: change.md5,
      old_vsn: change.old_vsn,
      extra: change.extra,
      kind: nil,
      rehearsal?: false,
      keeps?: false,
      at_once?: pure?(shadow),
      works_for: nil,
      loop: nil,
      gone: [],
      funs: nil,
      signal: signal,
      ref: ref
    }
  end

  # It stands still, and is ended with the load.
  defp task(%{ends?: true, pid: pid}, _conversions, _hold), do: %__MODULE__{pid: pid}

  defp task(target, conversions, hold) do
    modules = for {module, true} <- target.modules, do: module
    task = Enum.reduce(modules, %__MODULE__{pid: target.pid}, &add(&2, target, conversions[&1]))
    task = held(task, target, hold)
    %{task | how: how(target, task)}
  end

  defp add(task, target, {change, nil, depth, under}) do
    task = by_itself(%{task | loop: target.loop}, change.module)

    # Nothing can be tried, but whether it works for the module.
    if target.kind == :server do
      base = conversion(change, %{name: change.module, lambdas?: false}, under)
      kind = Shadow.kind(target.kind, change)
      works_for = Employment.new(depth, target.sure?, kind)
      checked = %{base | kind: :server, rehearsal?: true, keeps?: true, works_for: works_for}
      put_in(task.conversions[change.module], checked)
    else
      task
    end
  end

  defp add(task, target, {change, conversion, depth, _under}) do
    task = %{task | loop: target.loop}

    if hidden?(target, change) do
      by_itself(task, change.module)
    else
      kind = Shadow.kind(target.kind, change)
      rehearsal? = itself?(kind, conversion)
      works_for = if target.kind == :server, do: Employment.new(depth, target.sure?, kind)

      conversion = %{
        conversion
        | kind: kind,
          rehearsal?: rehearsal?,
          keeps?: target.keeps?,
          at_once?: at_once?(target, change, conversion),
          works_for: works_for,
          loop: target.loop
      }

      task = put_in(task.conversions[change.module], conversion)
      if rehearsal?, do: by_itself(task, change.module), else: task
    end
  end

  # Of a loop that is not OTP's its own code is called, too.
  defp at_once?(%{kind: kind}, _change, _conversion) when kind in [:foreign, :hosted], do: false

  defp at_once?(target, change, conversion),
    do: conversion.at_once? or (target.keeps? and change.direction == :up)

  defp by_itself(task, module), do: %{task | by_itself: [module | task.by_itself]}

  # Nothing else is to be done in it than to make its funs anew.
  defp held(
         %{conversions: none, by_itself: []} = task,
         %{holds?: true, modules: [{module, _} | _]} = target,
         hold
       )
       when none == %{} and is_map_key(hold, module) do
    kind = if target.kind == :event_manager, do: :event, else: :server
    %{task | conversions: %{module => %{hold[module] | kind: kind}}}
  end

  defp held(task, _target, _hold), do: task

  # A loop that takes all messages out of the mailbox before it handles the first would go to sleep on
  # what is to wake it up: it is not suspended, unless it alone knows how its state is converted.
  defp how(%{kind: :foreign, loop: loop}, _task),
    do: if(Foreign.open?(loop), do: :still, else: :suspended)

  # An event manager has a state for each handler; a new state that holds funs is converted once
  # more, by the module itself.
  defp how(%{kind: kind}, %{by_itself: []} = task)
       when kind in [:server, :special, :hosted, :agent, :holder] do
    if Enum.any?(task.conversions, fn {_module, conversion} -> conversion.lambdas? end),
      do: :suspended,
      else: :still
  end

  defp how(_target, _task), do: :suspended

  # A wrapper's state is the library's, which alone knows how to hand it on.
  defp hidden?(%{kind: :wrapper}, _change), do: true

  # What its code_change will get is certain only where the loop shows its own term.
  defp hidden?(%{kind: :foreign, loop: loop}, _change), do: not Foreign.open?(loop)

  # Which child specs an older supervisor has is not known before it is loaded.
  defp hidden?(%{kind: :supervisor}, %{direction: :down}), do: true

  # A special process that handles replace_state itself shows its state, not what
  # system_code_change gets.
  defp hidden?(target, %{module: module}) do
    target.kind == :special and function_exported?(module, :system_replace_state, 2)
  end

  # Some keep more than their state up to date when they change code by themselves: for them
  # the conversion is a rehearsal.
  defp itself?(:supervisor, _conversion), do: true

  defp itself?(:statem, %{module: module, shadow: shadow}) do
    function_exported?(module, :callback_mode, 0) and
      module.callback_mode() != shadow.callback_mode()
  end

  defp itself?(_kind, _conversion), do: false
end
