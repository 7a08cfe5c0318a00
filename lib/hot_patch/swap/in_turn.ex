defmodule HotPatch.Swap.InTurn do
  @moduledoc false
  # The compatible transition: every process changes its state in its own turn, so that none
  # waits for another. Between the load and its turn a process runs the new code on the old
  # state; that the new code takes both is declared by whoever applies the patch.
  #
  # It is tried first, likewise in turn, in the shadow of the new code and without taking the
  # result. What cannot be known beforehand is whether the declaration is true: the processes
  # are watched, and when one dies in the new code before its turn, the rest is stopped and
  # the failure says so.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Describe
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Steps
  alias HotPatch.Swap.SysMessage

  @window 1_000
  # How long one window of processes may take to get to it.
  @turn_within 60_000

  @doc "Tries the conversion in every process, in its turn; nobody's state changes."
  @spec rehearse([Processes.target()], Ready.t()) :: :ok | {:error, :taken_back, String.t()}
  def rehearse(targets, ready) do
    deadline = System.monotonic_time(:millisecond) + @turn_within
    result = Steps.convert(targets, ready, deadline)
    for %{pid: pid} <- targets, do: SysMessage.run_in(pid, &Conversion.drop/1)

    with {:ok, _again} <- result, do: :ok
  end

  @doc "After the load: has every process change its state in its turn."
  @spec change([Processes.target()], Ready.t()) :: :ok | {:error, :half, String.t()}
  def change(targets, ready) do
    vsns = Map.new(ready.job.changes, &{&1.module, &1.old_vsn})

    targets
    |> Enum.chunk_every(@window)
    |> Enum.find_value(:ok, &change_window(&1, vsns))
  end

  defp change_window(targets, vsns) do
    ref = make_ref()
    monitors = Map.new(targets, &{Process.monitor(&1.pid), &1})

    owed =
      for %{pid: pid, modules: modules} <- targets, {module, true} <- modules do
        # Suspended for its own change only: all three are in its mailbox at once.
        SysMessage.suspend_unanswered(pid)
        SysMessage.send(pid, ref, {:change_code, module, vsns[module], []})
        SysMessage.resume_unanswered(pid)
        pid
      end

    deadline = System.monotonic_time(:millisecond) + @turn_within
    {silent, failed} = SysMessage.collect_until(ref, owed, deadline, [], &note/3)
    died = Enum.flat_map(monitors, fn {monitor, target} -> died(monitor, target) end)
    outcome(silent, failed, died, Map.new(targets, &{&1.pid, &1}))
  end

  defp note(_pid, :ok, failed), do: {:done, failed}
  defp note(pid, {:error, reason}, failed), do: {:done, [{pid, reason} | failed]}

  # Only a death in one of the modules that change says something about them.
  defp died(monitor, %{pid: pid, modules: modules}) do
    receive do
      {:DOWN, ^monitor, :process, ^pid, {reason, [{module, _, _, _} | _] = stack}} ->
        ours = for {module, _change_code?} <- modules, do: module

        if Enum.any?([{module, 0, 0, 0} | stack], &(elem(&1, 0) in ours)),
          do: [{pid, hd(ours), {:EXIT, {reason, stack}}}],
          else: []
    after
      0 ->
        Process.demonitor(monitor, [:flush])
        []
    end
  end

  defp outcome([], [], [], _targets), do: nil

  defp outcome(_silent, _failed, [{pid, module, reason} | _], _targets) do
    {:error, :half,
     "the transition was declared compatible and is not: #{Describe.crash({pid, module, reason})}; it was " <>
       "stopped there, the new code is current and the processes not changed yet keep their old state"}
  end

  defp outcome(_silent, [{pid, reason} | _], [], targets) do
    [{module, _} | _] = targets[pid].modules
    {:error, :half, Describe.failures([{pid, module, reason}])}
  end

  defp outcome([pid | _], [], [], _targets) do
    {:error, :half,
     "#{Describe.process(pid)} did not get to its change in time; the new code is current"}
  end
end
