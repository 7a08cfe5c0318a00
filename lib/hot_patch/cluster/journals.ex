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

  # Of a restart who leads and the node itself have written the same.
  defp together(entries) do
    [first | _] = entries = Enum.uniq_by(entries, & &1.node)

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
      status: status(for %{status: status} <- entries, do: status),
      nodes: nodes(entries)
    }
  end

  # One that has noted its part more than once, as its restart and how that has ended: what it has noted last.
  defp nodes(entries) do
    entries
    |> Enum.reverse()
    |> Enum.uniq_by(& &1.node)
    |> Enum.reverse()
    |> Enum.map(&Map.put(Map.take(&1, @own), :node, &1.node))
  end

  defp status([]), do: nil
  defp status(statuses), do: Status.combine(statuses)
end
