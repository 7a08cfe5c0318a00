defmodule HotPatch.TelemetryTest do
  use ExUnit.Case, async: false

  import HotPatch.Test.Archives

  alias HotPatch.Telemetry
  alias HotPatch.Test.Builds
  alias HotPatch.Test.Cluster

  # The library is the host's; here a module of its name stands for it.
  setup do
    Application.put_env(:hot_patch_test, :telemetry, self())

    {:module, :telemetry, beam, _} =
      Module.create(
        :telemetry,
        quote do
          def execute(event, measurements, metadata) do
            send(
              Application.fetch_env!(:hot_patch_test, :telemetry),
              {event, measurements, metadata}
            )
          end
        end,
        Macro.Env.location(__ENV__)
      )

    on_exit(fn ->
      :code.purge(:telemetry)
      :code.delete(:telemetry)
    end)

    %{beam: beam}
  end

  test "a span tells its start and its end, with what the end has to say" do
    assert Telemetry.span(:apply, %{patch: "p"}, fn -> {:done, %{pause_us: 7}, %{result: :ok}} end) ==
             :done

    assert_received {[:hot_patch, :apply, :start], start, %{patch: "p"}}

    assert_received {[:hot_patch, :apply, :stop], %{duration: duration, pause_us: 7} = stop,
                     %{patch: "p", result: :ok}}

    assert start.monotonic_time + duration == stop.monotonic_time
    assert abs(start.system_time - System.system_time()) < seconds(60)
  end

  test "a span that raises says so, and raises" do
    assert_raise RuntimeError, "no", fn ->
      Telemetry.span(:commit, %{patch: "p"}, fn -> raise "no" end)
    end

    assert_received {[:hot_patch, :commit, :start], _, _}

    assert_received {[:hot_patch, :commit, :exception], %{duration: _},
                     %{kind: :error, reason: %RuntimeError{}, stacktrace: [_ | _]}}
  end

  test "phases that are over are told as spans of the time when they were" do
    now = System.monotonic_time()
    ago = fn seconds -> now - seconds(seconds) end
    counts = %{suspended: 3, releases: 1}

    suspend = %{phase: :suspend, started: ago.(9), ended: ago.(7), error: nil, counts: counts}
    convert = %{phase: :convert, started: ago.(6), ended: ago.(5), error: "no", counts: %{}}
    assert Telemetry.phases([suspend, convert], %{patch: "p", by: "alice"}) == :ok

    assert [
             {[_, :suspend, :start], suspend_start, %{patch: "p", by: "alice"}},
             {[_, :suspend, :stop], suspend_stop, %{patch: "p", by: "alice", error: nil}},
             {[_, :convert, :start], convert_start, %{patch: "p"}},
             {[_, :convert, :stop], convert_stop, %{patch: "p", error: "no"}}
           ] = told()

    assert suspend_start.monotonic_time == ago.(9)
    assert abs(System.system_time() - suspend_start.system_time - seconds(9)) < seconds(5)

    assert suspend_stop ==
             Map.merge(counts, %{duration: seconds(2), monotonic_time: ago.(7)})

    assert convert_start.monotonic_time == ago.(6)
    assert convert_stop == %{duration: seconds(1), monotonic_time: ago.(5)}
  end

  @tag :starts_nodes
  test "an apply tells of the phases on the node, when nobody stands still any more", %{
    beam: beam
  } do
    [node] = Cluster.start(1)
    [call] = Cluster.call(node, Exchange, :start_calls, [[{"1234567", "7654321"}]])
    Cluster.call(node, Application, :put_env, [:hot_patch_test, :telemetry, self()])
    Cluster.call(node, :code, :load_binary, [:telemetry, ~c"telemetry.beam", beam])

    {:ok, patch} = Cluster.call(node, HotPatch, :upload, [zip(Builds.changed("patched"))])
    {:ok, report} = Cluster.call(node, HotPatch, :apply, [patch.id, [by: "alice"]])
    [%{status: :ok} = applied] = report.nodes
    assert_receive {[:hot_patch, :resume, :stop], resumed, _} = last
    assert Cluster.call(node, Exchange, :info, [call])

    # The coordinator is another process.
    events = for {[_, phase, _], _, _} = event <- told() ++ [last], phase != :apply, do: event
    # The new module is loaded before the conversions are tried, all others after it.
    phases = ~w(suspend load convert load resume)a

    spans =
      for phase <- [:prepare, :commit | phases], event <- [:start, :stop], do: {phase, event}

    assert for({[_, phase, event], _, _} <- events, do: {phase, event}) == spans

    for {[_, phase, _], _, metadata} <- events, phase in phases do
      assert %{by: "alice"} = metadata
      assert metadata.patch == patch.id
    end

    assert {_, %{suspended: suspended}, _} =
             Enum.find(events, &match?({[_, :suspend, :stop], _, _}, &1))

    assert suspended == applied.suspended

    [%{monotonic_time: begun}, %{monotonic_time: over}] =
      for {[_, :commit, _], measured, _} <- events, do: measured

    assert begun < resumed.monotonic_time and resumed.monotonic_time < over
  end

  # In the order in which it was told, so far.
  defp told do
    receive do
      {[:hot_patch, _, _], _, _} = event -> [event | told()]
    after
      0 -> []
    end
  end

  defp seconds(n), do: System.convert_time_unit(n, :second, :native)
end
