defmodule HotPatch.Swap.Guard do
  @moduledoc false
  # Watches the engine from outside. If the engine dies in the middle, by whatever cause,
  # the guard ends what it began: with the old code still current every process drops the
  # state put aside, with the new code it takes it, and all are resumed.
  #
  # Messages from two senders have no agreed order: a process could get the guard's resume
  # before the dead engine's suspend. But once it has answered a first resume, everything
  # that was sent before is in its queue, so a second one comes after any suspend.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.SysMessage

  # How long one round waits for busy processes before it looks again.
  @round 60_000

  @doc """
  Starts a guard for an engine that has not begun yet. `loaded?` tells whether the new code
  is current.
  """
  @spec start(pid(), (() -> boolean())) :: {pid(), reference()}
  def start(engine, loaded?) do
    starter = self()
    {guard, monitor} = spawn_monitor(fn -> watch(starter, engine, loaded?) end)

    receive do
      {^guard, :watching} -> {guard, monitor}
      {:DOWN, ^monitor, :process, ^guard, reason} -> exit({:guard, reason})
    end
  end

  @doc """
  Makes the calling process one that is not killed when the application stops: an
  application takes along every process that has its group leader.
  """
  @spec outlive_application() :: true
  def outlive_application, do: Process.group_leader(self(), Process.whereis(:init))

  @doc "Tells the guard about processes that the engine is going to suspend."
  @spec tell(pid(), [pid()]) :: :ok
  def tell(guard, pids) do
    send(guard, {self(), :suspends, pids})
    :ok
  end

  @doc "Tells the guard what now counts as loaded: the engine has turned to another job."
  @spec turn(pid(), (() -> boolean())) :: :ok
  def turn(guard, loaded?) do
    send(guard, {self(), :turns, loaded?})
    :ok
  end

  defp watch(starter, engine, loaded?) do
    outlive_application()
    monitor = Process.monitor(engine)
    send(starter, {self(), :watching})
    watch(engine, monitor, loaded?, [])
  end

  # Signals from the engine keep their order: its end comes after all that it told.
  defp watch(engine, monitor, loaded?, pids) do
    receive do
      {^engine, :suspends, more} ->
        watch(engine, monitor, loaded?, [more | pids])

      {^engine, :turns, loaded?} ->
        watch(engine, monitor, loaded?, pids)

      {:DOWN, ^monitor, :process, ^engine, :normal} ->
        :ok

      {:DOWN, ^monitor, :process, ^engine, _killed} ->
        end_it(
          if(loaded?.(), do: &Conversion.take/1, else: &Conversion.drop/1),
          Enum.concat(pids)
        )
    end
  end

  # Waits as long as it takes: a process that is busy now has the suspend still before it.
  defp end_it(fun, pids) do
    ref = make_ref()

    for pid <- pids do
      SysMessage.run_in(pid, fun)
      SysMessage.send(pid, ref, :resume)
    end

    wait(ref, pids)
  end

  defp wait(_ref, []), do: :ok

  defp wait(ref, waiting) do
    deadline = System.monotonic_time(:millisecond) + @round

    {left, nil} =
      SysMessage.collect_until(ref, waiting, deadline, nil, fn pid, _answer, nil ->
        SysMessage.resume_unanswered(pid)
        {:done, nil}
      end)

    wait(ref, left)
  end
end
