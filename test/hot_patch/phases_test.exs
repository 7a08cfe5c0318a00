defmodule HotPatch.PhasesTest do
  use ExUnit.Case, async: true

  alias HotPatch.Cluster.ProgressBars
  alias HotPatch.Console.Progress
  alias HotPatch.Event

  # Every phase in which a node can be is known to those who show it.

  @kinds [
    apply: [:reserve, :send, :prepare, :commit, :decide, :restart, :watch],
    rehearse: [:reserve, :send, :rehearse]
  ]

  for {kind, phases} <- @kinds, phase <- phases, state <- [:running, :done, :failed] do
    test "#{phase} of #{kind}, #{state}" do
      event = %Event{
        operation: "1",
        kind: unquote(kind),
        patch: "p",
        by: "b",
        node: :a@h,
        phase: unquote(phase),
        state: unquote(state),
        at: DateTime.utc_now()
      }

      assert Event.valid?(event)
      assert ProgressBars.line(event, [:a@h]) =~ "#{unquote(phase)}"
      assert unquote(phase) in Progress.phases(event)
    end
  end
end
