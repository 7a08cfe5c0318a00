defmodule HotPatch.Cluster.CancelCall do
  @moduledoc false
  # Finds what is under way, on whichever node it is led, and tells it to stop.

  alias HotPatch.Cancellation
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Coordinators
  alias HotPatch.Support.Table

  # Milliseconds: to find it, and for the answer to come back.
  @within 5_000
  @margin 5_000

  @doc "Cancels what has this id, or is about this patch or node."
  @spec run(String.t(), map()) :: {:ok, Cancellation.t()} | {:error, Error.t()}
  def run(id, options) do
    infos = Cluster.infos(Cluster.everyone())
    {led, failed} = led(infos)

    case led |> found(id) |> chosen() do
      [{node, facts}] -> tell(node, facts, options)
      [] -> {:error, nothing(id, {infos, led, failed})}
      several -> {:error, ambiguous(id, several)}
    end
  end

  # Also where nobody but the holders of nodes tells of it: an operator's own node may be hidden.
  defp led(infos) do
    holders = for %{operation: %{coordinator: pid}} when is_pid(pid) <- infos, do: node(pid)
    nodes = for(%{managed?: true, node: node} <- infos, do: node) ++ holders
    {answers, failed} = Cluster.survey(Enum.uniq(nodes), :led, [], @within)
    {for({node, list} <- answers, facts <- list, do: {node, facts}), failed}
  end

  # What begins so counts where nothing is called so.
  defp found(led, id) do
    with [] <- Enum.filter(led, fn {_node, facts} -> meant?(facts, id) end),
         do: Enum.filter(led, fn {_node, facts} -> begins?(facts, id) end)
  end

  defp begins?(facts, beginning) do
    Enum.any?([facts.id, facts.patch], &(is_binary(&1) and String.starts_with?(&1, beginning)))
  end

  # As patches are called: by the id, or by the name in front of it.
  defp meant?(%{id: id}, id), do: true
  defp meant?(%{patch: id}, id), do: true
  defp meant?(%{patch: patch}, name), do: String.replace(patch, ~r/-[0-9a-f]{12}\z/, "") == name

  # Changes come before questions, where both are under way for a patch.
  defp chosen([_, _ | _] = several) do
    case Enum.reject(several, fn {_node, facts} -> Coordinator.question?(facts.kind) end) do
      [] -> several
      changes -> changes
    end
  end

  defp chosen(one_or_none), do: one_or_none

  defp tell(node, facts, options) do
    order = %{
      by: options.by,
      reason: options.reason,
      from: options.from,
      keep?: options.keep
    }

    args = [facts.id, order, options.timeout]

    case Cluster.call([node], :cancel, args, options.timeout + @margin) do
      [{_node, {:ok, answer}}] ->
        ended(answer, facts, order)

      [{_node, {:error, text}}] ->
        text = "cancel #{facts.id}: #{node}, which leads it, #{text}"
        {:error, Error.new(:unreachable, text, %{nodes: [node]})}
    end
  end

  defp ended({:ended, %Cancellation{} = cancellation}, _facts, _order), do: {:ok, cancellation}

  defp ended({:ended, nil}, facts, order) do
    text =
      "#{facts.kind} #{facts.patch}: its coordinator died: the nodes take back by themselves what is not " <>
        "decided, and do what is; see HotPatch.nodes()"

    {:ok, Cancellation.new(facts, order, :failed, {text, nil})}
  end

  defp ended(:ending, facts, order) do
    text =
      "#{facts.kind} #{facts.patch}: it was told to end, and is about to; see HotPatch.progress()"

    {:ok, Cancellation.new(facts, order, :ending, {text, nil})}
  end

  defp ended(:unknown, facts, _order) do
    text = "cancel #{facts.id}: it has ended meanwhile; see HotPatch.journal()"
    {:error, Error.new(:not_under_way, text, %{id: facts.id})}
  end

  defp nothing(id, {infos, led, failed}) do
    Error.new(:not_under_way, "cancel #{id}: " <> why(id, {infos, led, failed}), %{id: id})
  end

  defp why(id, {infos, led, failed}) do
    case Enum.find(infos, &held?(&1, id)) do
      nil -> not_found(led, failed)
      %{node: node, operation: holder} -> held(node, holder)
    end
  end

  defp held?(%{operation: %{id: held, patch: patch} = holder}, id),
    do:
      meant?(%{id: held, patch: patch}, id) or holder[:course] == id or
        begins?(%{id: held, patch: patch}, id)

  defp held?(_info, _id), do: false

  defp held(node, %{origin: {_missed_or_room, _op}} = holder) do
    "#{node} does by itself what it has missed (#{holder.kind} of #{holder.patch}), and would begin again; to " <>
      "have it otherwise roll the patch back, or apply it"
  end

  defp held(node, holder),
    do: "#{holder.kind} of #{holder.patch} on #{node} ends by itself, and cannot be cancelled"

  defp not_found(led, failed) do
    silent = Table.problems(failed)

    under_way =
      case led do
        [] -> "nothing is under way"
        _ -> "under way: #{Enum.map_join(led, ", ", &line/1)}"
      end

    if silent == "",
      do: "nothing of that is under way; #{under_way}",
      else: "nothing of that is under way where it could be asked (not: #{silent}); #{under_way}"
  end

  defp ambiguous(id, several) do
    ids = for {_node, facts} <- several, do: facts.id

    Error.new(
      :ambiguous_patch,
      "cancel #{id}: say which by its id: #{Enum.map_join(several, ", ", &line/1)}",
      %{candidates: ids}
    )
  end

  @spec line({node(), Coordinators.facts()}) :: String.t()
  defp line({_node, facts}), do: "#{facts.kind} of #{facts.patch} by #{facts.by} (#{facts.id})"
end
