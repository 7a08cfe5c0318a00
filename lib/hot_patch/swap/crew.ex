defmodule HotPatch.Swap.Crew do
  @moduledoc false
  # Sends the messages of a swap to many processes at once: as many senders as there are
  # schedulers, each with its own part of the processes, which it is given before anybody stands still.
  # What all have in common is in a sender's heap and is not copied to the next with each message.
  #
  # They run before others, and so they must be brief: after some messages a sender lets all others have
  # their turn, those first to whom it has just sent something, so that the queues of the schedulers
  # stay short and callers of other processes do not wait for all of these. Where that takes long the
  # schedulers are full anyway, and a turn comes only after all others had theirs: then it sends to
  # more at once, in order that all processes wait for the same turn. It never waits for an answer: a
  # scheduler that has nothing to do goes to sleep, and on a busy machine it takes long to wake up.
  #
  # They are linked to the engine and watch it, and end with it. A message that one of them still sends when the
  # engine is dead does nothing: the swap is over by then (HotPatch.Swap.Signal).

  alias HotPatch.Swap.Employment
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Tally

  # Processes that are sent to before others have their turn for the first time, and microseconds after
  # which that is long.
  @window 256
  @long 1_000

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

  @typedoc """
  What each process of a part is to do, and each as the place of that among `alike`, with its reductions when
  it was looked at.
  """
  @type part :: %{
          first: non_neg_integer(),
          alike: tuple(),
          items: [nonempty_improper_list(non_neg_integer() | Employment.before(), pid())]
        }

  @typedoc "What is sent: stand still, convert, or go on; those in `skip` are left alone."
  @type order ::
          {:stand, Parking.t()}
          | {:convert, Parking.t()}
          | {:wake, Parking.t(), skip :: MapSet.t(pid())}

  @typedoc "One order to all of them, under way; those that stand still mark in `going` when they go on."
  @type round :: %{
          crew: t(),
          tally: Tally.t(),
          going: Tally.t() | nil,
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
    if tuple_size(all) <= @window do
      %{crew | part: part(tasks, 0, alike)}
    else
      size = div(blocks + count - 1, count) * Tally.block()
      parts = tasks |> Enum.chunk_every(size) |> Enum.with_index()
      %{crew | senders: for({tasks, n} <- parts, do: sender(part(tasks, n * size, alike), size))}
    end
  end

  defp later?(alike),
    do: Enum.any?(alike, fn {_like, {_at_once, later, _looks}} -> later != nil end)

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
    size = tuple_size(crew.tasks)
    going = if match?({:stand, _}, order), do: Tally.new(size)
    tally = Tally.new(size)
    waiter = SysMessage.open()
    tell(crew, {order, {tally, waiter, going}})

    %{
      crew: crew,
      tally: tally,
      going: going,
      waiter: waiter,
      sending: length(crew.senders),
      again: [],
      heard: 0
    }
  end

  @doc """
  Has all those go on who were told to stand still, but for those that are `late`. The engine gets
  `{waiter, :gone}` when all do.
  """
  @spec wake(round(), Parking.t(), late :: MapSet.t(pid())) :: :ok
  def wake(%{crew: crew} = round, standing, late),
    do: tell(crew, {{:wake, standing, late}, {nil, round.waiter, round.going}})

  defp tell(crew, what) do
    for sender <- crew.senders, do: send(sender, what)
    if crew.part, do: send_all(crew.part, what, :infinity), else: :ok
  end

  @doc "Gives the order to stand still to one of them once more."
  @spec again(round(), non_neg_integer(), Parking.t()) :: round()
  def again(%{tally: tally, waiter: waiter, crew: crew} = round, place, standing) do
    task = elem(crew.tasks, place)
    Tally.expect(tally, place)
    seat = {tally, place, waiter, round.going}
    # It was let go of meanwhile.
    looks = with looks when looks != nil <- ProcessTask.looks(task), do: {looks, nil}
    Parking.ask(standing, task.pid, at_once(task), looks, seat)
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

  @doc "Those among them, by their marks; about so many at most, and some may be dead."
  @spec late(round(), pos_integer() | :infinity) :: [pid()]
  def late(%{crew: %{tasks: tasks}, tally: tally}, most \\ :infinity) do
    for place <- Tally.late(tally, tuple_size(tasks), most), do: elem(tasks, place).pid
  end

  @doc "How many told something that was not heard of before `heard/1`."
  @spec told(round()) :: non_neg_integer()
  def told(%{tally: tally, heard: heard}), do: Tally.told(tally) - heard

  @doc "All that was told by now has been heard."
  @spec heard(round()) :: round()
  def heard(%{tally: tally} = round), do: %{round | heard: Tally.told(tally)}

  @doc "How many have not gone on yet."
  @spec staying(round()) :: non_neg_integer()
  def staying(%{crew: %{tasks: tasks}, going: going}) do
    if Tally.complete?(going), do: 0, else: Tally.missing(going, tuple_size(tasks))
  end

  @doc "Whether the one at a place has followed an order."
  @spec there?(round(), non_neg_integer()) :: boolean()
  def there?(%{tally: tally}, place), do: Tally.there?(tally, place)

  # Of how many of them it is looked at one time whether they are dead.
  @look_at 256

  @doc "The dead are not waited for: of some of those that are late it is looked whether they are."
  @spec excuse_dead(round()) :: :ok
  def excuse_dead(%{crew: crew, tally: tally}), do: excuse(crew, tally)

  @doc "The same of going on."
  @spec excuse_dead_staying(round()) :: :ok
  def excuse_dead_staying(%{crew: crew, going: going}), do: excuse(crew, going)

  defp excuse(%{tasks: tasks}, tally) do
    case Tally.late(tally, tuple_size(tasks), @look_at) do
      # One that was killed in the very moment of its answer is in no count.
      [] ->
        Tally.close(tally)

      late ->
        for place <- late,
            not Process.alive?(elem(tasks, place).pid),
            do: Tally.mark(tally, place)

        :ok
    end
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
      items: for(task <- tasks, do: [places[task.like], task.reductions | task.pid])
    }
  end

  # What is to be done is the same for most: by what tells them apart, at once and later, and how they look
  # for whom they work.
  defp alike(tasks) do
    tasks
    |> Enum.reduce(%{}, fn
      %{like: like}, alike when is_map_key(alike, like) ->
        alike

      task, alike ->
        Map.put(alike, task.like, {at_once(task), later(task), ProcessTask.looks(task)})
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

      {_order, {_tally, waiter, _going}} = what ->
        send_all(part, what, @window)
        _ = send(waiter, {waiter, :sent})
        serve(part, engine)
    end
  end

  defp send_all(part, what, window),
    do: send_windows(part.items, part.first, window, {part.alike, what})

  defp send_windows(items, place, window, {_alike, {order, _seats}} = what) do
    {rest, next} = send_some(items, place, window, what)

    cond do
      rest == [] or not open?(order) -> :ok
      let_others() < @long -> send_windows(rest, next, window, what)
      true -> send_windows(rest, next, window * 2, what)
    end
  end

  # Gives the microseconds that it took.
  defp let_others do
    before = System.monotonic_time(:microsecond)
    high = Process.flag(:priority, :normal)
    :erlang.yield()
    Process.flag(:priority, high)
    System.monotonic_time(:microsecond) - before
  end

  # A swap that is over is not to reach more.
  defp open?({:stand, standing}), do: Signal.open?(standing.signal)
  defp open?(_order), do: true

  defp send_some([], place, _count, _what), do: {[], place}
  defp send_some(items, place, 0, _what), do: {items, place}

  defp send_some([[like, before | pid] | rest], place, count, {alike, {order, seats}} = what) do
    {tally, waiter, going} = seats
    :ok = send_one(order, [before | pid], elem(alike, like), {tally, place, waiter, going})
    send_some(rest, place + 1, less(count), what)
  end

  defp less(:infinity), do: :infinity
  defp less(count), do: count - 1

  defp send_one({:stand, standing}, [_before | pid], {at_once, _later, nil}, seat),
    do: Parking.ask(standing, pid, at_once, nil, seat)

  defp send_one({:stand, standing}, [before | pid], {at_once, _later, looks}, seat),
    do: Parking.ask(standing, pid, at_once, {looks, before}, seat)

  defp send_one({:convert, _standing}, _pid, {_at_once, nil, _looks}, seat),
    do: Tally.arrive(seat)

  defp send_one({:convert, standing}, [_before | pid], {_at_once, later, _looks}, seat),
    do: Parking.convert(standing, pid, later, seat)

  defp send_one({:wake, standing, skip}, [_before | pid], _alike, seat) do
    if MapSet.member?(skip, pid), do: Tally.leave(seat), else: Parking.wake(standing, pid)
  end
end
