defmodule HotPatch.Swap.Guard do
  @moduledoc false
  # Watches the engine from outside. If the engine dies in the middle, by whatever cause,
  # the guard resumes every process it may have suspended.
  #
  # Messages from two senders have no agreed order: a process could get the guard's resume
  # before the dead engine's suspend. But once it has answered a first resume, everything
  # that was sent before is in its queue, so a second one comes after any suspend.

  alias HotPatch.Swap.KeptState
  alias HotPatch.Swap.SysMessage

  # How long one round waits for busy processes before it looks again.
  @round 60_000

  @doc "Starts a guard for an engine that has not begun yet."
  @spec start(pid()) :: pid()
  def start(engine) do
    starter = self()
    {guard, monitor} = spawn_monitor(fn -> watch(starter, engine) end)

    receive do
      {^guard, :watching} -> Process.demonitor(monitor, [:flush])
    end

    guard
  end

  @doc "Tells the guard about processes that the engine is going to suspend."
  @spec tell(pid(), [pid()]) :: :ok
  def tell(guard, pids) do
    send(guard, {self(), :suspends, pids})
    :ok
  end

  defp watch(starter, engine) do
    monitor = Process.monitor(engine)
    send(starter, {self(), :watching})
    watch(engine, monitor, [])
  end

  # Signals from the engine keep their order: its end comes after all that it told.
  defp watch(engine, monitor, pids) do
    receive do
      {^engine, :suspends, more} -> watch(engine, monitor, more ++ pids)
      {:DOWN, ^monitor, :process, ^engine, :normal} -> :ok
      {:DOWN, ^monitor, :process, ^engine, _killed} -> rescue_all(pids)
    end
  end

  defp rescue_all(pids) do
    resume(MapSet.new(pids))
    Enum.each(pids, &KeptState.forget/1)
    resume(MapSet.new(pids))
  end

  # Waits as long as it takes: a process that is busy now has the suspend still before it.
  defp resume(pids) do
    ref = make_ref()
    Enum.each(pids, &SysMessage.send(&1, ref, :resume))
    wait(ref, pids)
  end

  defp wait(ref, waiting) do
    deadline = System.monotonic_time(:millisecond) + @round

    case SysMessage.collect(ref, waiting, %{}, deadline, [], fn _, _, acc -> acc end) do
      {left, _} -> if MapSet.size(left) == 0, do: :ok, else: wait(ref, left)
    end
  end
end
