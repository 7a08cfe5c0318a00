defmodule HotPatch.Swap.Discovery.Query do
  @moduledoc false
  # Those who alone know which modules they work for: event managers, wrappers, and servers
  # that began elsewhere. All are asked at once, with one short deadline; who is too busy is
  # named, and blocks nobody.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.CallbackModule
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.Wrapper
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Target

  @answer_within 500

  @typedoc """
  What a process is asked: its handlers; what its state has at the end of a path; its
  callback module, with the rule by which it was thought of.
  """
  @type question ::
          :handlers | {:inside_state, [term()]} | {:callback_module, :entered_elsewhere | :label}

  @typep replaced :: %{module() => Change.t()}

  @doc """
  Asks processes; gives the targets among them, and the silent ones that may be targets.
  """
  @spec ask([{pid(), question()}], replaced()) :: {[pid()], [Target.t()]}
  def ask(to_ask, replaced) do
    case Enum.filter(to_ask, fn {_pid, question} -> worth?(question, replaced) end) do
      [] -> {[], []}
      to_ask -> ask_all(Map.new(to_ask), replaced)
    end
  end

  # Asked only if a changed module can be a handler, or a callback module, at all: any
  # process may be busy.
  defp worth?(:handlers, replaced),
    do: Enum.any?(Map.keys(replaced), &Classification.exports?(&1, [{:handle_event, 2}]))

  defp worth?({:inside_state, _path}, _replaced), do: true

  defp worth?({:callback_module, _rule}, replaced),
    do: Enum.any?(Map.keys(replaced), &Classification.behaves?/1)

  defp ask_all(questions, replaced) do
    ref = SysMessage.open()
    known = known(questions)
    Enum.each(known, &CallbackModule.ask(&1, ref))
    Enum.each(questions, fn {pid, question} -> ask_one(pid, question, ref) end)

    deadline = System.monotonic_time(:millisecond) + @answer_within
    pids = known ++ Map.keys(questions)
    {silent, answers} = SysMessage.collect_until({ref, pids}, deadline, [], &note/3)
    # Whoever asks may be a process of the system: what comes late must not reach it.
    SysMessage.close(ref)
    CallbackModule.stop_known(known)

    {of_known, answers} = Enum.split_with(answers, fn {pid, _answer} -> pid in known end)
    places = CallbackModule.places(for {_pid, answer} <- of_known, do: answer)

    {Enum.filter(silent -- known, &blocks?(&1, questions[&1], replaced)),
     Enum.flat_map(answers, fn {pid, answer} ->
       target({pid, questions[pid]}, answer, places, replaced)
     end)}
  end

  # To be understood, an answer about a callback module needs those of known processes.
  defp known(questions) do
    if Enum.any?(questions, &match?({_pid, {:callback_module, _rule}}, &1)),
      do: CallbackModule.start_known(),
      else: []
  end

  # gen_event answers get_modules, as release_handler asks it (gen_event.erl, handle_msg).
  defp ask_one(pid, :handlers, ref),
    do: send(pid, {self(), {self(), SysMessage.tag(ref, pid)}, :get_modules})

  defp ask_one(pid, {:inside_state, path}, ref),
    do: SysMessage.run_in(pid, &Wrapper.tell(&1, path, ref))

  defp ask_one(pid, {:callback_module, _rule}, ref), do: CallbackModule.ask(pid, ref)

  defp note(pid, answer, answers), do: {:done, [{pid, answer} | answers]}

  # A server that began elsewhere is most likely somebody else's: that it is busy is no
  # reason to refuse a patch, unless it is busy in a module that the patch changes.
  defp blocks?(pid, {:callback_module, :entered_elsewhere}, replaced),
    do: Stacktrace.any?(pid, replaced)

  defp blocks?(_pid, _question, _replaced), do: true

  defp target({pid, {:callback_module, rule}}, values, places, replaced) do
    case Map.fetch(replaced, CallbackModule.read(values, places)) do
      {:ok, change} -> [Classification.server(pid, rule, change)]
      :error -> []
    end
  end

  defp target({pid, question}, modules, _places, replaced) when is_list(modules) do
    case for module <- Enum.uniq(modules), is_map_key(replaced, module), do: module do
      [] ->
        []

      changed ->
        {kind, rule} = asked_as(question)
        modules = Enum.map(changed, &{&1, Classification.change_code?(replaced[&1], [3])})
        [Classification.target(pid, kind, rule, modules)]
    end
  end

  defp target(_asked, _no_modules, _places, _replaced), do: []

  defp asked_as(:handlers), do: {:event_manager, :handlers}
  defp asked_as({:inside_state, _path}), do: {:wrapper, :inside_state}
end
