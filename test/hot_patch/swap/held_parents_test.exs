defmodule HotPatch.Swap.HeldParentsTest do
  use ExUnit.Case, async: true

  import HotPatch.Test.Until

  alias HotPatch.Swap.HeldParents

  setup do
    pid = spawn(fn -> count(0) end)
    on_exit(fn -> Process.exit(pid, :kill) end)
    %{pid: pid}
  end

  defp count(n) do
    receive do
      {:count, from} -> send(from, {:counted, n})
    after
      0 -> count(n + 1)
    end
  end

  defp held?(pid), do: Process.info(pid, :status) == {:status, :suspended}

  test "a process is held, whatever it does, and let go of", %{pid: pid} do
    held = HeldParents.hold([pid])
    until(fn -> held?(pid) end, "it is held")
    assert HeldParents.release(held) == :ok
    until(fn -> not held?(pid) end, "it goes on")
  end

  test "the dead, itself and those that serve the load are left alone", %{pid: pid} do
    {dead, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, ^dead, _reason}
    code_server = Process.whereis(:code_server)
    {holder, _monitor} = held = HeldParents.hold([dead, self(), code_server, pid])
    # Not by their status: the VM itself suspends the code server while it loads something.
    {:suspending, suspended} = Process.info(holder, :suspending)
    assert for({one, _times, _outstanding} <- suspended, do: one) == [pid]
    assert HeldParents.release(held) == :ok
    assert HeldParents.hold([self(), code_server]) == nil
    assert HeldParents.release(nil) == :ok
  end

  test "it is let go of when the one that holds it is dead", %{pid: pid} do
    {holder, _monitor} = held = HeldParents.hold([pid])
    Process.exit(holder, :kill)
    until(fn -> not held?(pid) end, "it goes on")
    assert HeldParents.release(held) == :ok
  end

  test "it is let go of when the engine is dead, and when the load takes too long", %{pid: pid} do
    test = self()

    engine =
      spawn(fn ->
        HeldParents.hold([pid])
        send(test, :held)
        receive(do: (:never -> :ok))
      end)

    assert_receive :held
    until(fn -> held?(pid) end, "it is held")
    Process.exit(engine, :kill)
    until(fn -> not held?(pid) end, "it goes on")

    held = HeldParents.hold([pid])
    until(fn -> not held?(pid) end, "it goes on by itself")
    assert HeldParents.release(held) == :ok
  end
end
