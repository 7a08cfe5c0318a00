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
  alias HotPatch.Swap.Standing
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Work

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

  @doc "Tells the guard about processes that the engine is going to have stand still, and how."
  @spec tell(pid(), reference(), [{pid(), Work.how()}]) :: :ok
  def tell(guard, ref, hows) do
    send(guard, {self(), :stops, ref, hows})
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
  defp watch(engine, monitor, loaded?, stopped) do
    receive do
      {^engine, :stops, ref, hows} ->
        watch(engine, monitor, loaded?, [{ref, hows} | stopped])

      {^engine, :turns, loaded?} ->
        watch(engine, monitor, loaded?, stopped)

      {:DOWN, ^monitor, :process, ^engine, :normal} ->
        :ok

      {:DOWN, ^monitor, :process, ^engine, _killed} ->
        end_it(if(loaded?.(), do: :take, else: :drop), stopped)
    end
  end

  # Waits as long as it takes: a process that is busy now has the suspend still before it. Who
  # stands in a function of ours and is busy lets go of itself.
  defp end_it(order, stopped) do
    ref = make_ref()

    standing =
      for {still, hows} <- stopped, {pid, :still} <- hows, Standing.standing?(pid) do
        Standing.let_go(pid, still, order)
        SysMessage.probe(pid, ref)
        pid
      end

    suspended =
      for {_still, hows} <- stopped, {pid, :suspended} <- hows do
        SysMessage.run_in(
          pid,
          if(order == :take, do: &Conversion.take/1, else: &Conversion.drop/1)
        )

        SysMessage.send(pid, ref, :resume)
        pid
      end

    wait(ref, standing ++ suspended, MapSet.new(suspended))
  end

  defp wait(_ref, [], _suspended), do: :ok

  defp wait(ref, waiting, suspended) do
    deadline = System.monotonic_time(:millisecond) + @round

    {left, nil} =
      SysMessage.collect_until(ref, waiting, deadline, nil, fn pid, _answer, nil ->
        if pid in suspended, do: SysMessage.resume_unanswered(pid)
        {:done, nil}
      end)

    wait(ref, left, suspended)
  end
end
