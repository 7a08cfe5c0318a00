defmodule HotPatch.Cluster.EndingTest do
  use ExUnit.Case, async: true

  alias HotPatch.Cluster.Outcome
  alias HotPatch.Error
  alias HotPatch.Report

  defp report(errors) do
    nodes =
      for {node, error} <- errors,
          do: %Report.NodeResult{
            node: node,
            status: if(error, do: :error, else: :ok),
            error: error
          }

    %Report{
      operation: :apply,
      patch: "fix-3fa9c1d2e0b4",
      by: "alice",
      started_at: DateTime.utc_now(),
      status: :ok,
      nodes: nodes
    }
  end

  test "a reason that many nodes have is told once, with how many they are" do
    alike = for number <- 1..12, do: {:"shop#{number}@host", "the disk is full"}
    nodes = alike ++ [{:cart@host, "it died"}, {:well@host, nil}]
    assert {:failed, %Error{message: message}} = Outcome.decided(report(nodes), :finish, [])

    assert message ==
             "apply fix-3fa9c1d2e0b4: the commit failed on 12 nodes (shop1@host, shop2@host, shop3@host and " <>
               "9 more): the disk is full; the commit failed on cart@host: it died"
  end
end
