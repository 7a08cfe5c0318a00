defmodule HotPatch.Swap.Suspension do
  @moduledoc false
  # Suspends a set of processes before a deadline, whatever they are doing with each other.
  #
  # The suspend deadlock: A is inside a call to B, and B is suspended already, so A can never
  # answer its own suspend. When no answer comes for a moment, those whom the others wait
  # for are resumed and suspended again at once: what waits in their mailboxes comes before
  # that second suspend, so they answer A and then stand still.

  alias HotPatch.Swap.Blockers
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Crew
  alias HotPatch.Swap.Decision
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.SysMessage

  # Milliseconds without progress after which it is looked who blocks whom. Where nobody does, the
  # machine has no time for them, and looking takes more of it: so the next look comes later.
  @stall 3
  @longest_stall 100
  # Milliseconds that it takes at least to have all go on.
  @least_back 5
  # As many as one look takes in; the others get their turn at the next.
  @look_at 200

  @typedoc "Processes that stop together: those that stand still by their crew, the others in windows."
  @type wave :: %{crew: Crew.t(), suspended: [[ProcessTask.t()]], size: non_neg_integer()}

  @typedoc "A wave that was asked, and how far it is."
  @type asked :: {wave(), Crew.round()}

  @typedoc "How a process stands still, and for one that does so by a crew whose, and its place there."
  @type ours :: :suspended | {reference(), non_neg_integer()}

  @typedoc """
  `ours` are all that are to stand still, and how; `coming` are the waves that were not asked yet,
  `asked` the others with their rounds, the last one first; `waiting` those who owe an answer longer than
  the others, by message and by their seat. `released` are those that had to go on for a moment: what
  they were converted to before is out of date. `told` is what conversions told.
  """
  @type t :: %__MODULE__{
          standing: Parking.t(),
          converted: reference(),
          deadline: integer(),
          ours: %{pid() => ours()},
          coming: [wave()],
          asked: [asked()],
          owed: MapSet.t(pid()),
          waiting: [pid()],
          released: [pid()],
          told: [{pid(), term()}],
          children: %{pid() => [pid()]},
          releases: non_neg_integer(),
          stall: pos_integer(),
          began: integer(),
          took: non_neg_integer(),
          most_back: non_neg_integer()
        }
  @enforce_keys [:standing, :converted, :deadline, :began, :most_back]
  defstruct [
    :standing,
    :converted,
    :deadline,
    :began,
    :most_back,
    took: 0,
    ours: %{},
    coming: [],
    asked: [],
    owed: MapSet.new(),
    waiting: [],
    released: [],
    told: [],
    children: %{},
    releases: 0,
    stall: @stall
  ]

  @doc """
  Nobody suspended yet. `converted` is the ref under which conversions tell what they have to, `deadline`
  monotonic time in milliseconds.
  """
  @spec new(Parking.t(), reference(), integer()) :: t()
  def new(standing, converted, deadline) do
    %__MODULE__{
      standing: standing,
      converted: converted,
      deadline: deadline,
      began: now(),
      most_back: div(deadline - now(), 3)
    }
  end

  @doc """
  Says beforehand who will be suspended, wave after wave: there may be many, and the guard has to know
  them.
  """
  @spec announce(t(), [[[ProcessTask.t()]]]) :: t()
  def announce(suspension, waves) do
    tasks = for windows <- waves, window <- windows, task <- window, do: task
    Guard.tell(suspension.standing, Enum.group_by(tasks, & &1.how, & &1.pid))
    waves = for [_ | _] = windows <- waves, do: wave(windows)
    ours = Enum.reduce(waves, suspension.ours, &known/2)
    %{suspension | ours: ours, coming: suspension.coming ++ waves}
  end

  defp wave(windows) do
    {still, others} = windows |> Enum.concat() |> Enum.split_with(&(&1.how == :still))
    suspended = Enum.chunk_every(others, 1_000)
    %{crew: Crew.new(still), suspended: suspended, size: length(still) + length(others)}
  end

  defp known(%{crew: crew, suspended: suspended}, ours) do
    ours =
      crew.tasks
      |> Tuple.to_list()
      |> Enum.with_index()
      |> Enum.reduce(ours, fn {task, place}, ours ->
        Map.put(ours, task.pid, {crew.ref, place})
      end)

    for window <- suspended, task <- window, into: ours, do: {task.pid, :suspended}
  end

  @doc """
  Suspends those announced. Otherwise some did not answer before the deadline, or before it was
  decided that the swap is to be taken back; or one could not convert its state.
  """
  @spec add(t(), %{pid() => [pid()]}) :: {:ok | :late | :told, t()}
  def add(%{coming: coming} = suspension, children) do
    Enum.reduce_while(
      coming,
      {:ok, %{suspension | children: children, coming: []}},
      fn wave, {:ok, suspension} ->
        case add_wave(wave, suspension) do
          {:ok, suspension} -> {:cont, {:ok, suspension}}
          other -> {:halt, other}
        end
      end
    )
    |> finish()
  end

  # A window's stragglers do not hold up the next, nor do those of a wave; all must answer in the
  # end.
  defp add_wave(wave, suspension) do
    began = now()
    round = Crew.order(wave.crew, {:stand, suspension.standing})
    asked = [{wave, round} | suspension.asked]
    suspension = %{suspension | asked: asked, stall: @stall, began: began}

    with {:ok, suspension} <- add_windows(wave.suspended, suspension),
         do: await(suspension, div(wave.size, 10))
  end

  defp add_windows(windows, suspension) do
    Enum.reduce_while(windows, {:ok, suspension}, fn window, {:ok, suspension} ->
      for task <- window, do: suspend(task.pid, suspension)
      owed = Enum.reduce(window, suspension.owed, &MapSet.put(&2, &1.pid))

      # Who stands still by a crew is waited for later.
      case await(%{suspension | owed: owed}, div(length(window), 10) + missing(suspension)) do
        {:ok, suspension} -> {:cont, {:ok, suspension}}
        other -> {:halt, other}
      end
    end)
  end

  defp suspend(pid, %{standing: %{ref: ref}}), do: SysMessage.send(pid, ref, :suspend)

  defp finish({:ok, suspension}) do
    with {:ok, suspension} <- await(suspension, 0), do: told(suspension)
  end

  defp finish(other), do: other

  # What conversions have told is there by now, but it may not have been read.
  defp told(suspension) do
    count = for {_wave, round} <- suspension.asked, reduce: 0, do: (n -> n + Crew.told(round))
    left = max(suspension.deadline - now(), 0)

    if length(suspension.told) >= count do
      {:ok, suspension}
    else
      case hear(suspension, left) do
        {:quiet, suspension} ->
          {:ok, suspension}

        {:heard, suspension} ->
          if failed?(suspension), do: {:told, suspension}, else: told(suspension)
      end
    end
  end

  # Until no more than `left` are waited for.
  defp await(suspension, left) do
    cond do
      failed?(suspension) -> {:told, suspension}
      not sending?(suspension) and missing(suspension) <= left -> {:ok, suspension}
      true -> await_more(suspension, left)
    end
  end

  defp await_more(suspension, left) do
    before = missing(suspension)
    last = suspension.deadline - back(suspension)
    until = max(0, min(suspension.stall, last - now()))

    case hear(suspension, until) do
      {:heard, suspension} ->
        await(suspension, left)

      {:quiet, suspension} ->
        cond do
          now() >= last -> {:late, %{suspension | waiting: late(suspension)}}
          Decision.called_off() != :ok -> {:late, %{suspension | waiting: late(suspension)}}
          sending?(suspension) or missing(suspension) < before -> await(suspension, left)
          true -> stalled(suspension, left)
        end
    end
  end

  @doc """
  Milliseconds that it takes to have all go on: that is within the deadline, too. As long as telling
  them took.
  """
  @spec back(t()) :: non_neg_integer()
  def back(suspension) do
    took =
      if sending?(suspension),
        do: max(suspension.took, now() - suspension.began),
        else: suspension.took

    took |> max(@least_back) |> min(suspension.most_back)
  end

  defp failed?(%{told: told}), do: match?([{_pid, {{:failed, _why}, _module}} | _], told)

  defp sending?(%{asked: asked}), do: Enum.any?(asked, fn {_wave, round} -> round.sending > 0 end)

  defp missing(%{asked: asked, owed: owed}) do
    Enum.reduce(asked, MapSet.size(owed), fn {_wave, round}, n -> n + Crew.missing(round) end)
  end

  # Whatever comes next, of all that is waited for.
  defp hear(%{standing: %{ref: ref}, converted: converted} = suspension, within) do
    receive do
      {[[:alias | ^ref] | pid], _answer} ->
        {:heard, %{suspension | owed: MapSet.delete(suspension.owed, pid)}}

      {[[:alias | ^converted] | pid], answer} ->
        {:heard, %{suspension | told: [{pid, answer} | suspension.told]}}

      {waiter, :sent} when is_reference(waiter) ->
        asked = for {wave, round} <- suspension.asked, do: {wave, sent(round, waiter)}
        took = max(suspension.took, now() - suspension.began)
        {:heard, %{suspension | asked: asked, took: took}}

      {waiter, :all} when is_reference(waiter) ->
        {:heard, suspension}
    after
      within -> {:quiet, suspension}
    end
  end

  defp sent(%{waiter: waiter} = round, waiter), do: %{round | sending: round.sending - 1}
  defp sent(round, _waiter), do: round

  defp stalled(suspension, left) do
    suspension = excused(suspension)
    suspension = %{suspension | waiting: late(suspension, @look_at)}
    if missing(suspension) <= left, do: {:ok, suspension}, else: release(suspension, left)
  end

  # A monitor for each process would cost more than all else here: the dead are looked for now.
  defp excused(suspension) do
    for {_wave, round} <- suspension.asked, do: Crew.excuse_dead(round)
    owed = for pid <- suspension.owed, Process.alive?(pid), into: MapSet.new(), do: pid
    %{suspension | owed: owed}
  end

  @doc "What conversions have told by now, which is forgotten: who has to be asked again, and when."
  @spec take_told(t()) :: {%{again: [{pid(), module()}], later: [pid()]}, t()}
  def take_told(%{told: told} = suspension) do
    again = for {pid, {:again, module}} <- told, do: {pid, module}
    later = for {pid, {:later, _module}} <- told, do: pid
    asked = for {wave, round} <- suspension.asked, do: {wave, Crew.heard(round)}
    {%{again: again, later: later}, %{suspension | told: [], asked: asked}}
  end

  @doc "Whether a wave is of processes in which nothing is to be done."
  @spec bystanders?(asked()) :: boolean()
  def bystanders?({%{crew: %{tasks: tasks}, suspended: []}, _round}) when tuple_size(tasks) > 0 do
    task = elem(tasks, 0)
    task == %ProcessTask{pid: task.pid}
  end

  def bystanders?(_asked), do: false

  @doc "It is over: all have been told to go on."
  @spec stop(t()) :: :ok
  def stop(%{asked: asked, coming: coming}) do
    for {_wave, round} <- asked, do: Crew.close(round)
    for wave <- coming ++ Enum.map(asked, &elem(&1, 0)), do: Crew.stop(wave.crew)
    :ok
  end

  @doc "Those who were asked, live, and have not answered; about so many at most."
  @spec late(t(), pos_integer() | :infinity) :: [pid()]
  def late(%{asked: asked, owed: owed}, most \\ :infinity) do
    seated = for {_wave, round} <- asked, pid <- Crew.late(round, most), do: pid
    Enum.filter(MapSet.to_list(owed) ++ seated, &Process.alive?/1)
  end

  defp release(suspension, left) do
    blockers =
      suspension.waiting
      |> Enum.take(@look_at)
      |> Blockers.of(&stands_still?(&1, suspension), suspension.children)

    suspension = Enum.reduce(blockers, suspension, &let_go_and_stop/2)
    # Those that were not looked at are next.
    stall = if blockers == [], do: min(suspension.stall * 2, @longest_stall), else: @stall

    await(
      %{
        suspension
        | released: blockers ++ suspension.released,
          releases: suspension.releases + length(blockers),
          stall: stall
      },
      left
    )
  end

  defp let_go_and_stop(pid, suspension) do
    case suspension.ours[pid] do
      :suspended ->
        SysMessage.run_in(pid, &Conversion.drop/1)
        SysMessage.resume_unanswered(pid)
        suspend(pid, suspension)
        %{suspension | owed: MapSet.put(suspension.owed, pid)}

      {ref, place} ->
        Parking.release(suspension.standing, pid)

        asked =
          for {wave, round} <- suspension.asked do
            if wave.crew.ref == ref,
              do: {wave, Crew.again(round, place, suspension.standing)},
              else: {wave, round}
          end

        %{suspension | asked: asked}
    end
  end

  # One of ours that has handled what was to stop it (sys.erl, suspend_loop/6; a hibernating
  # process hibernates there too).
  defp stands_still?(pid, suspension) do
    case suspension.ours do
      %{^pid => :suspended} -> pid not in suspension.owed and SysMessage.suspended?(pid)
      %{^pid => {ref, place}} -> seated?(suspension, ref, place) and Parking.standing?(pid)
      _ -> false
    end
  end

  defp seated?(%{asked: asked}, ref, place),
    do:
      Enum.any?(asked, fn {wave, round} -> wave.crew.ref == ref and Crew.there?(round, place) end)

  defp now, do: System.monotonic_time(:millisecond)
end
