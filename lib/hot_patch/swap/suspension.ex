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
  alias HotPatch.Swap.Decision
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.Parking
  alias HotPatch.Swap.ProcessTask
  alias HotPatch.Swap.SysMessage

  # Milliseconds without an answer after which it is looked who blocks whom.
  @stall 3
  # As many as one look takes in; the others get their turn at the next.
  @look_at 200

  @typedoc """
  `ours` are all that are to stand still, and how; `asked` are those of them that were asked by
  now, the last window first; `waiting` those who owe an answer longer than the others. `released`
  are those that had to go on for a moment: what they were converted to before is out of date.
  """
  @type t :: %__MODULE__{
          standing: Parking.t(),
          deadline: integer(),
          ours: %{pid() => ProcessTask.how()},
          asked: [[ProcessTask.t()]],
          waiting: [pid()],
          released: [pid()],
          children: %{pid() => [pid()]},
          releases: non_neg_integer()
        }
  @enforce_keys [:standing, :deadline]
  defstruct [
    :standing,
    :deadline,
    ours: %{},
    asked: [],
    waiting: [],
    released: [],
    children: %{},
    releases: 0
  ]

  @doc "Nobody suspended yet. `deadline` is monotonic time in milliseconds."
  @spec new(Parking.t(), integer()) :: t()
  def new(standing, deadline), do: %__MODULE__{standing: standing, deadline: deadline}

  @doc """
  Says beforehand who will be suspended: there may be many, and the guard has to know them.
  """
  @spec announce(t(), [[ProcessTask.t()]]) :: t()
  def announce(suspension, windows) do
    hows = for window <- windows, task <- window, do: {task.pid, task.how}
    Guard.tell(suspension.standing, hows)
    ours = Enum.reduce(hows, suspension.ours, fn {pid, how}, ours -> Map.put(ours, pid, how) end)
    %{suspension | ours: ours}
  end

  @doc """
  Suspends those announced; the error is that some did not answer before the deadline, or before it was
  decided that the swap is to be taken back.
  """
  @spec add(t(), [[ProcessTask.t()]], %{pid() => [pid()]}) :: {:ok | :late, t()}
  def add(suspension, windows, children) do
    windows
    |> Enum.reduce_while({:ok, %{suspension | children: children}}, &add_window/2)
    |> finish()
  end

  # A window's stragglers do not hold up the next; all must answer in the end.
  defp add_window(window, {:ok, suspension}) do
    for task <- window, do: stop(task.pid, task.how, suspension)
    suspension = %{suspension | asked: [window | suspension.asked]}
    pids = Enum.map(window, & &1.pid)

    case collect(suspension, pids ++ suspension.waiting, div(length(pids), 10)) do
      {:ok, suspension} -> {:cont, {:ok, suspension}}
      late -> {:halt, late}
    end
  end

  defp finish({:ok, suspension}), do: collect(suspension, suspension.waiting, 0)
  defp finish(late), do: late

  # Until no more than `left` are waited for.
  defp collect(suspension, waiting, left) do
    ref = suspension.standing.ref

    case SysMessage.collect({ref, waiting}, @stall, nil, fn _, _, nil -> {:done, nil} end) do
      {:all, nil} -> {:ok, %{suspension | waiting: []}}
      {{:silent, silent}, nil} -> stalled(%{suspension | waiting: silent}, left)
    end
  end

  defp stalled(suspension, left) do
    cond do
      length(suspension.waiting) <= left -> {:ok, suspension}
      System.monotonic_time(:millisecond) >= suspension.deadline -> {:late, suspension}
      Decision.called_off() != :ok -> {:late, suspension}
      true -> release(suspension, left)
    end
  end

  defp release(suspension, left) do
    blockers =
      suspension.waiting
      |> Enum.take(@look_at)
      |> Blockers.of(&stands_still?(&1, suspension), suspension.children)

    Enum.each(blockers, fn pid ->
      how = suspension.ours[pid]
      let_go(pid, how, suspension)
      stop(pid, how, suspension)
    end)

    suspension = %{
      suspension
      | released: blockers ++ suspension.released,
        releases: suspension.releases + length(blockers)
    }

    collect(suspension, blockers ++ suspension.waiting, left)
  end

  defp stop(pid, :still, %{standing: standing}), do: Parking.ask(standing, pid)
  defp stop(pid, :suspended, %{standing: %{ref: ref}}), do: SysMessage.send(pid, ref, :suspend)

  defp let_go(pid, :still, %{standing: standing}), do: Parking.release(standing, pid)

  defp let_go(pid, :suspended, _suspension) do
    SysMessage.run_in(pid, &Conversion.drop/1)
    SysMessage.resume_unanswered(pid)
  end

  # One of ours that has handled what was to stop it (sys.erl, suspend_loop/6; a hibernating
  # process hibernates there too).
  defp stands_still?(pid, suspension) do
    pid not in suspension.waiting and
      case suspension.ours do
        %{^pid => :still} -> Parking.standing?(pid)
        %{^pid => :suspended} -> suspended?(pid)
        _ -> false
      end
  end

  @doc "Whether a process is suspended by a system message."
  @spec suspended?(pid()) :: boolean()
  def suspended?(pid) do
    case Process.info(pid, :current_function) do
      {:current_function, {:sys, _suspend_loop, _arity}} -> true
      {:current_function, {:erlang, :hibernate, 3}} -> true
      _ -> false
    end
  end
end
