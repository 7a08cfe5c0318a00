defmodule HotPatch.Swap.Discovery.Idleness do
  @moduledoc false
  # Whether a gen_statem can have changed its callback module since it was looked at: to read that again takes
  # longer than all else that it does to stand still. The VM counts the calls that a process makes, its
  # reductions, and that is exact: to come to where it is asked takes so many, and to handle before that an event that
  # changes the callback module so many more. What that is at least a process of our own shows, in whichever
  # way it is done. One that has made fewer has not done it. To enter another loop takes less, but makes the stack
  # deeper than that of ours. What others do to a process meanwhile (process_info, a garbage collection) costs it some
  # calls, too, and makes it look busy at worst: then it reads.

  alias HotPatch.Swap.Discovery.Glance
  alias HotPatch.Swap.SysMessage

  @runs 5
  # Calls that a callback may have less than ours.
  @spare 4
  @answer_within 5_000

  @typedoc "Reductions, and how deep the stack is."
  @type measure :: {non_neg_integer(), non_neg_integer()}

  @doc """
  The reductions up to which no callback module was changed, from when a process was looked at to when it is
  asked by `asked/3`, and how deep its stack is then if it is in no other loop; nil where that cannot be told. It is
  learnt once.
  """
  @spec most() :: measure() | nil
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
    _first = measure(pid, [])
    idle = measure(pid, [])
    changed = for _run <- 1..@runs, event <- [:change, :push, :pop], do: measure(pid, [event])
    Process.exit(pid, :kill)
    if nil not in [idle | changed], do: below(idle, changed)
  end

  # Where the two are as good as the same, it tells nothing.
  defp below({idle, depth}, changed) do
    most = (changed |> Enum.map(&elem(&1, 0)) |> Enum.min()) - @spare
    if most >= idle + @spare, do: {most, depth}
  end

  defp measure(pid, events) do
    # As HotPatch.Swap.Discovery.Glance looks.
    %{reductions: before} = Glance.of(pid, true)
    for event <- events, do: send(pid, event)
    ref = SysMessage.open()
    tell = fn state, now, _place -> told(state, now, ref) end
    SysMessage.run_in(pid, asked(tell, fn now, _before, _state -> now end, 0, before))
    note = fn _pid, now, nil -> {:done, now} end
    {_none, now} = SysMessage.collect({ref, [pid]}, @answer_within, nil, note)
    SysMessage.close(ref)
    with {reductions, depth} <- now, do: {reductions - before, depth}
  end

  defp told(state, now, ref) do
    SysMessage.tell(ref, ref, now)
    state
  end

  @doc """
  What a process is asked by, to run it over its state: `look` gets what it measures now, and `go_on` what that has
  found, and the place. Both are funs, so that what they have to do is not in the text of the stack, which `look` may read.
  """
  @spec asked(
          (state, found, place -> state),
          (measure(), before, state -> found),
          place,
          before
        ) :: (state -> state)
        when state: term(), found: term(), place: term(), before: term()
  def asked(go_on, look, place, before),
    do: fn state -> go_on.(state, look.(now(), before, state), place) end

  defp now do
    [{:reductions, reductions}, {:stack_size, depth}] =
      :erlang.process_info(self(), [:reductions, :stack_size])

    {reductions, depth}
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
