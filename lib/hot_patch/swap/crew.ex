defmodule HotPatch.Swap.Crew do
  @moduledoc false
  # Sends the messages of a swap to many processes at once: as many senders as there are
  # schedulers, each with its own part of the processes, which it is given before anybody stands still.
  # What all have in common is not copied with each message (HotPatch.Swap.SharedTerm).
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

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Employment
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.SharedTerm
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Tally

  # So few are sent to by the engine itself.
  @few 256

  # Processes that are sent to before others have their turn for the first time: to go on is less to do than to
  # convert a state. And the microseconds for each of them after which that turn was long.
  @window 512
  @waking_window 2_048
  @long 4

  # Words of a sender's heap for each process of its part: it is not to collect garbage meanwhile.
  @words 40
  @most_words 2_000_000

  @typedoc """
  `tasks` by their places, and what they are to do: what is the same for several stands once in `alike`. Whether
  some of them have a state to convert that they do not convert at once.
  """
  @type t :: %__MODULE__{
          ref: reference(),
          senders: [pid()],
          tasks: tuple(),
          alike: [alike()],
          later?: boolean(),
          part: part() | nil
        }
  @enforce_keys [:ref, :senders, :tasks, :alike, :later?]
  defstruct [:ref, :senders, :tasks, :alike, :later?, :part]

  @typedoc "What is converted at once, what later, and how a process looks for whom it works."
  @type alike ::
          {at_once :: Conversion.t() | nil, later :: Conversion.t() | nil,
           Employment.looks() | nil}

  @typedoc "Each process of a part, with its place in `alike` and its reductions when it was looked at."
  @type part :: %{
          first: Tally.place(),
          items: [nonempty_improper_list(non_neg_integer() | Employment.before(), pid())]
        }

  @typedoc "An order as it is carried out, with what is sent; by the places in `alike` where that differs."
  @type errand ::
          {:stand, requests :: tuple(), Signal.t()}
          | {:convert, Parking.t(), laters :: tuple(), Tally.seats()}
          | {:wake, SysMessage.t(), skip :: MapSet.t(pid()), Tally.seats()}

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
    {likes, alike} = tasks |> alike() |> Enum.unzip()
    places = likes |> Enum.with_index() |> Map.new()
    later? = Enum.any?(alike, fn {_at_once, later, _looks} -> later != nil end)
    crew = %__MODULE__{ref: make_ref(), senders: [], tasks: all, alike: alike, later?: later?}

    if tuple_size(all) <= @few do
      %{crew | part: part(tasks, 0, places)}
    else
      size = div(blocks + count - 1, count) * Tally.block()
      parts = tasks |> Enum.chunk_every(size) |> Enum.with_index()
      %{crew | senders: for({tasks, n} <- parts, do: sender(part(tasks, n * size, places), size))}
    end
  end

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
    tell(crew, errand(order, crew, {tally, waiter, going}), waiter)

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
  def wake(%{crew: crew} = round, standing, late) do
    seats = {nil, round.waiter, round.going}
    tell(crew, {:wake, Parking.wake_message(standing), late, seats}, round.waiter)
  end

  defp tell(crew, errand, waiter) do
    for sender <- crew.senders, do: send(sender, {:errand, errand, waiter})
    if crew.part, do: send_all(crew.part, errand, :infinity), else: :ok
  end

  defp errand({:stand, standing}, crew, seats) do
    requests =
      for {at_once, _later, looks} <- crew.alike,
          do: Parking.request(standing, at_once, looks, seats)

    requests = List.to_tuple(requests)
    {:stand, shared(requests, crew, standing), standing.signal}
  end

  defp errand({:convert, standing}, crew, seats) do
    laters = for {_at_once, later, _looks} <- crew.alike, do: later
    {:convert, standing, List.to_tuple(laters), seats}
  end

  defp shared(requests, %{senders: []}, _standing), do: requests
  defp shared(requests, _crew, standing), do: SharedTerm.keep(standing.guard, requests)

  @doc "Gives the order to stand still to one of them once more."
  @spec again(round(), non_neg_integer(), Parking.t()) :: round()
  def again(%{tally: tally, waiter: waiter, crew: crew} = round, place, standing) do
    task = elem(crew.tasks, place)
    Tally.expect(tally, place)
    seats = {tally, waiter, round.going}
    request = Parking.request(standing, at_once(task), ProcessTask.looks(task), seats)
    # Since it was looked at it has been let go of.
    Parking.ask(request, task.pid, place, nil)
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

  defp part([], _first, _places), do: nil

  defp part(tasks, first, places) do
    items = for task <- tasks, do: [places[task.like], task.reductions | task.pid]
    %{first: first, items: items}
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

      {:errand, errand, waiter} ->
        send_all(part, errand, window(errand))
        _ = send(waiter, {waiter, :sent})
        serve(part, engine)
    end
  end

  defp window({:wake, _message, _skip, _seats}), do: @waking_window
  defp window(_errand), do: @window

  defp send_all(part, errand, window), do: send_windows(part.items, part.first, window, errand)

  defp send_windows(items, place, window, errand) do
    {rest, next} = send_some(items, place, window, errand)

    cond do
      rest == [] or not open?(errand) -> :ok
      let_others() < window * @long -> send_windows(rest, next, window, errand)
      true -> send_windows(rest, next, window * 2, errand)
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
  defp open?({:stand, _requests, signal}), do: Signal.open?(signal)
  defp open?(_errand), do: true

  defp send_some([], place, _count, _errand), do: {[], place}
  defp send_some(items, place, 0, _errand), do: {items, place}

  defp send_some([item | rest], place, count, errand) do
    :ok = send_one(errand, item, place)
    send_some(rest, place + 1, less(count), errand)
  end

  defp less(:infinity), do: :infinity
  defp less(count), do: count - 1

  defp send_one({:stand, requests, _signal}, [like, before | pid], place),
    do: Parking.ask(elem(requests, like), pid, place, before)

  defp send_one({:convert, standing, laters, seats}, [like, _before | pid], place) do
    case elem(laters, like) do
      nil -> Tally.arrive(Tally.seat(seats, place))
      later -> Parking.convert(standing, pid, later, Tally.seat(seats, place))
    end
  end

  defp send_one({:wake, message, skip, seats}, [_like, _before | pid], place) do
    if MapSet.member?(skip, pid),
      do: Tally.leave(Tally.seat(seats, place)),
      else: Parking.wake(message, pid)
  end
end
