defmodule HotPatch.TelemetryTest do
  use ExUnit.Case, async: false

  alias HotPatch.Telemetry

  # The library is the host's; here a module of its name stands for it.
  setup do
    Application.put_env(:hot_patch, :test_telemetry, self())

    {:module, :telemetry, _, _} =
      Module.create(
        :telemetry,
        quote do
          def execute(event, measurements, metadata) do
            send(
              Application.fetch_env!(:hot_patch, :test_telemetry),
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
  end

  test "a span tells its start and its end, with what the end has to say" do
    assert Telemetry.span(:apply, %{patch: "p"}, fn -> {:done, %{pause_us: 7}, %{result: :ok}} end) ==
             :done

    assert_received {[:hot_patch, :apply, :start], %{system_time: _}, %{patch: "p"}}

    assert_received {[:hot_patch, :apply, :stop], %{duration: duration, pause_us: 7},
                     %{patch: "p", result: :ok}}

    assert is_integer(duration)
  end

  test "a span that raises says so, and raises" do
    assert_raise RuntimeError, "no", fn ->
      Telemetry.span(:commit, %{patch: "p"}, fn -> raise "no" end)
    end

    assert_received {[:hot_patch, :commit, :start], _, _}

    assert_received {[:hot_patch, :commit, :exception], %{duration: _},
                     %{kind: :error, reason: %RuntimeError{}, stacktrace: [_ | _]}}
  end
end
