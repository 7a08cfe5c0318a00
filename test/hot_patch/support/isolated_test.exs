defmodule HotPatch.Support.IsolatedTest do
  use ExUnit.Case, async: true

  alias HotPatch.Support.Isolated

  test "gives what the function gives, from another process" do
    assert {:ok, pid} = Isolated.run(&self/0, 5_000)
    assert pid != self()
    refute_received _anything
  end

  test "says what it died of, and nobody dies with it" do
    assert Isolated.run(fn -> exit(:no) end, 5_000) == {:died, :no}
    assert Isolated.run(fn -> Process.exit(self(), :kill) end, 5_000) == {:died, :killed}
    refute_received _anything
  end

  test "ends one that is late, and says what it was at" do
    look = fn pid -> {pid, Process.info(pid, :current_function)} end
    for_ever = fn -> receive(do: (:never -> :ok)) end
    assert {:late, {pid, {:current_function, _}}} = Isolated.run(for_ever, 10, look)
    monitor = Process.monitor(pid)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _killed_or_gone}
    refute_received _anything
  end

  test "takes a result that came while it was looked at" do
    look = fn pid ->
      send(pid, :go)
      monitor = Process.monitor(pid)
      receive(do: ({:DOWN, ^monitor, _, _, _} -> nil))
    end

    assert Isolated.run(fn -> receive(do: (:go -> :done)) end, 0, look) == {:ok, :done}
    refute_received _anything
  end
end
