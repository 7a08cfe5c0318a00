defmodule HotPatch.Swap.HeldParents do
  @moduledoc false
  # Who has started processes concerned, and is no supervisor that stands still with them, could start
  # another in the very moment of the load: it would begin in the code before and go on in the new one.
  # For that moment, from the last look at who is there until the new code is current, the VM itself
  # holds these parents (erlang:suspend_process/2): servers, tasks and bare processes alike, whatever they
  # do, and without a message.
  #
  # They are held by a process of its own. Whatever that dies of, the VM lets go of all that it holds.
  # It lets go by itself when the engine is dead, and when it takes too long: one that is held may be what
  # a child waits for in its init, or what the load waits for.

  # Milliseconds: within which all are to be held, and how long.
  @held_within 100
  @no_longer_than 1_000

  # They serve the load itself, and start nobody.
  @never [:init, :code_server, :erl_prim_loader, :application_controller]

  @type t :: {pid(), reference()} | nil

  @doc "Holds processes for the calling one; who cannot be held in time, or is dead, is left alone."
  @spec hold([pid()]) :: t()
  def hold(pids) do
    case Enum.reject(pids, &never?/1) do
      [] ->
        nil

      pids ->
        engine = self()
        {holder, monitor} = spawn_monitor(fn -> hold(engine, pids) end)

        receive do
          {^holder, :holds} -> {holder, monitor}
          {:DOWN, ^monitor, :process, ^holder, _reason} -> nil
        end
    end
  end

  @doc "Lets go of them."
  @spec release(t()) :: :ok
  def release(nil), do: :ok

  def release({holder, monitor}) do
    send(holder, {self(), :release})
    receive(do: ({:DOWN, ^monitor, :process, ^holder, _reason} -> :ok))
  end

  defp never?(pid), do: pid == self() or Enum.any?(@never, &(Process.whereis(&1) == pid))

  # What it holds is let go of with its end.
  defp hold(engine, pids) do
    monitor = Process.monitor(engine)
    ref = make_ref()
    asked = Enum.count(pids, &ask(&1, ref))
    await(ref, asked, System.monotonic_time(:millisecond) + @held_within)
    send(engine, {self(), :holds})

    receive do
      {^engine, :release} -> :ok
      {:DOWN, ^monitor, :process, ^engine, _reason} -> :ok
    after
      @no_longer_than -> :ok
    end
  end

  defp ask(pid, ref) do
    :erlang.suspend_process(pid, asynchronous: ref)
  rescue
    # It is dead.
    ArgumentError -> false
  end

  defp await(_ref, 0, _deadline), do: :ok

  defp await(ref, asked, deadline) do
    receive do
      {^ref, _suspended_or_dead} -> await(ref, asked - 1, deadline)
    after
      max(deadline - System.monotonic_time(:millisecond), 0) -> :ok
    end
  end
end
