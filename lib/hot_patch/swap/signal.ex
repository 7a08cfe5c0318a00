defmodule HotPatch.Swap.Signal do
  @moduledoc false
  # One word that every process of this node can read at any time: whether a swap still goes on,
  # or how it ended.
  #
  # A message of a swap may reach a process long after the swap is over, because the process was
  # busy. Whatever such a message asks for, the process reads this word first, and does nothing
  # once the swap has ended. A process that stands still reads it whenever it wakes up. So the
  # outcome is never in a message that could come too late, be sent twice, or be left over.
  #
  # Beside it stands how many processes are converting their state. A process that is ended by its own
  # code_change (an exit signal of what it has linked itself to, its max_heap_size) can tell nobody: who has
  # begun and not ended when all others have, is dead. Each scheduler has a count of its own, on a cache line
  # of its own, as all processes write there.

  @open 0
  @codes %{take: 1, drop: 2}
  @outcomes Map.new(@codes, fn {outcome, code} -> {code, outcome} end)

  @typedoc "How a swap ended for the processes: with the new states, or with those that they had."
  @type outcome :: :take | :drop
  @opaque t :: :atomics.atomics_ref()

  # Words of a cache line.
  @line 8

  @doc "The signal of a swap that begins."
  @spec new() :: t()
  def new, do: :atomics.new(@line * (:erlang.system_info(:schedulers) + 1) + 1, signed: true)

  @doc "The calling process runs something that may end it; it is counted until that is over."
  @spec within(t(), (() -> result)) :: result when result: term()
  def within(signal, fun) do
    :ok = count(signal, 1)
    fun.()
  after
    :ok = count(signal, -1)
  end

  @doc "How many processes are in it, dead or alive."
  @spec within(t()) :: integer()
  def within(signal) do
    Enum.sum(
      for scheduler <- 1..:erlang.system_info(:schedulers),
          do: :atomics.get(signal, 1 + @line * scheduler)
    )
  end

  defp count(signal, number),
    do: :atomics.add(signal, 1 + @line * :erlang.system_info(:scheduler_id), number)

  @doc "What the signal says now."
  @spec read(t()) :: :open | outcome()
  def read(signal) do
    case :atomics.get(signal, 1) do
      @open -> :open
      code -> Map.fetch!(@outcomes, code)
    end
  end

  @doc "Whether the swap still goes on."
  @spec open?(t()) :: boolean()
  def open?(signal), do: :atomics.get(signal, 1) == @open

  @doc "Ends the swap, and gives the outcome. The first outcome stays: nobody can be told two."
  @spec settle(t(), outcome()) :: outcome()
  def settle(signal, outcome) do
    case :atomics.compare_exchange(signal, 1, @open, Map.fetch!(@codes, outcome)) do
      :ok -> outcome
      code -> Map.fetch!(@outcomes, code)
    end
  end
end
