defmodule HotPatch.Cluster.CatchUp do
  @moduledoc false
  # Brings this node to where the operations that it and the others know of lead. All nodes
  # order them in the same way, so that all come to the same patches, whoever has seen which
  # of them and in which order: also the two sides of a network that was cut.
  #
  # What was missed is done here as an operation on this node alone, under the name and the
  # number that it had. To put a patch below others these have to make room for a moment:
  # such steps are this node's own affair and count as no operation.

  alias HotPatch.Archive
  alias HotPatch.Cluster
  alias HotPatch.Cluster.AbandonedCanary
  alias HotPatch.Cluster.Catalog
  alias HotPatch.Cluster.Comparison
  alias HotPatch.Cluster.Ledger
  alias HotPatch.Cluster.RollingCatchUp
  alias HotPatch.Cluster.Rollout
  alias HotPatch.Cluster.Shadows
  alias HotPatch.NodeAgent
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Options
  alias HotPatch.Release
  alias HotPatch.Store.Applied

  require HotPatch.Support.Log, as: Log

  @within 10_000

  @typedoc """
  Why it was not done now: somebody else has this node; or it waits, which is told in words to who asks how it is, for
  something after which it is compared: its own start, or the end of what others do.
  """
  @type later :: :held | {:waits, String.t()}

  @doc "Compares this node with others, and does what it has missed; says whether it did anything."
  @spec run([node()]) :: :ok | :changed | {:later, later()} | {:error, String.t()}
  def run(peers) do
    # What goes on here now is compared when it has ended.
    if NodeAgent.holder() == nil, do: run_idle(peers), else: {:later, :held}
  end

  defp run_idle(peers) do
    with :ok <- NodeAgent.settle(),
         mine = NodeAgent.history(),
         theirs = histories(differing(peers)),
         # Where it is restarted that comes first: what was done there is done there.
         restarted = RollingCatchUp.run(mine, theirs),
         {:ok, did} <- changed?(compared(mine, theirs, peers)),
         mine = NodeAgent.history(),
         :ok <- NodeAgent.tidy_decisions(),
         {:ok, did_too} <- changed?(AbandonedCanary.run(mine)) do
      ended(did or did_too, restarted, peers)
    end
  end

  defp changed?(:ok), do: {:ok, false}
  defp changed?(:changed), do: {:ok, true}
  defp changed?(not_done), do: not_done

  defp ended(true, :ok, _peers), do: :changed

  # What was done all the same is told, whatever this node is behind.
  defp ended(did?, restarted, peers) do
    if did?, do: Comparison.tell(peers)
    restarted
  end

  defp compared(mine, theirs, peers) do
    histories = for {node, h} <- theirs, related?(mine, h), do: {node, h}
    compare(mine, since(histories, mine), peers)
  end

  # A node that was booted into a release runs it without the upgrade by which others have come to it: what was done
  # up to that is none that it has missed.
  defp since(histories, mine) do
    seqs =
      for {_node, h} <- histories,
          {id, to, seq} <- h.upgrades,
          to == mine.release and id not in mine.stack,
          do: seq

    case seqs do
      [] ->
        histories

      _ ->
        later = fn ops -> Enum.filter(ops, &(&1.seq > Enum.max(seqs))) end

        for {node, h} <- histories,
            do: {node, %{h | ops: later.(h.ops), decided: later.(h.decided)}}
    end
  end

  # Only who differs is asked for more: also one that an upgrade has taken to another version.
  defp differing(peers) do
    {%{name: name}, _} = mine = NodeAgent.fingerprint()

    for {node, {:ok, {%{name: ^name}, _} = theirs}} <-
          Cluster.call(peers, :fingerprint, [], @within),
        theirs != mine,
        do: node
  end

  # The same release, or one of which an upgrade has led to the other.
  defp related?(mine, theirs),
    do: mine.release in theirs.lineage or theirs.release in mine.lineage

  defp histories(nodes) do
    for {node, {:ok, h}} <- Cluster.call(nodes, :history, [], @within), do: {node, h}
  end

  # Also what this node has decided for others and not come to itself.
  # rule: catch-up
  defp compare(mine, histories, peers) do
    known = MapSet.new(mine.ops, & &1.id)

    missed =
      for(
        {_node, h} <- [{node(), mine} | histories],
        # rule: decisions-count
        op <- h.ops ++ h.decided,
        op.id not in known,
        do: op
      )
      |> Enum.uniq_by(& &1.id)

    # rule: one-order
    ops = Enum.sort_by(mine.ops ++ missed, &{&1.seq, &1.id})
    wanted = ops |> Enum.filter(&Applied.concerns?(&1, node())) |> Ledger.in_force(mine.retired)

    cond do
      Enum.map(wanted, &elem(&1, 0)) != mine.stack -> go(mine.stack, wanted, {ops, missed}, peers)
      missed != [] -> with :ok <- NodeAgent.note(missed), do: :changed
      true -> NodeAgent.level()
    end
  end

  # All that is needed is there before the first step: what makes room is not lost.
  defp go(stack, wanted, {ops, missed}, peers) do
    same = common(stack, Enum.map(wanted, &elem(&1, 0)))
    back = stack |> Enum.drop(same) |> Enum.reverse()
    forth = Enum.drop(wanted, same)
    Log.notice("HotPatch: catching up: #{describe(back, Enum.map(forth, &elem(&1, 0)))}")

    with {:ok, payloads} <- payloads(forth, ops, peers),
         :ok <- started(Enum.any?(payloads, &upgrade?/1) or Enum.any?(back, &to_another?/1)) do
      # An upgrade takes the place of what is in force as it is, and brings it back when it goes.
      back = if Enum.any?(payloads, &upgrade?/1), do: [], else: back
      steps = for(id <- back, do: {rollback(id, missed), nil, nil}) ++ payloads

      with :ok <- each(steps, missed), :ok <- NodeAgent.note(missed), do: :changed
    end
  end

  defp to_another?(id), do: match?(%{upgrade: %{}}, Applied.find(id))

  # To another release a node goes when it has started: its boot script starts the applications of this one.
  defp started(false), do: :ok

  defp started(true) do
    if match?({:started, _}, :init.get_status()) do
      :ok
    else
      _ = spawn(&soon_after_start/0)

      {:later, {:waits, "the node is starting, and goes to another release when it has started"}}
    end
  end

  # Milliseconds between two looks.
  @every 100

  defp soon_after_start do
    if match?({:started, _}, :init.get_status()) do
      Comparison.soon()
    else
      receive do
      after
        @every -> soon_after_start()
      end
    end
  end

  defp upgrade?({%{manifest: %{upgrade: upgrade}}, _about, _brought_by}), do: upgrade != nil
  defp upgrade?(_patch), do: false

  # As it was told; one that only makes room takes the way by which the patch came.
  defp rollback(id, missed) do
    told = last(missed, :rollback, id) || %{}
    Payload.rollback(id, Release.current(), Options.inherited(:catch_up, :rollback, told))
  end

  defp describe(back, forth) do
    Enum.join(Enum.map(back, &"take back #{&1}") ++ Enum.map(forth, &"apply #{&1}"), ", ")
  end

  defp common(as, bs),
    do: Enum.zip(as, bs) |> Enum.take_while(fn {a, b} -> a == b end) |> length()

  defp payloads(entries, ops, peers) do
    Enum.reduce_while(entries, {:ok, []}, fn {id, brought_by}, {:ok, found} ->
      op = last(ops, :apply, id)

      case Enum.find_value([node() | peers], &ask(&1, id)) || from_archive(id, op) do
        nil -> {:halt, {:error, "no node that is connected has #{id} to give"}}
        {payload, about} -> {:cont, {:ok, found ++ [{payload, about, brought_by}]}}
      end
    end)
  end

  defp ask(node, id) do
    with [{_, {:ok, {:ok, payload}}}] <- Cluster.call([node], :payload, [id], @within),
         [{_, {:ok, %{abouts: abouts}}}] <- Cluster.call([node], :history, [], @within) do
      {payload, Enum.find(abouts, &(&1.id == id))}
    else
      _ -> nil
    end
  end

  # Nobody has it in force any more: then as it was uploaded.
  defp from_archive(id, op) do
    with %{} <- op,
         {:ok, composition, patch} <- Catalog.open(id),
         {:ok, shadows} <- Shadows.of(composition),
         {:ok, instructions} <- Archive.instructions(composition) do
      more = [shadows: shadows, instructions: instructions]
      inherited = Options.inherited(:catch_up, :apply, op)
      {Payload.new(composition, patch.release, more ++ inherited), Catalog.about(patch)}
    else
      _ -> nil
    end
  end

  defp each(steps, missed) do
    Enum.reduce_while(steps, :ok, fn {payload, about, brought_by}, :ok ->
      more = %{about: about, reason: "catching up"}
      # What comes here was decided when it was new.
      payload = %{payload | again?: true}

      op = last(missed, payload.kind, payload.patch)

      case carry_out(payload, Map.merge(more, told(op, brought_by))) do
        :ok -> {:cont, :ok}
        {:error, text} -> {:halt, {:error, text}}
      end
    end)
  end

  defp last(ops, kind, id) do
    ops
    |> Enum.filter(&(&1.kind == kind and &1.patch == id))
    |> Enum.max_by(&{&1.seq, &1.id}, fn -> nil end)
  end

  defp told(nil, brought_by), do: %{by: "HotPatch", origin: {:make_room, brought_by}}

  defp told(op, brought_by) do
    %{
      id: op.id,
      seq: op.seq,
      by: op.by,
      nodes: if(op.scope != :all, do: op.scope),
      roster: Enum.uniq([node() | op.roster]),
      # What was only tried is only tried here too.
      tried_by: op.tried_by,
      origin: {:missed, brought_by}
    }
  end

  defp carry_out(payload, options) do
    case Rollout.run(payload, [node()], [], options) do
      {:ok, _report} -> :ok
      {:error, %{message: message}} -> {:error, message}
    end
  end
end
