defmodule HotPatch.Support.QuietTest do
  # Not beside others: what is ready to run is counted.
  use ExUnit.Case, async: false

  alias HotPatch.Support.Quiet
  alias HotPatch.Test.Until

  defp priority, do: self() |> Process.info(:priority) |> elem(1)

  test "it is done at low priority, also what it has others do, and then it goes on as before" do
    Until.until(fn -> :erlang.statistics(:run_queue) == 0 end, "nobody else is ready to run")
    assert Quiet.run(fn -> {priority(), Task.await(Quiet.task(&priority/0))} end) == {:low, :low}
    assert priority() == :normal

    assert_raise RuntimeError, fn -> Quiet.run(fn -> raise "it fails" end) end
    assert priority() == :normal
    assert Task.await(Quiet.task(&priority/0)) == :normal
  end

  test "where the schedulers are full it waits for its turn like all others" do
    hogs = for _ <- 1..(8 * System.schedulers_online()), do: spawn_link(fn -> spin(0) end)
    full? = fn -> :erlang.statistics(:run_queue) > 5 * System.schedulers_online() end
    Until.until(full?, "the schedulers are full")
    assert Quiet.run(&priority/0) == :normal

    for hog <- hogs do
      Process.unlink(hog)
      Process.exit(hog, :kill)
    end
  end

  defp spin(n), do: spin(n + 1)
end
