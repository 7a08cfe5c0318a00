defmodule HotPatch.Swap.OldCode.FunPlaces do
  @moduledoc false
  # Who holds funs of modules: processes, and what belongs to none of them alone. ETS tables are looked
  # into, with all that is kept in them: the environments of applications, handlers and filters of
  # :logger, handlers of :telemetry; and persistent terms.
  #
  # Not looked at, and told as that with their number: tables that only their owner can read, large
  # ones, processes with a large heap or with many messages that wait, and bare processes that hold funs of other
  # modules, which may have been made with such ones. Timers of the VM are never looked at: nobody can.

  alias HotPatch.Swap.Discovery.FunHolders
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.FunRenewal

  @typedoc "A process, or a place in words with the process that it belongs to, if there is one."
  @type holder :: {pid() | nil, place :: String.t() | nil, module()}

  # Words of a table up to which it is looked into, 32 MB; and of all tables, the small ones first.
  @most_words 4_000_000
  @most_in_all 32_000_000
  # Words of a heap up to which a dictionary is copied.
  @small_heap 100_000
  # Messages that wait, up to which they are copied.
  @most_messages 1_000
  @at_once 200

  @doc """
  Who holds funs of these modules that are not of the versions with these uniqs. Of processes that are `standing`
  only the mailbox is looked into: they make anew what else they hold.
  """
  @spec of(FunHolders.wanted(), standing :: MapSet.t(pid())) ::
          {[holder()], unseen :: [String.t()]}
  def of(wanted, standing \\ MapSet.new())
  def of(wanted, _standing) when map_size(wanted) == 0, do: {[], []}

  def of(wanted, standing) do
    {processes, {large, others, crowded}} = processes(wanted, standing)
    {tables, unread} = tables(wanted)
    {terms, too_large} = terms(wanted)
    {processes ++ tables ++ terms, unseen(large, others, crowded, unread, too_large)}
  end

  @doc "The same of versions that are neither current nor about to become so."
  @spec of_old([module()], [{module(), md5 :: binary() | nil}]) :: {[holder()], [String.t()]}
  def of_old(modules, coming \\ []) do
    wanted =
      for module <- modules, into: %{} do
        md5s = [current(module), List.keyfind(coming, module, 0, {nil, nil}) |> elem(1)]
        {module, for(md5 when is_binary(md5) <- md5s, do: FunRenewal.uniq(md5))}
      end

    of(wanted)
  end

  defp current(module),
    do: if(:erlang.module_loaded(module), do: :erlang.get_module_info(module, :md5))

  defp processes(wanted, standing) do
    {still, others} = Enum.split_with(Process.list(), &MapSet.member?(standing, &1))
    seen = FunHolders.look(others, wanted)

    found =
      Lookers.look(seen, &at_each(&1, wanted)) ++
        for pid <- still, one <- waiting(pid, wanted), do: one

    {crowded, holders} = Enum.split_with(found, &(&1 == :crowded))
    counts = Enum.frequencies(for {_pid, what} <- seen, is_atom(what), do: what)
    {holders, {Map.get(counts, :unseen, 0), Map.get(counts, :others, 0), length(crowded)}}
  end

  defp at_each(seen, wanted),
    do: for({pid, what} <- seen, one <- on_stack(pid, what) ++ beside(pid, wanted), do: one)

  defp on_stack(pid, {:holds, modules}), do: Enum.map(modules, &{pid, nil, &1})
  defp on_stack(_pid, _seen), do: []

  defp in_dictionary, do: "in the dictionary"

  @doc "The place of a message that waits."
  @spec in_mailbox() :: String.t()
  def in_mailbox, do: "in its mailbox"

  # The text of a stack does not show it. It is copied only where it is small.
  defp beside(pid, wanted) do
    case Process.info(pid, [:total_heap_size, :message_queue_len]) do
      [total_heap_size: words, message_queue_len: count] when words < @small_heap ->
        part(pid, :dictionary, in_dictionary(), wanted) ++ mailbox(pid, count, wanted)

      _large_or_dead ->
        []
    end
  end

  defp waiting(pid, wanted) do
    case Process.info(pid, :message_queue_len) do
      {:message_queue_len, count} -> mailbox(pid, count, wanted)
      nil -> []
    end
  end

  defp mailbox(_pid, 0, _wanted), do: []
  defp mailbox(_pid, count, _wanted) when count > @most_messages, do: [:crowded]
  defp mailbox(pid, _count, wanted), do: part(pid, :messages, in_mailbox(), wanted)

  defp part(pid, item, place, wanted) do
    case Process.info(pid, item) do
      {^item, [_ | _] = term} -> for module <- holds(term, wanted), do: {pid, place, module}
      _empty_or_dead -> []
    end
  end

  defp tables(wanted) do
    code_server = Process.whereis(:code_server)

    # One that is gone by now has no facts.
    all =
      for table <- :ets.all(),
          [_ | _] = info <- [:ets.info(table)],
          info[:owner] != code_server,
          do: {info[:memory], table, info}

    {holders, unread, _words} =
      all
      |> Enum.sort_by(&elem(&1, 0))
      |> Enum.reduce({[], 0, 0}, fn {words, table, info}, {holders, unread, in_all} ->
        if info[:protection] == :private or words > @most_words or in_all + words > @most_in_all,
          do: {holders, unread + 1, in_all},
          else: {table(table, info, wanted) ++ holders, unread, in_all + words}
      end)

    {holders, unread}
  end

  defp table(table, info, wanted) do
    for module <- first(:ets.select(table, [{:"$1", [], [:"$1"]}], @at_once), wanted),
        do:
          {info[:owner], "in the ETS table #{inspect(info[:name])}#{known(info[:name])}", module}
  rescue
    # It is gone.
    ArgumentError -> []
  end

  # What system tables are for.
  defp known(:ac_tab), do: ", the environments of applications"
  defp known(:logger), do: ", with the handlers and filters of :logger"
  defp known(:telemetry_handler_table), do: ", with the handlers of :telemetry"
  defp known(_name), do: ""

  defp first(:"$end_of_table", _wanted), do: []

  defp first({objects, more}, wanted) do
    case holds(objects, wanted) do
      [] -> first(:ets.select(more), wanted)
      modules -> modules
    end
  end

  defp terms(wanted) do
    {large, looked_at} =
      for {key, term} <- :persistent_term.get() do
        if FunRenewal.holds?(term, %{modules: wanted, funs: %{}}) == :too_large,
          do: :too_large,
          else:
            for(
              module <- holds(term, wanted),
              do: {nil, "in the persistent term #{inspect(key, limit: 5)}", module}
            )
      end
      |> Enum.split_with(&(&1 == :too_large))

    {Enum.concat(looked_at), length(large)}
  end

  defp holds(term, wanted), do: FunRenewal.makers(term, wanted)

  defp unseen(large, others, crowded, unread, too_large) do
    for {count, what} <- [
          {large, "processes with a large heap, or that hibernate and are no servers"},
          {others,
           "processes with funs of other modules, which may have been made with such ones"},
          {crowded, "mailboxes with many messages"},
          {unread, "tables that are large or private"},
          {too_large, "large persistent terms"}
        ],
        count > 0,
        do: "#{count} #{what}"
  end
end
