defmodule HotPatch.Swap.Crew do
  @moduledoc false
  # Sends the messages of a swap to many processes at once: as many senders as there are
  # schedulers, each with its own part of the processes, which it is given before anybody stands still.
  # What all have in common is in a sender's heap and is not copied to the next with each message.
  #
  # They run before others, and so they must be brief: a sender waits until those have had their turn
  # to whom it has just sent something, so that the queues of the schedulers stay short and callers
  # of other processes do not wait for all of these. Where that takes long the schedulers are full
  # anyway, and a turn comes only after all others had theirs: then it sends to more at once, in order
  # that all processes wait for the same turn.
  #
  # They are linked to the engine and watch it, and end with it. A message that one of them still sends when the
  # engine is dead does nothing: the swap is over by then (HotPatch.Swap.Signal).

  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Tally

  # Blocks that are sent to before the first wait, and milliseconds after which it is long.
  @window 2
  @long 1

  # Words of a sender's heap for each process of its part: it is not to collect garbage meanwhile.
  @words 40
  @most_words 2_000_000

  @typedoc "`tasks` by their places; whether some of them have a state to convert that they do not convert at once."
  @type t :: %__MODULE__{
          ref: reference(),
          senders: [pid()],
          tasks: tuple(),
          later?: boolean(),
          part: part() | nil
        }
  @enforce_keys [:ref, :senders, :tasks, :later?]
  defstruct [:ref, :senders, :tasks, :later?, :part]

  @typedoc "What each process of a part is to do, and each as the place of that among `alike`."
  @type part :: %{
          first: non_neg_integer(),
          alike: tuple(),
          items: [nonempty_improper_list(non_neg_integer(), pid())]
        }

  @typedoc "What is sent: stand still, convert, or go on; those in `skip` are left alone."
  @type order ::
          {:stand, Parking.t()}
          | {:convert, Parking.t()}
          | {:wake, Parking.t(), skip :: MapSet.t(pid())}

  @typedoc "One order to all of them, under way."
  @type round :: %{
          crew: t(),
          tally: Tally.t(),
          waiter: reference(),
          sending: non_neg_integer(),
          again: [non_neg_integer()],
          heard: non_neg_integer()
        }

  @doc "For processes that stand still in the same way; nothing is sent yet."
  @spec new([ProcessTask.t()]) :: t()
  def new(tasks) do
    count = :erlang.system_info(:schedulers_online)
    all = List.to_tuple(tasks)
    blocks = div(tuple_size(all) + Tally.block() - 1, Tally.block())
    alike = alike(tasks)

    crew = %__MODULE__{ref: make_ref(), senders: [], tasks: all, later?: later?(alike)}

    # Few are sent to by the engine itself.
    if blocks <= @window do
      %{crew | part: part(tasks, 0, alike)}
    else
      size = div(blocks + count - 1, count) * Tally.block()
      parts = tasks |> Enum.chunk_every(size) |> Enum.with_index()
      %{crew | senders: for({tasks, n} <- parts, do: sender(part(tasks, n * size, alike), size))}
    end
  end

  defp later?(alike), do: Enum.any?(alike, fn {_like, {_at_once, later}} -> later != nil end)

  defp sender(part, size) do
    words = min(@most_words, 1_000 + @words * size)
    engine = self()

    :erlang.spawn_opt(
      fn -> serve(part, Process.monitor(engine)) end,
      [:link, priority: :high, min_heap_size: words]
    )
  end

  @doc "Its senders end."
  @spec stop(t()) :: :ok
  def stop(%{senders: senders}), do: Enum.each(senders, &send(&1, :stop))

  @doc "Gives an order to all. The engine gets `{waiter, :all}` when all have followed it."
  @spec order(t(), order()) :: round()
  def order(crew, order) do
    tally = Tally.new(tuple_size(crew.tasks))
    waiter = SysMessage.open()
    for sender <- crew.senders, do: send(sender, {order, tally, waiter})
    if crew.part, do: send_all(crew.part, order, tally, {waiter, waiter})

    %{
      crew: crew,
      tally: tally,
      waiter: waiter,
      sending: length(crew.senders),
      again: [],
      heard: 0
    }
  end

  @doc "Gives the order to stand still to one of them once more."
  @spec again(round(), non_neg_integer(), Parking.t()) :: round()
  def again(%{tally: tally, waiter: waiter, crew: crew} = round, place, standing) do
    task = elem(crew.tasks, place)
    Tally.expect(tally, place)
    Parking.ask(standing, task.pid, at_once(task), {tally, place, waiter, waiter})
    %{round | again: Enum.uniq([place | round.again])}
  end

  @doc "How many have not followed an order yet."
  @spec missing(round()) :: non_neg_integer()
  def missing(%{crew: %{tasks: tasks}, tally: tally, again: again}) do
    # Of those that were asked twice their own mark is the last word.
    if Tally.complete?(tally),
      do: Enum.count(again, &(not Tally.there?(tally, &1))),
      else: Tally.missing(tally, tuple_size(tasks))
  end

  @doc "Those among them, by their marks; some may be dead."
  @spec late(round()) :: [pid()]
  def late(%{crew: %{tasks: tasks}, tally: tally}) do
    for place <- Tally.late(tally, tuple_size(tasks)), do: elem(tasks, place).pid
  end

  @doc "How many told something that was not heard of before `heard/1`."
  @spec told(round()) :: non_neg_integer()
  def told(%{tally: tally, heard: heard}), do: Tally.told(tally) - heard

  @doc "All that was told by now has been heard."
  @spec heard(round()) :: round()
  def heard(%{tally: tally} = round), do: %{round | heard: Tally.told(tally)}

  @doc "The dead are not waited for."
  @spec excuse_dead(round()) :: :ok
  def excuse_dead(%{crew: %{tasks: tasks}, tally: tally}) do
    for place <- Tally.late(tally, tuple_size(tasks)),
        not Process.alive?(elem(tasks, place).pid),
        do: Tally.mark(tally, place)

    # One that was killed in the very moment of its answer is in no count.
    if Tally.late(tally, tuple_size(tasks)) == [], do: Tally.close(tally), else: :ok
  end

  @doc "Nothing comes any more of an order."
  @spec close(round()) :: :ok
  def close(%{waiter: waiter}) do
    SysMessage.close(waiter)
    flush(waiter)
  end

  defp flush(waiter) do
    receive do
      {^waiter, _what} -> flush(waiter)
    after
      0 -> :ok
    end
  end

  defp part([], _first, _alike), do: nil

  defp part(tasks, first, alike) do
    places = alike |> Enum.with_index() |> Map.new(fn {{like, _what}, n} -> {like, n} end)

    %{
      first: first,
      alike: alike |> Enum.map(&elem(&1, 1)) |> List.to_tuple(),
      items: for(task <- tasks, do: [places[task.like] | task.pid])
    }
  end

  # What is to be done is the same for most: by what tells them apart, at once and later.
  defp alike(tasks) do
    tasks
    |> Enum.reduce(%{}, fn
      %{like: like}, alike when is_map_key(alike, like) -> alike
      task, alike -> Map.put(alike, task.like, {at_once(task), later(task)})
    end)
    |> Map.to_list()
  end

  defp at_once(task), do: if(ProcessTask.at_once?(task), do: ProcessTask.only(task))

  defp later(task) do
    if map_size(task.conversions) == 1 and not ProcessTask.at_once?(task),
      do: ProcessTask.only(task)
  end

  defp serve(part, engine) do
    receive do
      :stop ->
        :ok

      {:DOWN, ^engine, :process, _pid, _reason} ->
        :ok

      {order, tally, waiter} ->
        ref = SysMessage.open()
        send_all(part, order, tally, {ref, waiter})
        SysMessage.close(ref)
        flush(ref)
        _ = send(waiter, {waiter, :sent})
        serve(part, engine)
    end
  end

  defp send_all(part, order, tally, {sender, waiter}) do
    window = if sender == waiter, do: :all, else: @window
    send_windows(part.items, part.first, window, {part.alike, order, tally, sender, waiter})
  end

  defp send_windows([], _place, _window, _what), do: :ok

  defp send_windows(items, place, window, {_alike, order, _tally, sender, _waiter} = what) do
    count = if window == :all, do: :infinity, else: window * Tally.block()
    {rest, next} = send_some(items, place, count, what)

    cond do
      rest == [] or not open?(order) ->
        :ok

      had_their_turn?(sender, div(next - 1, Tally.block())) ->
        send_windows(rest, next, window, what)

      true ->
        send_windows(rest, next, window * 2, what)
    end
  end

  # A swap that is over is not to reach more.
  defp open?({:stand, standing}), do: Signal.open?(standing.signal)
  defp open?(_order), do: true

  defp had_their_turn?(sender, block) do
    receive do
      {^sender, ^block} -> true
    after
      @long -> false
    end
  end

  defp send_some([], place, _count, _what), do: {[], place}
  defp send_some(items, place, 0, _what), do: {items, place}

  defp send_some([[like | pid] | rest], place, count, what) do
    {alike, order, tally, sender, waiter} = what
    :ok = send_one(order, pid, elem(alike, like), {tally, place, sender, waiter})
    send_some(rest, place + 1, less(count), what)
  end

  defp less(:infinity), do: :infinity
  defp less(count), do: count - 1

  defp send_one({:stand, standing}, pid, {at_once, _later}, seat),
    do: Parking.ask(standing, pid, at_once, seat)

  defp send_one({:convert, _standing}, _pid, {_at_once, nil}, seat), do: Tally.arrive(seat)

  defp send_one({:convert, standing}, pid, {_at_once, later}, seat),
    do: Parking.convert(standing, pid, later, seat)

  defp send_one({:wake, standing, skip}, pid, _alike, seat) do
    if MapSet.member?(skip, pid),
      do: Tally.arrive(seat),
      else: Parking.wake(standing, pid, seat)
  end
end
