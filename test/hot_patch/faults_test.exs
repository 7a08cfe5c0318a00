defmodule HotPatch.FaultsTest do
  use ExUnit.Case, async: false

  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.Faults.Rig
  alias HotPatch.Test.Faults.Round
  alias HotPatch.Test.Faults.Scenarios
  alias HotPatch.Test.Faults.Spaces

  # A dozen faults; script/faults tries hundreds.
  @moduletag :starts_nodes
  @moduletag timeout: 120_000

  setup_all do
    rig = Rig.start(2)
    on_exit(fn -> Rig.stop(rig) end)
    %{rig: rig}
  end

  # What scenarios vary by chance is the same in every run.
  setup do
    _ = :rand.seed(:exsss, {1, 2, 3})
    :ok
  end

  # What is killed where: the coordinator is node 1.
  for {kind, victim, step} <- [
        {:apply, 2, :files_staged},
        {:rollback, 1, :prepared},
        {:apply, 1, :decision_journaled},
        {:apply, 1, :decided},
        {:rollback, 2, :decision_written},
        {:apply, 1, {:file, 3, 7}},
        {:rollback, 2, {:file, 6, 7}},
        {:rollback, 1, :files_replaced},
        {:apply, 2, :state_written}
      ] do
    @tag fault: %{kind: kind, coordinator: 1, victim: victim, fault: {:step, step}, again: nil}
    test "#{kind}: node #{victim} killed at #{inspect(step)} comes back", context do
      Round.run(current(context.rig), context.fault)
    end
  end

  test "killed once more while it starts, it comes back", context do
    fault = %{kind: :apply, coordinator: 1, victim: 2, fault: {:step, {:file, 2, 7}}}
    Round.run(current(context.rig), Map.put(fault, :again, {:file, 5, 7}))
  end

  for name <- [:network_cut, :away, :torn_journal, :damaged_blob, :damaged_state] do
    test "#{name}", context do
      Scenarios.run(unquote(name), current(context.rig))
    end
  end

  for name <- [:both_sides, :reinstalled, :shared_away] do
    test "#{name}", context do
      Scenarios.run(unquote(name), context.rig)
    end
  end

  if Spaces.available?() do
    test "vanishing", context do
      Scenarios.run(:vanishing, context.rig)
    end
  else
    @tag skip: "no network namespaces can be made here"
    test "vanishing", do: :ok
  end

  if Damage.mounts?() do
    test "full_disk", context do
      Scenarios.run(:full_disk, context.rig)
    end
  else
    @tag skip: "no file system can be mounted here"
    test "full_disk", do: :ok
  end

  # The nodes are the same for all tests, their OS processes are not.
  defp current(rig), do: Rig.refresh(rig)
end
