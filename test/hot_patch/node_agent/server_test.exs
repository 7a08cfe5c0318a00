defmodule HotPatch.NodeAgent.ServerTest do
  use ExUnit.Case, async: false

  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.Commit
  alias HotPatch.NodeAgent.Server

  # The server of this node, which is idle.
  setup do
    pid = Process.whereis(Server)
    assert {:idle, _server} = :sys.get_state(pid)
    on_exit(fn -> assert Process.whereis(Server) == pid end)
    %{server: pid}
  end

  defp operation do
    %{
      ref: make_ref(),
      id: "op-1",
      kind: :apply,
      patch: "p-1",
      by: "alice",
      coordinator: self(),
      origin: :operator,
      pause_timeout: 5_000,
      hold_timeout: 5_000
    }
  end

  defp state(server), do: server |> :sys.get_state() |> elem(0)

  test "takes no message for what it says itself, or the commit that it has started",
       %{server: server} do
    operation = operation()
    :ok = GenServer.call(server, {:reserve, operation})
    before = :sys.get_state(server)
    purpose = {:reserve, {self(), make_ref()}, operation}

    for message <- [
          {:settled, purpose, :ok},
          {:coordinator_lost, :killed},
          {:DOWN, make_ref(), :process, self(), :killed},
          {:DOWN, nil, nil, nil, nil},
          {Commit, self(), {:held, self()}},
          {Commit, self(), {:ended, %{error: nil}}},
          {Commit, nil, nil},
          {:timeout, make_ref(), :silent},
          {:state_timeout, :silent},
          :silent
        ] do
      send(server, message)
      :gen_statem.cast(server, message)
    end

    assert :sys.get_state(server) == before
    assert NodeAgent.abort(operation.ref) == :ok
    assert state(server) == :idle
  end

  test "answers nobody who cannot be answered", %{server: server} do
    for from <- [nil, self(), {nil, make_ref()}, {}, {self(), make_ref(), 1}],
        do: send(server, {:"$gen_call", from, :holder})

    assert state(server) == :idle

    for tag <- [nil, [:alias | nil], [:alias | make_ref()], [[:alias | make_ref()] | 1]],
        do: send(server, {:"$gen_call", {self(), tag}, :holder})

    assert state(server) == :idle
  end

  test "lets go of the node when its coordinator dies, and of one that locks it",
       %{server: server} do
    for {request, held} <- [{:reserve, :reserved}, {:lock, :idle}] do
      {coordinator, monitor} = spawn_monitor(fn -> receive(do: (:end -> :ok)) end)
      holder = %{operation() | coordinator: coordinator}
      assert GenServer.call(server, {request, holder}) == :ok
      assert state(server) == held
      assert NodeAgent.holder() == holder
      send(coordinator, :end)
      assert_receive {:DOWN, ^monitor, :process, ^coordinator, :normal}
      # Signals to two processes have no common order.
      HotPatch.Test.Until.until(fn -> NodeAgent.holder() == nil end, "it is free")
      {:idle, %{monitors: monitors}} = :sys.get_state(server)
      assert monitors == %{}
    end
  end
end
