defmodule HotPatch.Swap.SysMessage do
  @moduledoc false
  # System messages made by hand, so that thousands can be under way at once: OTP's
  # functions in :sys wait for each answer. gen_server, gen_statem, gen_event, supervisor
  # and special processes answer them alike on OTP 25 to 29 (sys.erl, handle_system_msg/6).
  #
  # Answers arrive as `{tag, answer}` with the tag that was sent; the tag here is
  # `{ref, pid}`, so that one receive takes them all in the order of their arrival.

  # A monitor for each process would cost more than all else here, so the dead are looked
  # for only when no answer comes for a while.
  @look_for_dead 20

  @doc "Sends one system message; the answer comes as `{{ref, pid}, answer}`."
  @spec send(pid(), reference(), term()) :: :ok
  def send(pid, ref, message) do
    _ = Kernel.send(pid, {:system, {self(), {ref, pid}}, message})
    :ok
  end

  @doc "Resumes without an answer."
  @spec resume_unanswered(pid()) :: :ok
  def resume_unanswered(pid), do: unanswered(pid, :resume)

  @doc """
  Has a process run a fun over its state. The answer would carry a copy of the whole state,
  so it is addressed to a process that is long gone; a fun that has something to say sends
  it by itself. Messages of one sender keep their order: what follows sees the effect.
  """
  @spec run_in(pid(), (term() -> term())) :: :ok
  def run_in(pid, fun), do: unanswered(pid, {:replace_state, fun})

  @doc """
  Collects the answers of a set of processes until all have answered or the deadline has
  passed; processes that die are taken out. `deadline` is monotonic time in milliseconds.
  Gives the processes that owe an answer still. `fun` may end it with `{:halt, acc}`.
  """
  @spec collect(
          reference(),
          MapSet.t(pid()),
          integer(),
          acc,
          (pid(), term(), acc ->
             {:done | :more | :halt, acc})
        ) ::
          {MapSet.t(pid()), acc}
        when acc: term()
  def collect(ref, waiting, deadline, acc, fun) do
    if MapSet.size(waiting) == 0 do
      {waiting, acc}
    else
      collect_one(ref, waiting, deadline, acc, fun)
    end
  end

  defp collect_one(ref, waiting, deadline, acc, fun) do
    left = deadline - System.monotonic_time(:millisecond)

    receive do
      {{^ref, pid}, answer} ->
        case fun.(pid, answer, acc) do
          {:done, acc} -> collect(ref, MapSet.delete(waiting, pid), deadline, acc, fun)
          {:more, acc} -> collect(ref, waiting, deadline, acc, fun)
          {:halt, acc} -> {waiting, acc}
        end
    after
      max(0, min(left, @look_for_dead)) ->
        alive = MapSet.filter(waiting, &Process.alive?/1)
        if left <= 0, do: {alive, acc}, else: collect(ref, alive, deadline, acc, fun)
    end
  end

  defp unanswered(pid, message) do
    _ = Kernel.send(pid, {:system, {gone(), make_ref()}, message})
    :ok
  end

  defp gone do
    case Process.get({__MODULE__, :gone}) do
      nil ->
        {pid, monitor} = spawn_monitor(fn -> :ok end)

        receive do
          {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
        end

        Process.put({__MODULE__, :gone}, pid)
        pid

      pid ->
        pid
    end
  end
end
