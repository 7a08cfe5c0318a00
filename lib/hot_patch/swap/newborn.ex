defmodule HotPatch.Swap.Newborn do
  @moduledoc false
  # Processes that were started in the very moment of the load, by somebody of whom nothing was known: it
  # may be the code before that has made their state, or the new one.
  #
  # Others of the same module stand still, with the state that they had and the one that they are about to
  # take. Where states of the two versions differ in their form (HotPatch.Swap.StateForm) that tells of
  # which one a newborn's is. It looks at it by itself, by a function that it runs over its state, and changes
  # it by the new code's callback if it is that of before. What that does not tell is left, and named. So is
  # a state of the code that went by a change back: nobody can call the code that knows the way.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.StateForm
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Target

  # Milliseconds; and others that are asked of what form states are.
  @answer_within 500
  @asked 50

  @doc "Settles what it can; gives the processes of which it remains unknown."
  @spec settle([Target.t()], map()) :: [pid()]
  def settle([], _swap), do: []

  def settle(targets, swap) do
    forms = forms(targets, swap)
    ref = SysMessage.open()

    asked =
      for target <- targets,
          change = one_change(target, swap.ready.job.changes),
          pairs = forms[change.module],
          do: ask(target, change, pairs, {swap, ref})

    deadline = System.monotonic_time(:millisecond) + @answer_within

    {_silent, settled} =
      SysMessage.collect_until({ref, asked}, deadline, [], fn
        pid, :settled, settled -> {:done, [pid | settled]}
        # Of a conversion; the last word follows.
        _pid, _told, settled -> {:more, settled}
      end)

    SysMessage.close(ref)
    for %{pid: pid} <- targets, pid not in settled, Process.alive?(pid), do: pid
  end

  # Servers, whose state is one term.
  defp one_change(%{kind: :server, modules: [{module, true}]}, changes),
    do: Enum.find(changes, &(&1.module == module))

  defp one_change(_target, _changes), do: nil

  # By module the pairs of those that stand still.
  defp forms(targets, %{windows: windows, suspension: %{standing: standing}}) do
    modules = for %{modules: modules} <- targets, {module, _} <- modules, uniq: true, do: module

    Map.new(modules, fn module ->
      standing_still =
        for window <- windows,
            %{how: :still, conversions: %{^module => conversion}, pid: pid} <- window,
            do: {pid, conversion.kind}

      {module, pairs(Enum.take(standing_still, @asked), standing)}
    end)
  end

  defp pairs(some, standing) do
    ref = SysMessage.open()
    Enum.each(some, fn {pid, kind} -> Parking.ask_forms(standing, pid, {kind, ref}) end)
    deadline = System.monotonic_time(:millisecond) + @answer_within
    pids = Enum.map(some, &elem(&1, 0))

    {_silent, pairs} =
      SysMessage.collect_until({ref, pids}, deadline, [], fn _pid, pair, pairs ->
        {:done, [pair | pairs]}
      end)

    SysMessage.close(ref)
    Enum.uniq(pairs)
  end

  @spec ask(Target.t(), Change.t(), [{StateForm.t(), StateForm.t()}], {map(), reference()}) ::
          pid()
  defp ask(%{pid: pid} = target, change, pairs, {swap, ref}) do
    conversion = ProcessTask.after_load(target, change, swap.ready, ref)
    SysMessage.run_in(pid, &look(&1, conversion, change.direction, pairs))
    pid
  end

  # Runs inside.
  defp look(state, %{kind: kind, ref: ref} = conversion, direction, pairs) do
    case StateForm.version(StateForm.of(state, kind), pairs) do
      :now ->
        SysMessage.tell(ref, ref, :settled)
        state

      :before when direction == :up ->
        change(state, conversion)

      _unknown ->
        state
    end
  end

  defp change(state, %{ref: ref} = conversion) do
    with {:ok, new} <- Conversion.tried(conversion, state) do
      SysMessage.tell(ref, ref, :settled)
      new
    else
      _told -> state
    end
  end
end
