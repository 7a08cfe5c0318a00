defmodule HotPatch.Cluster.ConversionRounds do
  @moduledoc false
  # Says in a plan whose states are converted only when all stand still that are to, and why: the pause of these is
  # longer. Of all others that stand still in a function of ours each is converted as soon as it does
  # (see native/beam, functions/effects.rs).

  alias HotPatch.Archive
  alias HotPatch.Cluster.Shadows
  alias HotPatch.NodeAgent.AtomName
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Plan.NodePlan
  alias HotPatch.Plan.Risk
  alias HotPatch.Swap.DynamicCalls

  @doc "Plans with a risk for each module of which some processes pause for it."
  @spec add([NodePlan.t()], Payload.t()) :: [NodePlan.t()]
  def add(plans, %Payload{kind: :apply} = payload) do
    if Enum.any?(plans, &(converting(&1) != [])) do
      effects = effects(payload)
      Enum.map(plans, &with_risks(&1, effects))
    else
      plans
    end
  end

  def add(plans, _rollback), do: plans

  defp converting(plan) do
    for %{kind: kind, change_code?: true, pauses?: true, module: module} <- plan.processes,
        kind in [:server, :special],
        uniq: true,
        do: module
  end

  defp effects(payload) do
    entries = for entry <- payload.entries, entry.beam != nil, do: entry
    copies = &Archive.copies(&1, DynamicCalls.naming(), payload.patch)

    case Shadows.make(entries, copies) do
      {:ok, shadows} -> for %{effect: effect} = one <- shadows, effect, do: {one.module, effect}
      {:error, _nothing_is_known} -> []
    end
    |> Map.new()
  end

  defp with_risks(plan, effects) do
    risks =
      for module <- converting(plan),
          effect = effects[AtomName.name(module)],
          do: %Risk{
            about: module,
            message:
              "states of #{module} are converted when all stand still, not as each does: its code_change " <>
                "may lead to #{effect}"
          }

    %{plan | risks: plan.risks ++ risks}
  end
end
