defmodule HotPatch.Swap.Tally do
  @moduledoc false
  # Who of many processes has come as far as it was asked to, told without a message of each: a
  # hundred thousand answers would be the longer part of a pause, and all of them for one process to
  # read.
  #
  # Each process has a place. When it has come so far it marks its place and takes one from the count
  # of its block, so that not all of them write the same word; the last of all wakes up whoever waits. Counts only say when there is something to see: who is late is seen by the marks,
  # which is looked at only when something is late. So a process that is killed between its mark
  # and its count costs a moment, and no more.

  @block 128

  # One array: how many blocks are not complete; how many processes had something to tell; then block
  # after block, each with its count and its places.
  @blocks 1
  @told 2
  @first 3

  @opaque t :: :atomics.atomics_ref()

  @typedoc """
  What a process is sent to tell by: its place, under which alias it wakes up the one who waits for all,
  and where it marks the same place once it goes on, by whatever it has learned that it may.
  """
  @type seat :: {t(), place(), waiter :: reference(), going :: t() | nil}
  @type place :: non_neg_integer()

  @typedoc "What the seats of all have in common."
  @type seats :: {t(), waiter :: reference(), going :: t() | nil}

  @doc "The places of one block."
  @spec block() :: pos_integer()
  def block, do: @block

  @doc "For so many processes, none of which has come so far."
  @spec new(non_neg_integer()) :: t()
  def new(size) do
    blocks = div(size + @block - 1, @block)
    tally = :atomics.new(@first + blocks * (@block + 1), signed: true)
    :atomics.put(tally, @blocks, blocks)
    for block <- blocks(size), do: :atomics.put(tally, count(block), in_block(block, size))
    tally
  end

  @doc "The seat of one of them."
  @spec seat(seats(), place()) :: seat()
  def seat({tally, waiter, going}, place), do: {tally, place, waiter, going}

  @doc "The calling process has come so far."
  @spec arrive(seat()) :: :ok
  def arrive({tally, place, waiter, _going}) do
    if mark(tally, place) == :all, do: send(waiter, {waiter, :all})
    :ok
  end

  @doc "The calling process goes on."
  @spec leave(seat()) :: :ok
  def leave({_tally, place, waiter, going}) do
    if mark(going, place) == :all, do: send(waiter, {waiter, :gone})
    :ok
  end

  @doc "The same for one that has not been asked, or is dead; nobody is woken up."
  @spec mark(t(), non_neg_integer()) :: :more | :all
  def mark(tally, place) do
    block = div(place, @block)
    :atomics.put(tally, slot(place), 1)

    if :atomics.sub_get(tally, count(block), 1) == 0 and :atomics.sub_get(tally, @blocks, 1) == 0,
      do: :all,
      else: :more
  end

  @doc "One that has come so far is asked once more."
  @spec expect(t(), non_neg_integer()) :: :ok
  def expect(tally, place) do
    :atomics.put(tally, slot(place), 0)
    # The block had been complete.
    if :atomics.add_get(tally, count(div(place, @block)), 1) == 1,
      do: :atomics.add(tally, @blocks, 1),
      else: :ok
  end

  @doc "All have come so far, whatever the counts say."
  @spec close(t()) :: :ok
  def close(tally), do: :atomics.put(tally, @blocks, 0)

  @doc "Counts that the calling process has told something, once that is sent."
  @spec tell(seat()) :: :ok
  def tell({tally, _place, _waiter, _going}), do: :atomics.add(tally, @told, 1)

  @doc "How many have told something."
  @spec told(t()) :: non_neg_integer()
  def told(tally), do: :atomics.get(tally, @told)

  @doc "Whether all have come so far, by the counts."
  @spec complete?(t()) :: boolean()
  def complete?(tally), do: :atomics.get(tally, @blocks) <= 0

  @doc "Whether this one has."
  @spec there?(t(), non_neg_integer()) :: boolean()
  def there?(tally, place), do: :atomics.get(tally, slot(place)) == 1

  @doc "How many have not, by the counts."
  @spec missing(t(), non_neg_integer()) :: non_neg_integer()
  def missing(tally, size),
    do: Enum.reduce(blocks(size), 0, &(max(:atomics.get(tally, count(&1)), 0) + &2))

  @doc "The places of those that have not, by the marks; so many at most."
  @spec late(t(), non_neg_integer(), pos_integer() | :infinity) :: [non_neg_integer()]
  def late(tally, size, most \\ :infinity) do
    Enum.reduce_while(blocks(size), [], fn block, late ->
      late =
        if :atomics.get(tally, count(block)) > 0,
          do: in_block(tally, block, size) ++ late,
          else: late

      if length_at_least?(late, most), do: {:halt, late}, else: {:cont, late}
    end)
  end

  defp length_at_least?(_late, :infinity), do: false
  defp length_at_least?(late, most), do: length(late) >= most

  defp in_block(tally, block, size) do
    first = block * @block
    for place <- first..(first + in_block(block, size) - 1), not there?(tally, place), do: place
  end

  defp blocks(size), do: 0..(div(size + @block - 1, @block) - 1)//1
  defp in_block(block, size), do: min(@block, size - block * @block)
  defp count(block), do: @first + block * (@block + 1)
  defp slot(place), do: count(div(place, @block)) + 1 + rem(place, @block)
end
