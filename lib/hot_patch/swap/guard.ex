defmodule HotPatch.Swap.Guard do
  @moduledoc false
  # Watches the engine from outside. If the engine dies in the middle, by whatever cause, the guard
  # ends what it began: what became current ahead of the rest is taken back, with the old code
  # still current every process drops the state put aside, with the new code it takes it, and all
  # go on.
  #
  # Messages from two senders have no agreed order: a process could get the guard's resume
  # before the dead engine's suspend. But once it has answered a first resume, everything
  # that was sent before is in its queue, so a second one comes after any suspend.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.SharedTerm
  alias HotPatch.Swap.SysMessage

  # How long one round waits for busy processes before it looks again.
  @round 1_000

  @typedoc """
  `loaded?` tells whether the new code is current; `take_back` takes back what became current
  before the rest, where the rest did not.
  """
  @type ending :: %{loaded?: (() -> boolean()), take_back: (() -> term())}

  @doc "Starts a guard for an engine that has not begun yet."
  @spec start(pid(), ending()) :: {pid(), reference()}
  def start(engine, ending) do
    starter = self()
    {guard, monitor} = spawn_monitor(fn -> watch(starter, engine, ending) end)

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

  @doc "Tells the guard about processes that the engine is going to have stand still, by how."
  @spec tell(Parking.t(), %{ProcessTask.how() => [pid()]}) :: :ok
  def tell(standing, hows) do
    send(standing.guard, {self(), :stops, standing, hows})
    :ok
  end

  @doc "Tells the guard what now counts as loaded: the engine has turned to another job."
  @spec turn(pid(), ending()) :: :ok
  def turn(guard, ending) do
    send(guard, {self(), :turns, ending})
    :ok
  end

  defp watch(starter, engine, ending) do
    outlive_application()
    monitor = Process.monitor(engine)
    send(starter, {self(), :watching})
    watch(engine, monitor, ending, [])
  end

  # Signals from the engine keep their order: its end comes after all that it told.
  defp watch(engine, monitor, ending, stopped) do
    receive do
      # Who was in its turn before has had it.
      {^engine, :stops, standing, %{in_turn: _pids} = hows} ->
        others = Enum.reject(stopped, &match?({_standing, %{in_turn: _had_it}}, &1))
        watch(engine, monitor, ending, [{standing, hows} | others])

      {^engine, :stops, standing, hows} ->
        watch(engine, monitor, ending, [{standing, hows} | stopped])

      {^engine, :turns, ending} ->
        watch(engine, monitor, ending, stopped)

      {:DOWN, ^monitor, :process, ^engine, :normal} ->
        SharedTerm.erase(self())

      {:DOWN, ^monitor, :process, ^engine, _killed} ->
        end_it(outcome(ending), stopped)
        SharedTerm.erase(self())
    end
  end

  defp outcome(%{loaded?: loaded?, take_back: take_back}) do
    if loaded?.() do
      :take
    else
      _ = take_back.()
      :drop
    end
  end

  # Waits as long as it takes: a process that is busy now has the suspend still before it. Who
  # stands in a function of ours and is busy looks at the signal by itself.
  defp end_it(outcome, stopped) do
    for {standing, _hows} <- stopped, do: Parking.settle(standing, outcome)
    ref = SysMessage.open()

    standing =
      for {standing, %{still: pids}} <- stopped, pid <- pids, Parking.standing?(pid) do
        Parking.wake_answered(standing, pid, ref)
        pid
      end

    suspended =
      for {_standing, hows} <- stopped,
          how <- [:suspended, :in_turn],
          pid <- Map.get(hows, how, []) do
        SysMessage.run_in(pid, state(outcome))
        if how == :in_turn, do: SysMessage.run_in(pid, &Conversion.forget/1)
        SysMessage.send(pid, ref, :resume)
        pid
      end

    wait(ref, standing ++ suspended, MapSet.new(suspended))
  end

  defp state(:take), do: &Conversion.take/1
  defp state(:drop), do: &Conversion.drop/1

  defp wait(_ref, [], _suspended), do: :ok

  defp wait(ref, waiting, suspended) do
    deadline = System.monotonic_time(:millisecond) + @round

    {left, nil} =
      SysMessage.collect_until({ref, waiting}, deadline, nil, fn pid, _answer, nil ->
        if pid in suspended, do: SysMessage.resume_unanswered(pid)
        {:done, nil}
      end)

    # A loop may have taken the resume out of its mailbox before it went to sleep.
    for pid <- left,
        pid in suspended,
        SysMessage.suspended?(pid),
        do: SysMessage.resume_unanswered(pid)

    wait(ref, left, suspended)
  end
end
