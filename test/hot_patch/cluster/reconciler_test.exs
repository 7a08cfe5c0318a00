defmodule HotPatch.Cluster.ReconcilerTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias HotPatch.Cluster.Reconciler
  alias HotPatch.NodeAgent

  # How soon it is compared again, by the ends of comparisons that are told to the process by hand.

  setup do
    on_exit(fn -> NodeAgent.behind(nil) end)

    %{state: %{worker: nil, timer: nil, failing: nil, agent: nil, first?: false, waiting: []}}
  end

  # A comparison has ended so; gives the milliseconds until the next.
  defp ended(state, result) do
    monitor = make_ref()
    down = {:DOWN, monitor, :process, self(), {:result, result}}

    {:noreply, state} =
      Reconciler.handle_info(down, %{state | worker: {self(), monitor}, timer: nil})

    left = Process.read_timer(state.timer)
    _ = Process.cancel_timer(state.timer)
    {left, state}
  end

  defp behind, do: NodeAgent.info().behind

  test "that failures come at once does not put the next attempt off", %{state: state} do
    capture_log(fn ->
      {first, state} = ended(state, {:error, "busy"})
      assert first in 1..1_000

      # Each brought by an event, as while a node starts among others that have news.
      {last, _state} =
        Enum.reduce(1..20, {first, state}, fn _n, {_left, state} ->
          ended(state, {:error, "busy"})
        end)

      assert last <= 1_000
    end)

    assert behind() == "busy"
  end

  test "what fails for long is tried ever less often, and no less than that", %{state: state} do
    capture_log(fn ->
      since = System.monotonic_time(:millisecond)
      {left, _state} = ended(%{state | failing: since - 40_000}, {:error, "busy"})
      assert left in 35_000..45_000
      {left, _state} = ended(%{state | failing: since - 5_000_000}, {:error, "busy"})
      assert left in 590_000..600_000
    end)
  end

  test "a node that is held is compared in a moment, and is what it was until then", %{
    state: state
  } do
    capture_log(fn ->
      {_left, state} = ended(state, {:error, "no node has it to give"})
      {left, state} = ended(state, {:later, :held})
      assert left in 1..1_000
      assert behind() == "no node has it to give"

      # And failing begins anew when all was well.
      {_left, state} = ended(state, :ok)
      assert {behind(), state.failing} == {nil, nil}
    end)
  end

  test "that a node is starting is said, and no failure", %{state: state} do
    {left, state} = ended(state, {:later, {:waits, "it is starting"}})
    assert left in 1..10_000
    assert {behind(), state.failing} == {"it is starting", nil}
  end
end
