defmodule HotPatch.Console.Page.Rehearsals do
  @moduledoc false
  # What a rehearsal has found. The page before one is in Page.Actions.

  use HotPatch.Console.Page.Template, [:rehearsal]

  alias HotPatch.Console.HTML
  alias HotPatch.Rehearsal
  alias HotPatch.Rehearsal.NodeResult

  @doc "What one has found."
  @spec findings(Rehearsal.t()) :: HTML.safe()
  def findings(%Rehearsal{} = rehearsal) do
    tried = rehearsal.nodes |> Enum.map(&NodeResult.tried/1) |> Enum.sum()

    rehearsal(%{
      rehearsal: rehearsal,
      tried: tried,
      modules: by_module(rehearsal, :modules),
      replays: by_module(rehearsal, :replays)
    })
  end

  @doc "An outcome, as a flag."
  @spec outcome(Rehearsal.Outcome.t()) :: HTML.safe()
  def outcome(outcome) do
    tone = Map.fetch!(%{ok: "", incomplete: "warn", failed: "bad"}, outcome)
    {:safe, [~s(<span class="flag ), tone, ~s(">), words(outcome), "</span>"]}
  end

  # By module, with the node of each.
  defp by_module(rehearsal, field) do
    for(node <- rehearsal.nodes, one <- Map.fetch!(node, field), do: {one.module, node.node, one})
    |> Enum.sort_by(fn {name, node, _module} -> {name, node} end)
  end
end
