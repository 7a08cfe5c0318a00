defmodule HotPatch.Swap.OverloadTest do
  # A node whose schedulers are full of others: it is prepared there within seconds, and a pause ends when it has to,
  # with all changed or nothing.
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  @moduletag :slow

  @module :hot_patch_test_overload
  @count 1_500
  # Busy processes for each scheduler.
  @hogs 16

  # Milliseconds: the limit of a pause, and what the machine may do besides in the best of three.
  @limit 40
  @slack 100

  # Old code is in the way, so that it is looked for by whom it is held.
  defp pause(v1, v2) do
    load(@module, v1)
    pids = for n <- 1..@count, do: elem(:gen_server.start(@module, n, []), 1)
    hogs = for _ <- 1..(@hogs * System.schedulers_online()), do: spawn_link(fn -> spin(0) end)
    {outcome, swap} = run(job([{@module, v1, v2}], pause_timeout: @limit))
    for hog <- hogs, do: Process.unlink(hog)
    kill(hogs)

    version = if outcome == :ok, do: 2, else: 1
    assert outcome == :ok or swap.reason == :busy

    assert outcome == :ok or
             swap.text =~
               ~r/\A\d+ (of #{@count} processes could not be suspended|processes stood still only when)/

    for {pid, n} <- Enum.with_index(pids, 1),
        do: assert(:gen_server.call(pid, :get) == {version, n})

    kill(pids)
    div(swap.pause_us, 1_000)
  end

  test "a pause ends in time, and nobody is left with half of it" do
    {v1, v2} = {server(@module, "1"), server(@module, "2")}
    on_exit(fn -> unload(@module) end)
    pauses = for _ <- 1..3, do: pause(v1, v2)
    assert Enum.min(pauses) <= @limit + @slack, "milliseconds: #{inspect(pauses)}"
  end

  defp spin(n), do: spin(n + 1)
end
