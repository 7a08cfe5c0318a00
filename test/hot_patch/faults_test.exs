defmodule HotPatch.FaultsTest do
  use ExUnit.Case, async: false

  alias HotPatch.Cluster.Ledger
  alias HotPatch.Test.Faults.Damage
  alias HotPatch.Test.Faults.Rig
  alias HotPatch.Test.Faults.Round
  alias HotPatch.Test.Faults.Scenarios
  alias HotPatch.Test.Faults.Spaces

  # A dozen faults; script/faults tries hundreds.
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

  describe "the patches that a list of operations leads to" do
    defp op(kind, patch, more \\ []) do
      Map.merge(
        %{
          id: "#{System.unique_integer([:positive])}",
          kind: kind,
          patch: patch,
          cumulative?: false,
          seq: 1
        },
        Map.new(more)
      )
    end

    test "are stacked, and taken back by name" do
      ops = [op(:apply, "a"), op(:apply, "b"), op(:apply, "a"), op(:rollback, "a")]
      assert Ledger.stack(ops, %{}) == ["b"]
      assert Ledger.stack(Enum.drop(ops, -1), %{}) == ["a", "b"]
      assert Ledger.stack([op(:rollback, "a") | ops], %{}) == ["b"]
    end

    test "come back from under a cumulative one" do
      ops = [op(:apply, "a"), op(:apply, "b"), op(:apply, "c", cumulative?: true)]
      assert Ledger.stack(ops, %{}) == ["c"]
      assert Ledger.stack(ops ++ [op(:rollback, "c")], %{}) == ["a", "b"]
      # Applied once more it finds what it has left, so that there is nothing else to go back to.
      again = ops ++ [op(:apply, "c", cumulative?: true), op(:rollback, "c")]
      assert Ledger.stack(again, %{}) == ["a", "b"]
      # With another above it takes the place of both, and gives way to both.
      above = ops ++ [op(:apply, "d"), op(:apply, "c", cumulative?: true)]
      assert Ledger.stack(above, %{}) == ["c"]
      assert Ledger.stack(above ++ [op(:rollback, "c")], %{}) == ["c", "d"]
    end

    test "stay where a rollback undoes operations that have not brought them" do
      first = op(:apply, "a")
      again = op(:apply, "a")
      undone = op(:rollback, "a", undoes: [again.id])
      assert Ledger.in_force([first, again], %{}) == [{"a", first.id}]
      assert Ledger.stack([first, again, undone], %{}) == ["a"]
      # To a node that the first was not for, the second has brought it.
      assert Ledger.stack([again, undone], %{}) == []
      # Meanwhile somebody else has taken it back, and brought it anew.
      later = [op(:rollback, "a"), op(:apply, "a")]
      assert Ledger.stack([again] ++ later ++ [undone], %{}) == ["a"]
      assert Ledger.stack([first, again, op(:rollback, "a")], %{}) == []
    end

    test "are without what ended when the release was installed again" do
      retired = %{"a" => %{at: ~U[2026-01-02 00:00:00Z], seq: 3}}
      assert Ledger.stack([op(:apply, "a"), op(:apply, "b")], retired) == ["b"]
      # Whatever the clocks of the nodes say: operations are in order by their numbers.
      later = op(:apply, "a", seq: 4, at: ~U[2026-01-01 00:00:00Z])
      assert Ledger.stack([op(:apply, "a", seq: 3), later], retired) == ["a"]
    end
  end

  # The nodes are the same for all tests, their OS processes are not.
  defp current(rig), do: Rig.refresh(rig)
end
