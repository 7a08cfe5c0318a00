defmodule HotPatch.Swap.SysMessage do
  @moduledoc false
  # System messages made by hand, so that thousands can be under way at once: OTP's
  # functions in :sys wait for each answer. gen_server, gen_statem, gen_event, supervisor
  # and special processes answer them alike on OTP 25 to 29 (sys.erl, handle_system_msg/6).
  #
  # Answers arrive as `{tag, answer}` with the tag that was sent; the tag here is
  # `{ref, pid}`, so that one receive takes them all in the order of their arrival.

  @type tag :: {reference(), pid()}

  @doc "Sends one system message; the answer comes as `{{ref, pid}, answer}`."
  @spec send(pid(), reference(), term()) :: :ok
  def send(pid, ref, message) do
    _ = Kernel.send(pid, {:system, {self(), {ref, pid}}, message})
    :ok
  end

  @doc """
  Collects the answers of a set of processes until all have answered or the deadline has
  passed; processes that die are taken out. `counts` names those that owe more than one
  answer. `deadline` is monotonic time in milliseconds. Gives the processes that owe an
  answer still.
  """
  @spec collect(
          reference(),
          MapSet.t(pid()),
          %{pid() => pos_integer()},
          integer(),
          acc,
          (pid(), term(), acc -> acc)
        ) :: {MapSet.t(pid()), acc}
        when acc: term()
  def collect(ref, waiting, counts, deadline, acc, fun) do
    if MapSet.size(waiting) == 0 do
      {waiting, acc}
    else
      collect_one(ref, waiting, counts, deadline, acc, fun)
    end
  end

  # A monitor for each process would cost more than all else here, so the dead are looked
  # for only when no answer comes for a while.
  @look_for_dead 20

  defp collect_one(ref, waiting, counts, deadline, acc, fun) do
    left = deadline - System.monotonic_time(:millisecond)

    receive do
      {{^ref, pid}, answer} ->
        {waiting, counts} = answered(pid, waiting, counts)
        collect(ref, waiting, counts, deadline, fun.(pid, answer, acc), fun)
    after
      max(0, min(left, @look_for_dead)) ->
        alive = MapSet.filter(waiting, &Process.alive?/1)

        if left <= 0,
          do: {alive, acc},
          else: collect(ref, alive, counts, deadline, acc, fun)
    end
  end

  defp answered(pid, waiting, counts) do
    case counts do
      %{^pid => owed} when owed > 1 -> {waiting, %{counts | pid => owed - 1}}
      _ -> {MapSet.delete(waiting, pid), counts}
    end
  end
end
