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
    rehearsal(%{rehearsal: rehearsal, tried: tried, modules: modules(rehearsal)})
  end

  @doc "An outcome, as a flag."
  @spec outcome(Rehearsal.Outcome.t()) :: HTML.safe()
  def outcome(outcome) do
    tone = Map.fetch!(%{ok: "", incomplete: "warn", failed: "bad"}, outcome)
    {:safe, [~s(<span class="flag ), tone, ~s(">), words(outcome), "</span>"]}
  end

  # By module, with the node of each.
  defp modules(rehearsal) do
    for(node <- rehearsal.nodes, module <- node.modules, do: {module.module, node.node, module})
    |> Enum.sort_by(fn {name, node, _module} -> {name, node} end)
  end
end
