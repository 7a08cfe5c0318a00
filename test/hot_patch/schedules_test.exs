defmodule HotPatch.SchedulesTest do
  # Operations of three nodes in which something goes wrong at a given moment; script/faults
  # --schedules tries a thousand by chance.
  use ExUnit.Case, async: false

  alias HotPatch.Test.Faults.Rig
  alias HotPatch.Test.Faults.Schedule

  @moduletag :starts_nodes
  @moduletag timeout: 120_000

  setup_all do
    rig = Rig.start(3)
    on_exit(fn -> Rig.stop(rig) end)
    %{rig: rig}
  end

  # What befalls which node when; the coordinator is node 1, the canary node 2.
  for {operation, what, victim, moment} <- [
        {:apply, :coordinator, 2, {:step, :reserved, 1}},
        {:rollback, :coordinator, 2, {:step, :prepared, 1}},
        {:apply, :coordinator, 2, {:step, :held, 1}},
        {:rollback, :coordinator, 1, {:step, :decision_journaled, 1}},
        {:apply, :coordinator, 3, {:step, :decided, 1}},
        {:rollback, :coordinator, 1, {:step, :loaded, 1}},
        {:apply, :crash, 2, {:step, :loaded, 1}},
        {:rollback, :crash, 2, {:step, :decided, 1}},
        {:apply, :unwritable, 3, {:step, :held, 1}},
        {:apply, :suspend, 1, {:step, :decision_journaled, 1}},
        {:rollback, :suspend, 2, {:step, :held, 1}},
        {:canary, :kill, 1, {:watched, 100}},
        {:canary, :kill, 2, {:watched, 100}},
        {:canary, :ill, 2, {:watched, 100}},
        {:canary, :coordinator, 1, {:watched, 100}},
        {:apply, :two, 2, {:instant, 0}},
        {:canary, :join, 1, {:instant, 100}}
      ] do
    @tag schedule: %{
           operation: operation,
           on_failure: :rollback,
           coordinator: 1,
           victim: victim,
           what: what,
           moment: moment,
           lasts: 1_500
         }
    test "#{operation}, #{what} of node #{victim}: #{inspect(moment)}", context do
      Schedule.run(current(context.rig), context.schedule)
    end
  end

  # The nodes are the same for all tests, their OS processes are not.
  defp current(rig), do: Rig.refresh(rig)
end
