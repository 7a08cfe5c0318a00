defmodule HotPatch.Swap.OldCode.FunPlaces do
  @moduledoc false
  # Who holds funs of modules: processes, and what belongs to none of them alone. ETS tables are looked
  # into, with all that is kept in them: the environments of applications, handlers and filters of
  # :logger, handlers of :telemetry; and persistent terms.
  #
  # Not looked at, and told as that with their number: tables that only their owner can read, large
  # ones, and processes with a large heap. Messages that wait, timers of the VM and what funs of other
  # modules were made with are never looked at.

  alias HotPatch.Swap.Discovery.FunHolders
  alias HotPatch.Swap.FunRenewal

  @typedoc "A process, or a place in words with the process that it belongs to, if there is one."
  @type holder :: {pid() | nil, place :: String.t() | nil, module()}

  # Words of a table up to which it is looked into: 32 MB.
  @most_words 4_000_000
  @at_once 200

  @doc "Who holds funs of these modules that are not of the versions with these uniqs."
  @spec of(FunHolders.wanted()) :: {[holder()], unseen :: [String.t()]}
  def of(wanted) when map_size(wanted) == 0, do: {[], []}

  def of(wanted) do
    {processes, large} = processes(wanted)
    {tables, unread} = tables(wanted)
    {processes ++ tables ++ terms(wanted), unseen(large, unread)}
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

  defp processes(wanted) do
    Enum.reduce(FunHolders.look(Process.list(), wanted), {[], 0}, fn
      {pid, {:holds, modules}}, {holders, large} ->
        {Enum.map(modules, &{pid, nil, &1}) ++ holders, large}

      {pid, :too_large}, {holders, large} ->
        {dictionary(pid, wanted) ++ holders, large + 1}

      {pid, _seen}, {holders, large} ->
        {dictionary(pid, wanted) ++ holders, large}
    end)
  end

  @doc "The place of what is in a process's dictionary."
  @spec in_dictionary() :: String.t()
  def in_dictionary, do: "in the dictionary"

  # The text of a stack does not show it. It is copied only where it is small.
  defp dictionary(pid, wanted) do
    with {:total_heap_size, words} when words < @most_words <-
           Process.info(pid, :total_heap_size),
         {:dictionary, [_ | _] = dictionary} <- Process.info(pid, :dictionary) do
      for module <- holds(dictionary, wanted), do: {pid, in_dictionary(), module}
    else
      _ -> []
    end
  end

  defp tables(wanted) do
    Enum.reduce(:ets.all(), {[], 0}, fn table, {holders, unread} ->
      case table(table, wanted) do
        :unread -> {holders, unread + 1}
        found -> {found ++ holders, unread}
      end
    end)
  end

  defp table(table, wanted) do
    info = :ets.info(table)

    cond do
      info == :undefined or info[:owner] == Process.whereis(:code_server) ->
        []

      info[:protection] == :private or info[:memory] > @most_words ->
        :unread

      true ->
        for module <- first(:ets.select(table, [{:"$1", [], [:"$1"]}], @at_once), wanted),
            do: {info[:owner], "in the ETS table #{inspect(info[:name])}", module}
    end
  rescue
    # It is gone.
    ArgumentError -> []
  end

  defp first(:"$end_of_table", _wanted), do: []

  defp first({objects, more}, wanted) do
    case holds(objects, wanted) do
      [] -> first(:ets.select(more), wanted)
      modules -> modules
    end
  end

  defp terms(wanted) do
    for {key, term} <- :persistent_term.get(),
        module <- holds(term, wanted),
        do: {nil, "in the persistent term #{inspect(key, limit: 5)}", module}
  end

  # Which of the modules, one after the other only where there is any.
  defp holds(term, wanted) do
    if FunRenewal.holds?(term, %{modules: wanted, funs: %{}}) == true do
      for {module, uniqs} <- wanted,
          FunRenewal.holds?(term, %{modules: %{module => uniqs}, funs: %{}}) == true,
          do: module
    else
      []
    end
  end

  defp unseen(large, unread) do
    Enum.concat(
      if(large > 0, do: ["#{large} processes with a large heap"], else: []),
      if(unread > 0, do: ["#{unread} tables that are large or private"], else: [])
    )
  end
end
