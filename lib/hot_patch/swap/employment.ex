defmodule HotPatch.Swap.Employment do
  @moduledoc false
  # Whether a process that stands still works for the module that it was found for: since it was looked at
  # it may have become another's, and one that was busy was not looked at. By the text of its own stack
  # (HotPatch.Swap.Discovery.Employer), which takes a while where many stand still.
  #
  # A gen_server becomes another's by entering another loop, inside its own or after it. So where it was
  # seen in its loop before, and its stack is as deep now as that of one that is in no other loop, it is
  # still the same. How deep that is the first of them finds out, and the others let it: to read takes
  # longer than a turn of the scheduler, and thousands would have begun to before one is done.
  #
  # Of a gen_statem the depth says nothing, as its callback module is a value. One that has done too
  # little for a change since it was looked at (HotPatch.Swap.Discovery.Idleness) is what it was; the others
  # read, and wait for nobody.

  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.Employer
  alias HotPatch.Swap.Discovery.Idleness

  # Words of a heap beyond which the text takes too long, of whoever stands still.
  @most_words 300_000

  # How often a process lets all others have their turn before it reads by itself: the one that reads
  # may be dead.
  @most_turns 100

  # What is known of the depth of stacks: the depth, and whether somebody finds it out.
  @depth 1
  @reader 2

  @typedoc """
  What tells of one that was seen in its loop: the depth of its stack, with what is known of that, or its
  reductions, with the most up to which it is what it was, at that depth.
  """
  @type t :: %{
          by_depth?: boolean(),
          depth: :atomics.atomics_ref(),
          idle: Idleness.measure() | nil
        }

  @typedoc "What a process finds."
  @type found :: :ok | {:another, module()}

  @typedoc "What it takes to look, for one module, and the reductions of the process when it was looked at."
  @type looks :: {t(), module()}
  @type before :: non_neg_integer() | nil

  @doc "For processes of one change and kind; those that are sure were seen in their loop."
  @spec new(:atomics.atomics_ref(), boolean(), kind :: atom()) :: t()
  def new(depth, sure?, kind) do
    idle = if sure? and kind == :statem, do: Idleness.most()
    %{by_depth?: sure? and kind == :server, depth: depth, idle: idle}
  end

  @doc "The depth of stacks, as far as the calling engine's processes have found it out; not at all at first."
  @spec depth() :: :atomics.atomics_ref()
  def depth do
    case Process.get(__MODULE__) do
      nil ->
        depth = :atomics.new(@reader, signed: false)
        Process.put(__MODULE__, depth)
        depth

      depth ->
        depth
    end
  end

  @doc "What the calling process finds, which runs a function over its state and has nothing else in hand."
  @spec look(looks(), Idleness.measure(), before(), term()) :: found()
  def look({%{idle: {most, depth}}, _module}, {reductions, depth}, before, _state)
      when is_integer(before) and reductions - before <= most,
      do: :ok

  # How large its heap is matters to who reads.
  def look({%{by_depth?: true, depth: depth}, module}, {_reductions, size}, _before, state),
    do: compared(state, module, {depth, size}, @most_turns)

  def look({works_for, module}, _now, _before, state), do: check(works_for, state, module)

  @doc "The same, wherever it is."
  @spec check(t(), term(), module()) :: found()
  def check(%{by_depth?: true, depth: depth}, state, module) do
    {:stack_size, size} = Process.info(self(), :stack_size)
    compared(state, module, {depth, size}, @most_turns)
  end

  def check(_works_for, state, module), do: state |> text_says(module) |> elem(0)

  defp compared(state, module, {depth, size} = known, turns) do
    case :atomics.get(depth, @depth) do
      ^size ->
        :ok

      0 when turns > 0 ->
        if :atomics.compare_exchange(depth, @reader, 0, 1) == :ok do
          first(state, module, known)
        else
          :erlang.yield()
          compared(state, module, known, turns - 1)
        end

      _another_or_nobody_knows ->
        read(state, module, known)
    end
  end

  # Should it not be one by which the depth is known, the next one reads.
  defp first(state, module, {depth, _size} = known) do
    read(state, module, known)
  after
    :atomics.put(depth, @reader, 0)
  end

  defp read(state, module, {depth, size}) do
    with {:ok, text} when text != nil <- text_says(state, module) do
      if Employer.in_one_loop?(text, :gen_server), do: :atomics.put(depth, @depth, size)
      :ok
    else
      {result, _no_text} -> result
    end
  end

  # With the text where that shows it.
  defp text_says(state, module) do
    {:total_heap_size, words} = Process.info(self(), :total_heap_size)
    if words > @most_words, do: {:ok, nil}, else: text_says_now(state, module)
  end

  defp text_says_now(state, module) do
    text = Stacktrace.text(self())

    case text |> Employer.of_text(state, [module]) |> Employer.read() do
      {:works_for, [^module | _below]} -> {:ok, text}
      {:works_for, [other | _below]} -> {{:another, other}, nil}
      {:foreign, loop, _module} -> {{:another, loop}, nil}
      # The VM writes it otherwise than we know: it is believed what was found.
      nil -> {:ok, nil}
    end
  end
end
