defmodule HotPatch.Swap.InTurn do
  @moduledoc false
  # The processes of a swap in which each changes in its turn. Nobody stands still for it, and nobody shall notice
  # it: what is known of a hundred thousand processes would be a heap whose garbage keeps a scheduler from everybody
  # else for many milliseconds, at whatever priority. So they are looked at some hundred at a time, each time by
  # a process of its own, and kept in a table, which no garbage is collected of.

  alias HotPatch.Support.Quiet
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery
  alias HotPatch.Swap.Target

  # So many are looked at by one process.
  @few 500

  @typedoc """
  `table` has rows of processes that are alike, `unpaused` those that have no state to convert; `silent` may be of the
  first and were too busy to say. The table is that of the calling process.
  """
  @type t :: %__MODULE__{
          table: :ets.table(),
          unpaused: [Target.t()],
          silent: [pid()],
          parents: [pid()],
          starters: [pid()]
        }
  @enforce_keys [:table]
  defstruct [:table, unpaused: [], silent: [], parents: [], starters: []]

  @doc "Finds them, at low priority."
  @spec find([Change.t()]) :: t()
  def find(changes) do
    table = :ets.new(__MODULE__, [:ordered_set, :private])
    look(%__MODULE__{table: table}, changes, fn _pid -> false end)
  end

  @doc "With those that are there now and were not known before."
  @spec with_new(t(), [Change.t()], known? :: (pid() -> boolean())) :: t()
  def with_new(found, changes, known?) do
    :ets.match_delete(found.table, {{:seen, :_}, :_})
    look(%{found | unpaused: [], parents: [], starters: []}, changes, known?)
  end

  defp look(found, changes, known?) do
    Quiet.run(fn ->
      Process.list()
      |> Stream.chunk_every(@few)
      |> Enum.reduce(found, &add(looked_at(&1, changes), &2, known?))
    end)
  end

  defp looked_at(pids, changes) do
    fn ->
      found = Discovery.look(changes, pids)
      {found.targets |> Target.alike() |> Map.to_list(), found}
    end
    |> Quiet.task()
    |> Task.await(:infinity)
  end

  defp add({groups, part}, found, known?) do
    for {target, pids} <- groups,
        new = Enum.reject(pids, known?),
        new != [],
        do: insert(found.table, {:group, target, new})

    insert(found.table, {:seen, part.list})

    %{
      found
      | unpaused: part.unpaused ++ found.unpaused,
        silent: part.silent ++ found.silent,
        parents: Enum.uniq(part.parents ++ found.parents),
        starters: Enum.uniq(part.starters ++ found.starters)
    }
  end

  defp insert(table, row) do
    key = {elem(row, 0), :erlang.unique_integer([:positive, :monotonic])}
    true = :ets.insert(table, Tuple.insert_at(Tuple.delete_at(row, 0), 0, key))
  end

  @doc "Those that have a state to convert, row after row."
  @spec groups(t()) :: Enumerable.t(Target.group())
  def groups(%{table: table}),
    do: rows(table, :group, fn {_key, target, pids} -> {target, pids} end)

  # All numbers of rows are positive.
  defp rows(table, kind, of) do
    Stream.unfold({kind, 0}, fn key ->
      case :ets.next(table, key) do
        {^kind, _n} = next -> {of.(hd(:ets.lookup(table, next))), next}
        _another_or_none -> nil
      end
    end)
  end

  @doc "How many these are."
  @spec count(t()) :: non_neg_integer()
  def count(found),
    do: found |> groups() |> Enum.reduce(0, fn {_, pids}, n -> n + length(pids) end)

  @doc "Without some processes."
  @spec without(t(), [pid()]) :: t()
  def without(found, []), do: found

  def without(%{table: table} = found, pids) do
    pids = MapSet.new(pids)

    for {{:group, _n} = key, target, members} <- :ets.tab2list(table),
        left = Enum.reject(members, &MapSet.member?(pids, &1)),
        left != members do
      if left == [], do: :ets.delete(table, key), else: :ets.insert(table, {key, target, left})
    end

    found
  end

  @doc "The same as a swap needs it for which all stand still."
  @spec found(t()) :: Discovery.found()
  def found(%{table: table} = found) do
    targets = found |> groups() |> Target.apart()
    own = MapSet.new(targets, & &1.pid)
    seen = table |> rows(:seen, &elem(&1, 1)) |> Enum.concat()

    %{
      Discovery.nothing()
      | targets: targets,
        unpaused: found.unpaused,
        parents: Enum.reject(found.parents, &MapSet.member?(own, &1)),
        starters: Enum.reject(found.starters, &MapSet.member?(own, &1)),
        list: seen,
        seen: Map.new(seen, &{&1, []})
    }
  end
end
