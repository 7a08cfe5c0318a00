defmodule HotPatch.Cluster.Dismissal do
  @moduledoc false
  # A node has left the system for good: nobody is to wait for it any more.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Members
  alias HotPatch.Error
  alias HotPatch.Store.Journal

  # Milliseconds that a node may take to write it down.
  @within 5_000

  @doc "Has all nodes that answer take note of it: one that has is enough."
  @spec run(node(), map()) :: :ok | {:error, Error.t()}
  def run(node, options) do
    census = Cluster.nodes()
    infos = for %{managed?: true} = info <- census, do: info
    away = for %{problem_kind: :missing, node: node} <- census, do: node

    cond do
      (namers = Members.namers(infos, node)) != [] ->
        refused(
          node,
          "the configuration of #{Enum.join(namers, ", ")} names it as a peer: take it out there"
        )

      node not in away ->
        refused(node, "nobody waits for it; HotPatch.nodes() shows who is away")

      true ->
        :ok = Cluster.forget(node)
        written(node, Enum.map(infos, & &1.node), options)
    end
  end

  @doc "A node that was attached has been detached: it is nobody's any more."
  @spec left(node()) :: :ok
  def left(node) do
    nodes = Cluster.everyone() -- [node]
    _ = Cluster.survey(nodes, :dismiss, [node, DateTime.utc_now()], @within)
    :ok
  end

  defp written(node, nodes, options) do
    {answers, failed} = Cluster.survey(nodes, :dismiss, [node, DateTime.utc_now()], @within)

    if Enum.any?(answers, &match?({_node, :ok}, &1)) do
      facts = Map.take(options, [:by, :reason, :from])
      _ = Journal.add(:dismiss, Map.merge(facts, %{node: node, coordinator: node()}))
      :ok
    else
      problems =
        for({node, {:error, posix}} <- answers, do: "#{node} cannot write it: #{posix}") ++
          for %{node: node, problem: problem} <- failed, do: "#{node} #{problem}"

      text = "dismiss #{node}: no node could write it down: #{Enum.join(problems, "; ")}"
      {:error, Error.new(:file, text, %{node: node})}
    end
  end

  defp refused(node, why),
    do: {:error, Error.new(:refused, "dismiss #{node}: #{why}", %{node: node})}
end
