defmodule HotPatch.Swap.Suspension do
  @moduledoc false
  # Suspends a set of processes before a deadline, whatever they are doing with each other.
  #
  # The suspend deadlock: A is inside a call to B, and B is suspended already, so A can never
  # answer its own suspend. When no answer comes for a moment, those whom the others wait
  # for are resumed and suspended again at once: what waits in their mailboxes comes before
  # that second suspend, so they answer A and then stand still.

  alias HotPatch.Swap.Blockers
  alias HotPatch.Swap.Guard
  alias HotPatch.Swap.SysMessage

  # Enough to keep the schedulers busy, few enough that answers do not pile up unread.
  @window 1_000
  # Milliseconds without an answer after which it is looked who blocks whom.
  @stall 3
  # As many as one look takes in; the others get their turn at the next.
  @look_at 200

  @typedoc """
  `sent` are all that were sent a suspend, by window; those who still owe the answer are in
  `waiting`. Who stands still follows from the two, and is worked out only when it matters.
  """
  @type t :: %__MODULE__{
          guard: pid(),
          ref: reference(),
          deadline: integer(),
          sent: [[pid()]],
          waiting: MapSet.t(pid()),
          children: %{pid() => [pid()]},
          releases: non_neg_integer()
        }
  @enforce_keys [:guard, :ref, :deadline]
  defstruct [
    :guard,
    :ref,
    :deadline,
    sent: [],
    waiting: MapSet.new(),
    children: %{},
    releases: 0
  ]

  @doc "Nobody suspended yet. `deadline` is monotonic time in milliseconds."
  @spec new(pid(), integer()) :: t()
  def new(guard, deadline), do: %__MODULE__{guard: guard, ref: make_ref(), deadline: deadline}

  @doc "Suspends more processes; the error is that some did not answer before the deadline."
  @spec add(t(), [pid()], %{pid() => [pid()]}) :: {:ok | :late, t()}
  def add(suspension, pids, children) do
    Guard.tell(suspension.guard, pids)

    pids
    |> Enum.chunk_every(@window)
    |> Enum.reduce_while({:ok, %{suspension | children: children}}, &add_window/2)
    |> finish()
  end

  # A window's stragglers do not hold up the next; all must answer in the end.
  defp add_window(window, {:ok, suspension}) do
    Enum.each(window, &SysMessage.send(&1, suspension.ref, :suspend))

    suspension = %{
      suspension
      | sent: [window | suspension.sent],
        waiting: Enum.into(window, suspension.waiting)
    }

    case collect(suspension, div(length(window), 10)) do
      {:ok, suspension} -> {:cont, {:ok, suspension}}
      late -> {:halt, late}
    end
  end

  defp finish({:ok, suspension}), do: collect(suspension, 0)
  defp finish(late), do: late

  # Until no more than `left` are waited for.
  defp collect(%{ref: ref} = suspension, left) do
    case collect(ref, suspension.waiting, MapSet.size(suspension.waiting), left) do
      {:ok, waiting} -> {:ok, %{suspension | waiting: waiting}}
      {:stalled, waiting} -> stalled(%{suspension | waiting: waiting}, left)
    end
  end

  defp collect(_ref, waiting, size, left) when size <= left, do: {:ok, waiting}

  defp collect(ref, waiting, size, left) do
    receive do
      {{^ref, pid}, _ok} -> collect(ref, MapSet.delete(waiting, pid), size - 1, left)
    after
      @stall -> {:stalled, waiting}
    end
  end

  defp stalled(suspension, left) do
    suspension = %{suspension | waiting: MapSet.filter(suspension.waiting, &Process.alive?/1)}

    cond do
      MapSet.size(suspension.waiting) <= left -> {:ok, suspension}
      System.monotonic_time(:millisecond) >= suspension.deadline -> {:late, suspension}
      true -> suspension |> release() |> collect(left)
    end
  end

  defp release(suspension) do
    suspended = MapSet.difference(MapSet.new(Enum.concat(suspension.sent)), suspension.waiting)

    blockers =
      suspension.waiting
      |> Enum.take(@look_at)
      |> Blockers.of(&MapSet.member?(suspended, &1), suspension.children)

    Enum.each(blockers, fn pid ->
      SysMessage.resume_unanswered(pid)
      SysMessage.send(pid, suspension.ref, :suspend)
    end)

    %{
      suspension
      | waiting: Enum.into(blockers, suspension.waiting),
        releases: suspension.releases + length(blockers)
    }
  end

  @doc "How many stand still."
  @spec count(t()) :: non_neg_integer()
  def count(suspension) do
    Enum.sum(Enum.map(suspension.sent, &length/1)) - MapSet.size(suspension.waiting)
  end
end
