defmodule HotPatch.Swap.Discovery.CallbackModule do
  @moduledoc false
  # Which callback module a process in the loop of a gen_server or gen_statem works for now: it need
  # not be the one that it began with (change_callback_module, enter_loop). No system message tells
  # it: the status of a gen_server does not contain it, and asking for that would run the user's
  # format_status and copy the state. But the behaviour has it in hand, where it waits and while it
  # runs a fun over the state (its function system_replace_state/2), and the VM shows the values on
  # a stack as text (process_info(Pid, backtrace)).
  #
  # Where among them it is depends on the OTP version, so it is never guessed: processes of
  # our own, whose callback module is known, show the place. It holds for the very same point
  # of the code only. Where the VM's text is of another form nothing is found.
  #
  # A gen_statem has a stack of callback modules: the first is in whose turn it is, those below come
  # back with pop_callback_module, and all of them work on the same data.

  alias HotPatch.Swap.Discovery.StackText
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.SysMessage

  @typedoc """
  Where the callback module is, by the point in the behaviour's code: on which line of the values, and
  by which steps into it.
  """
  @type places :: %{binary() => {line :: non_neg_integer(), [non_neg_integer()]}}

  @typedoc "The callback module, and for a gen_statem those below it."
  @type stack :: nonempty_list(module())

  # Where our own wait; how often it is looked whether they do.
  @looks 1_000
  @answer_within 5_000

  @doc "Asks a process; its answer under the ref is for `places/1` and `read/2`."
  @spec ask(pid(), reference()) :: :ok
  def ask(pid, ref), do: SysMessage.run_in(pid, &tell(&1, ref))

  @doc """
  The places in the behaviours that this VM runs, where a process waits and where it is asked. They
  are learnt once.
  """
  @spec places() :: places()
  def places do
    code = for module <- [:gen_server, :gen_statem, :sys], do: module.module_info(:md5)

    case :persistent_term.get(__MODULE__, nil) do
      {^code, places} ->
        places

      _unknown ->
        places = learn()
        if map_size(places) > 0, do: :persistent_term.put(__MODULE__, {code, places})
        places
    end
  end

  # From OTP 28 on one that hibernates shows it as well; before, it has no stack.
  defp learn do
    known = start_known()
    asleep = start_asleep()
    ref = SysMessage.open()
    Enum.each(known, &ask(&1, ref))
    deadline = System.monotonic_time(:millisecond) + @answer_within
    note = fn _pid, answer, answers -> {:done, [answer | answers]} end
    {_silent, answers} = SysMessage.collect_until({ref, known}, deadline, [], note)
    SysMessage.close(ref)
    waiting = Enum.map(known ++ asleep, &waiting(&1, @looks))
    stop_known(known ++ asleep)
    places(answers ++ waiting)
  end

  defp start_asleep do
    [
      :proc_lib.spawn_link(:gen_server, :enter_loop, [__MODULE__, [], nil, :hibernate]),
      :proc_lib.spawn_link(:gen_statem, :enter_loop, [__MODULE__, [], nil, nil, [:hibernate]])
    ]
  end

  defp waiting(_pid, 0), do: ""

  defp waiting(pid, looks) do
    text = Stacktrace.text(pid)

    cond do
      first_line(text) |> elem(0) =~ ~r/gen_(server|statem):loop/ ->
        text |> :binary.split("\n\n") |> hd()

      Stacktrace.hibernates?(pid) ->
        ""

      true ->
        receive do
        after
          1 -> waiting(pid, looks - 1)
        end
    end
  end

  @doc "Starts one process of each behaviour whose callback module is this one."
  @spec start_known() :: [pid()]
  def start_known do
    [
      :proc_lib.spawn_link(:gen_server, :enter_loop, [__MODULE__, [], nil]),
      :proc_lib.spawn_link(:gen_statem, :enter_loop, [__MODULE__, [], nil, nil])
    ]
  end

  @doc "Ends the processes that `start_known/0` has started."
  @spec stop_known([pid()]) :: :ok
  def stop_known(pids) do
    Enum.each(pids, fn pid ->
      Process.unlink(pid)
      Process.exit(pid, :kill)
    end)
  end

  @doc "Learns the places from what the known processes have answered, or show where they wait."
  @spec places([binary()]) :: places()
  def places(answers) do
    for {point, values} <- Enum.map(answers, &split/1),
        {way, __MODULE__} <- Enum.take(Enum.filter(atoms(values), &known?/1), 1),
        into: %{},
        do: {point, place(way)}
  end

  # From the innermost bracket to the line; no bracket is around the line itself.
  defp place(way) do
    [line, 0 | steps] = Enum.reverse(way)
    {line, steps}
  end

  @doc "The callback module in an answer, if it can be told."
  @spec read(binary(), places()) :: module() | nil
  def read(answer, places) do
    with [module | _] <- stack(answer, places), do: module
  end

  @doc """
  The callback modules in an answer, or at the beginning of the text of a process that waits; nil where
  they cannot be told.
  """
  @spec stack(binary(), places()) :: stack() | nil
  def stack(text, places) do
    with [{from, _}, {to, _}] <- StackText.first(text, ["(", "\n"]),
         point = binary_part(text, from + 1, to - from - 1),
         %{^point => {line, steps}} <- places,
         value when value != nil <- StackText.value(text, to + 1, line),
         {:ok, modules} <- StackText.atoms_at(value, steps, statem?(point)) do
      modules
    else
      _ -> nil
    end
  end

  defp statem?("gen_statem:" <> _), do: true
  defp statem?(_point), do: false

  @doc "What a gen_statem asks of its callback module before it enters its loop."
  @spec callback_mode() :: :handle_event_function
  def callback_mode, do: :handle_event_function

  @doc "What the text of a process that runs a function over its state shows of that, for `stack/2`."
  @spec inside(binary()) :: binary()
  def inside(text), do: behaviours_own(text)

  # Runs inside.
  defp tell(state, ref) do
    SysMessage.tell(ref, ref, behaviours_own(Stacktrace.text(self())))
    state
  end

  # A line that names the function, then one for each of its values. Line ends within a value
  # are escaped.
  defp behaviours_own(text),
    do: text |> StackText.frame(":system_replace_state/2") |> :binary.copy()

  defp split(answer) do
    {line, values} = first_line(answer)
    # The addresses before it are those of one process, and of the VM.
    {line |> :binary.split("(") |> List.last(), values}
  end

  defp first_line(text) do
    case :binary.split(text, "\n") do
      [line, rest] -> {line, rest}
      [line] -> {line, ""}
    end
  end

  # Every atom with the way to it: how many commas stand before it in each of the brackets
  # around it, from the innermost, and the line at last. All these atoms exist: the text has
  # been made from them.
  defp atoms(values) do
    values
    |> :binary.split("\n", [:global])
    |> Enum.with_index()
    |> Enum.flat_map(fn {line, index} -> atoms_of(line, index) end)
  end

  defp atoms_of(line, index) do
    case line |> :binary.bin_to_list() |> :erl_scan.string() do
      {:ok, tokens, _end} -> tokens |> external([]) |> steps(index)
      {:error, _reason, _end} -> []
    end
  end

  defp steps(tokens, index), do: tokens |> Enum.flat_map_reduce([0, index], &step/2) |> elem(0)

  # The name of a module in a function (`fun m:f/1`) is no value.
  defp external([{:fun, _}, {:atom, _, _}, {:":", _}, {:atom, _, _} | rest], before),
    do: external(rest, before)

  defp external([token | rest], before), do: external(rest, [token | before])
  defp external([], before), do: Enum.reverse(before)

  defp step({open, _}, way) when open in [:"{", :"[", :"<<"], do: {[], [0 | way]}
  defp step({close, _}, [_ | way]) when close in [:"}", :"]", :">>"], do: {[], way}
  defp step({:",", _}, [before | way]), do: {[], [before + 1 | way]}
  # The name of the register is no value.
  defp step({:atom, _, :y}, [0, _index] = way), do: {[], way}
  defp step({:atom, _, atom}, way), do: {[{way, atom}], way}
  defp step(_token, way), do: {[], way}

  defp known?({_way, atom}), do: atom == __MODULE__
end
