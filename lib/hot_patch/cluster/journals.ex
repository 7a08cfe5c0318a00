defmodule HotPatch.Cluster.Journals do
  @moduledoc false
  # The journals of all nodes put together: each node has noted its own part.

  alias HotPatch.Answers
  alias HotPatch.Cluster
  alias HotPatch.Cluster.Members
  alias HotPatch.Error
  alias HotPatch.JournalEntry
  alias HotPatch.PatchName
  alias HotPatch.Status

  @own [
    :at,
    :status,
    :files,
    :pause_us,
    :suspended,
    :killed,
    :stragglers,
    :restart_needed,
    :error,
    :recovered?
  ]

  @doc "Entries of these nodes, the latest first; or which patches may be meant."
  @spec list(Members.t(), %{
          :timeout => timeout(),
          :patch => String.t() | nil,
          :last => pos_integer(),
          optional(atom()) => term()
        }) :: {:ok, Answers.t(JournalEntry.t())} | {:error, Error.t()}
  def list(members, options) do
    answers = Cluster.collect(members, :journal, {:journal, [], options.timeout}, &entries/1)

    with {:ok, items} <- of_patch(answers.items, options.patch),
         do: {:ok, %{answers | items: Enum.take(items, options.last)}}
  end

  defp of_patch(items, nil), do: {:ok, items}

  # The journal knows patches that are deleted, too. Of one that it does not know it has nothing.
  defp of_patch(items, wanted) do
    patches = for %{patch: id} when id != nil <- items, uniq: true, do: PatchName.of_id(id)

    case PatchName.find(patches, wanted) do
      {:ok, %{id: id}} -> {:ok, Enum.filter(items, &(&1.patch == id))}
      {:error, %{reason: :unknown_patch}} -> {:ok, []}
      {:error, error} -> {:error, error}
    end
  end

  defp entries(answers) do
    for({_node, entries} <- answers, entry <- entries, do: entry)
    # One that failed on some nodes and not on others is two: that it is will be seen.
    |> Enum.group_by(&{&1.what, &1[:op] || make_ref()})
    |> Enum.map(fn {_what_and_op, entries} ->
      together(Enum.sort_by(entries, & &1.at, DateTime))
    end)
    |> Enum.sort_by(& &1.at, {:desc, DateTime})
  end

  defp together(entries) do
    [first | _] = entries
    last = last_of_each(entries)

    %JournalEntry{
      at: first.at,
      what: first.what,
      operation: first[:kind],
      patch: first[:patch],
      by: first[:by],
      reason: first[:reason],
      from: first[:from],
      signed_by: first[:signed_by],
      overridden: first[:overridden] || %{},
      accepted: first[:accepted] || [],
      coordinator: first[:coordinator],
      outcome: first[:outcome],
      missing: first[:missing] || [],
      release: first[:release],
      again?: Enum.any?(entries, &Map.get(&1, :again?, false)),
      disk: first[:disk] || :replace,
      forced?: Enum.any?(entries, &(Map.get(&1, :killed, 0) > 0)),
      status: status(for %{status: status} <- last, do: status),
      nodes: Enum.map(last, &Map.put(Map.take(&1, @own), :node, &1.node))
    }
  end

  # Of a restart who leads has written that it begins, and the node itself too, and then how it has ended: that counts.
  defp last_of_each(entries) do
    entries
    |> Enum.group_by(& &1.node)
    |> Enum.map(fn {_node, entries} ->
      [latest | _] = entries = Enum.reverse(entries)
      Enum.find(entries, latest, &Map.get(&1, :status))
    end)
    |> Enum.sort_by(& &1.at, DateTime)
  end

  defp status([]), do: nil
  defp status(statuses), do: Status.combine(statuses)
end
