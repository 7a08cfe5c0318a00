defmodule HotPatch.NodeAgent.Coordinators do
  @moduledoc false
  # What is led from this node, and how it is told to stop. A coordinator enters when it begins and
  # looks now and then whether it was told to; so does whoever works for it. How it ended it leaves
  # here for those who have told it.
  #
  # The table belongs to the process that lives as long as the application. Where that has stopped,
  # coordinators go on, and cannot be told any more.

  @table __MODULE__

  # Milliseconds for which the end of one that was told to stop is kept.
  @kept 60_000

  @typedoc "What is led: `patch` is the name of a node where a node is what it is about."
  @type facts :: %{
          id: String.t(),
          kind: atom(),
          patch: String.t(),
          by: String.t(),
          started_at: DateTime.t()
        }

  @typedoc "Who wants it to stop and why, and whether what is done so far is to be kept."
  @type order :: %{
          by: String.t(),
          reason: String.t() | nil,
          from: String.t() | nil,
          keep?: boolean()
        }

  @doc "Makes the table; the calling process keeps it."
  @spec prepare() :: :ok
  def prepare do
    _ = :ets.new(@table, [:named_table, :public, read_concurrency: true])
    :ok
  end

  @doc "The calling process leads this from now on."
  @spec enter(facts()) :: :ok
  def enter(facts) do
    # The table ends with the application, and this process does not.
    Process.put(@table, facts.id)

    if_there(:ok, fn ->
      _ = sweep()
      :ets.insert(@table, {self(), facts, nil, nil})
      :ok
    end)
  end

  @doc "What is led from here."
  @spec list() :: [facts()]
  def list do
    if_there([], fn ->
      for {pid, facts, _order, nil} <- :ets.tab2list(@table), Process.alive?(pid), do: facts
    end)
  end

  @doc """
  Whether a coordinator of this node leads what has this id. One that has entered before HotPatch was
  started anew is in no table, and is looked for among all processes: before anybody takes back what it
  leads, that is worth the time.
  """
  @spec leads?(String.t()) :: boolean()
  def leads?(id),
    do: Enum.any?(list(), &(&1.id == id)) or Enum.any?(Process.list(), &led?(&1, id))

  defp led?(pid, id) do
    # Only what is no proc_lib's process can be one.
    with {:initial_call, {:erlang, :apply, 2}} <- Process.info(pid, :initial_call),
         {:dictionary, dictionary} <- Process.info(pid, :dictionary) do
      List.keyfind(dictionary, @table, 0) == {@table, id}
    else
      _another -> false
    end
  end

  @doc "Whether a coordinator was told to stop, and by whom."
  @spec asked(pid()) :: order() | nil
  def asked(coordinator) do
    if_there(nil, fn ->
      case :ets.lookup(@table, coordinator) do
        [{_pid, _facts, order, _end}] -> order
        [] -> nil
      end
    end)
  end

  @doc """
  Tells what is led under this id to stop, and waits until it has ended: gives what it has left of
  itself (`leave/1`). The first who tells it decides what becomes of what is done.
  """
  @spec cancel(String.t(), order(), timeout()) :: {:ended, term()} | :unknown | :ending
  def cancel(id, order, within) do
    if_there(:unknown, fn ->
      case Enum.find(:ets.tab2list(@table), &match?({_, %{id: ^id}, _, nil}, &1)) do
        nil -> :unknown
        {pid, facts, _order, nil} -> tell(pid, facts, order, within)
      end
    end)
  end

  defp tell(pid, facts, order, within) do
    monitor = Process.monitor(pid)
    told = [{{{:const, pid}, {:const, facts}, {:const, order}, nil}}]
    _ = :ets.select_replace(@table, [{{pid, :_, nil, nil}, [], told}])

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> ended(pid)
    after
      within ->
        Process.demonitor(monitor, [:flush])
        :ending
    end
  end

  # One that was killed has left nothing.
  defp ended(pid) do
    case :ets.lookup(@table, pid) do
      [{_pid, _facts, _order, {_at, left}}] -> {:ended, left}
      _nothing -> {:ended, nil}
    end
  end

  @doc "The calling process leads no more. What it has to tell is made only if somebody waits for it."
  @spec leave((order() -> term())) :: :ok
  def leave(left) do
    Process.delete(@table)

    if_there(:ok, fn ->
      case :ets.lookup(@table, self()) do
        [{pid, _facts, order, nil}] when order != nil ->
          :ets.update_element(@table, pid, {4, {now(), left.(order)}})

        _nobody_waits ->
          :ets.delete(@table, self())
      end

      :ok
    end)
  end

  defp sweep do
    for {pid, _facts, _order, left} <- :ets.tab2list(@table),
        not Process.alive?(pid) and old?(left),
        do: :ets.delete(@table, pid)
  end

  defp old?({at, _left}), do: now() - at > @kept
  defp old?(nil), do: true

  defp now, do: System.monotonic_time(:millisecond)

  defp if_there(otherwise, fun) do
    fun.()
  rescue
    error in ArgumentError ->
      if :ets.whereis(@table) == :undefined, do: otherwise, else: reraise(error, __STACKTRACE__)
  end
end
