defmodule HotPatch.Cluster.LedgerTest do
  # The patches that a list of operations leads to.
  use ExUnit.Case, async: true

  alias HotPatch.Cluster.Ledger

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
