defmodule HotPatch.Swap.Discovery.Idleness do
  @moduledoc false
  # Whether a gen_statem can have changed its callback module since it was looked at: to read that again takes
  # longer than all else that it does to stand still. The VM counts the calls that a process makes, its
  # reductions, and that is exact: to come to where it is asked takes so many, and to handle before that an event that
  # changes the callback module so many more. What that is at least a process of our own shows, in whichever
  # way it is done. One that has made fewer has not done it. What others do to a process meanwhile
  # (process_info, a garbage collection) costs it some, too, and makes it look busy at worst: then it reads.

  alias HotPatch.Swap.SysMessage

  @runs 5
  # Calls that a callback may have less than ours.
  @spare 4
  @answer_within 5_000

  @doc """
  The reductions up to which no callback module was changed, from when a process was looked at to when it is
  asked; nil where that cannot be told. It is learnt once.
  """
  @spec most() :: non_neg_integer() | nil
  def most do
    code = for module <- [:gen_statem, :sys, __MODULE__], do: module.module_info(:md5)

    case :persistent_term.get(__MODULE__, nil) do
      {^code, most} ->
        most

      _unknown ->
        most = learn()
        :persistent_term.put(__MODULE__, {code, most})
        most
    end
  end

  defp learn do
    pid = :proc_lib.spawn(:gen_statem, :enter_loop, [__MODULE__, [], nil, nil])
    # The first time it comes to its loop, too.
    _first = cost(pid, [])
    idle = cost(pid, [])
    changed = for _run <- 1..@runs, event <- [:change, :push, :pop], do: cost(pid, [event])
    Process.exit(pid, :kill)
    if nil not in [idle | changed], do: below(idle, Enum.min(changed) - @spare)
  end

  # Where the two are as good as the same, it tells nothing.
  defp below(idle, most) when most >= idle + @spare, do: most
  defp below(_idle, _most), do: nil

  defp cost(pid, events) do
    [_words, {:reductions, before}] = Process.info(pid, [:total_heap_size, :reductions])
    _text = Process.info(pid, :backtrace)
    for event <- events, do: send(pid, event)
    ref = SysMessage.open()
    tell = fn state, now -> told(state, now, ref) end
    SysMessage.run_in(pid, fn state -> tell.(state, now()) end)
    note = fn _pid, now, nil -> {:done, now} end
    {_none, now} = SysMessage.collect({ref, [pid]}, @answer_within, nil, note)
    SysMessage.close(ref)
    now && now - before
  end

  defp told(state, now, ref) do
    SysMessage.tell(ref, ref, now)
    state
  end

  @doc "The reductions of the calling process."
  @spec now() :: non_neg_integer()
  def now do
    {:reductions, now} = :erlang.process_info(self(), :reductions)
    now
  end

  @doc "What a gen_statem asks of its callback module before it enters its loop."
  @spec callback_mode() :: :handle_event_function
  def callback_mode, do: :handle_event_function

  @doc "The least that a change of the callback module can be."
  @spec handle_event(:info, :change | :push | :pop, term(), term()) ::
          :gen_statem.event_handler_result(term())
  def handle_event(:info, :change, _state, _data),
    do: {:keep_state_and_data, {:change_callback_module, __MODULE__}}

  def handle_event(:info, :push, _state, _data),
    do: {:keep_state_and_data, {:push_callback_module, __MODULE__}}

  def handle_event(:info, :pop, _state, _data), do: {:keep_state_and_data, :pop_callback_module}
end
