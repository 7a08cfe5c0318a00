defmodule HotPatch.Swap.Discovery.CallbackModule do
  @moduledoc false
  # Which callback module a process in the loop of a gen_server or gen_statem works for. No
  # system message tells it: the status of a gen_server does not contain it, and asking for
  # that would run the user's format_status and copy the state. But the behaviour has it in
  # hand while it runs a fun over the state, in its function system_replace_state/2, and the
  # VM shows the values on a stack as text (process_info(Pid, backtrace)).
  #
  # Where among them it is depends on the OTP version, so it is never guessed: processes of
  # our own, whose callback module is known, show the place. It holds for the very same point
  # of the code only. Where the VM's text is of another form nothing is found.

  alias HotPatch.Swap.SysMessage

  @typedoc "Where the callback module is, by the point in the behaviour's code."
  @type places :: %{binary() => [integer()]}

  @doc "Asks a process; its answer under the ref is for `places/1` and `read/2`."
  @spec ask(pid(), reference()) :: :ok
  def ask(pid, ref), do: SysMessage.run_in(pid, &tell(&1, ref))

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

  @doc "Learns the places from what the known processes have answered."
  @spec places([binary()]) :: places()
  def places(answers) do
    for {point, values} <- Enum.map(answers, &split/1),
        {way, __MODULE__} <- Enum.take(Enum.filter(atoms(values), &known?/1), 1),
        into: %{},
        do: {point, way}
  end

  @doc "The callback module in an answer, if it can be told."
  @spec read(binary(), places()) :: module() | nil
  def read(answer, places) do
    {point, values} = split(answer)

    with %{^point => way} <- places,
         {_way, module} <- List.keyfind(atoms(values), way, 0) do
      module
    else
      _ -> nil
    end
  end

  @doc "What a gen_statem asks of its callback module before it enters its loop."
  @spec callback_mode() :: :handle_event_function
  def callback_mode, do: :handle_event_function

  # Runs inside.
  defp tell(state, ref) do
    {:backtrace, text} = Process.info(self(), :backtrace)
    SysMessage.tell(ref, ref, behaviours_own(text))
    state
  end

  # A line that names the function, then one for each of its values. Line ends within a value
  # are escaped.
  defp behaviours_own(text) do
    text
    |> :binary.split("\n\n", [:global])
    |> Enum.find("", fn part -> part |> first_line() |> elem(0) =~ ":system_replace_state/2" end)
    |> :binary.copy()
  end

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
      {:ok, tokens, _end} -> tokens |> Enum.flat_map_reduce([0, index], &step/2) |> elem(0)
      {:error, _reason, _end} -> []
    end
  end

  defp step({open, _}, way) when open in [:"{", :"[", :"<<"], do: {[], [0 | way]}
  defp step({close, _}, [_ | way]) when close in [:"}", :"]", :">>"], do: {[], way}
  defp step({:",", _}, [before | way]), do: {[], [before + 1 | way]}
  # The name of the register is no value.
  defp step({:atom, _, :y}, [0, _index] = way), do: {[], way}
  defp step({:atom, _, atom}, way), do: {[{way, atom}], way}
  defp step(_token, way), do: {[], way}

  defp known?({_way, atom}), do: atom == __MODULE__
end
