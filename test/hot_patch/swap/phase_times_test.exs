defmodule HotPatch.Swap.PhaseTimesTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Servers

  @module :hot_patch_test_phases

  setup do
    on_exit(fn -> unload(@module) end)
    v1 = server(@module, "v1")
    load(@module, v1)

    pids =
      for n <- 1..3 do
        {:ok, pid} = :gen_server.start(@module, n, [])
        pid
      end

    on_exit(fn -> kill(pids) end)
    %{v1: v1, pids: pids}
  end

  test "a swap with a pause notes all four, one after the other, within the pause", %{v1: v1} do
    before = System.monotonic_time()
    assert {:ok, done} = run(job([{@module, v1, server(@module, "v2")}]))
    now = System.monotonic_time()

    assert [
             %{phase: :suspend, error: nil, counts: %{suspended: 3, releases: 0}},
             %{phase: :convert, error: nil},
             %{phase: :load, error: nil},
             %{phase: :resume, error: nil}
           ] = done.phases

    times = Enum.flat_map(done.phases, &[&1.started, &1.ended])
    assert Enum.sort([before, now | times]) == [before] ++ times ++ [now]

    took = Enum.sum(for phase <- done.phases, do: phase.ended - phase.started)
    assert System.convert_time_unit(took, :native, :microsecond) <= done.pause_us
  end

  test "the phase that fails says why, and all are resumed after it", %{v1: v1} do
    # What it calls is not known to be without effects, so all stand still before.
    failing = server(@module, "v2", "put(seen, true), error({refused, Count})")
    assert {:error, failure} = run(job([{@module, v1, failing}]))

    assert [
             %{phase: :suspend, error: nil},
             %{phase: :convert, error: text},
             %{phase: :resume, error: nil}
           ] = failure.phases

    assert text == failure.text
    assert text =~ "refused"
  end

  test "where states are converted at once that fails with it", %{v1: v1} do
    failing = server(@module, "v2", "error({refused, Count})")
    assert {:error, failure} = run(job([{@module, v1, failing}]))
    assert [%{phase: :suspend, error: text}, %{phase: :resume, error: nil}] = failure.phases
    assert text == failure.text
    assert text =~ "refused"
  end

  test "what is taken back by a decision has no phase at fault", %{v1: v1} do
    job = job([{@module, v1, server(@module, "v2")}], hold_timeout: 5_000)
    held = fn engine -> HotPatch.Swap.decide(engine, {:take_back, "another node failed"}) end
    assert {:error, %{text: "another node failed"} = failure} = run(job, held)

    assert for(%{error: nil} = noted <- failure.phases, do: noted.phase) ==
             ~w(suspend convert resume)a
  end

  test "who could not be suspended is not counted", %{v1: v1, pids: [busy | _]} do
    test = self()
    caller = spawn(fn -> :gen_server.call(busy, {:block, test}, :infinity) end)
    on_exit(fn -> kill([caller]) end)
    assert_receive {:blocked, ^busy}

    job = job([{@module, v1, server(@module, "v2")}], pause_timeout: 50)
    assert {:error, %{reason: :busy, phases: [suspend, resume]} = failure} = run(job)
    assert %{phase: :suspend, counts: %{suspended: 2}} = suspend
    assert suspend.error == failure.text
    assert %{phase: :resume, error: nil} = resume
    send(busy, :go)
  end

  test "a change_code that fails after the load is a failure of the resume", %{v1: v1} do
    failing = server(@module, "v2", "error({refused, Count})")
    assert {:error, failure} = run(job([{@module, v1, failing}], shadows: false))
    assert %{reason: :half, phases: phases} = failure

    assert [suspend: nil, convert: nil, load: nil, resume: text] =
             for(noted <- phases, do: {noted.phase, noted.error})

    assert text == failure.text
  end

  test "the other transitions note what they do", %{v1: v1} do
    v2 = server(@module, "v2")
    assert {:ok, none} = run(job([{@module, v1, v1}], transition: :none))
    assert for(noted <- none.phases, do: noted.phase) == [:load]

    assert {:ok, compatible} = run(job([{@module, v1, v2}], transition: :compatible))
    assert for(noted <- compatible.phases, do: noted.phase) == [:load, :convert]
  end
end
