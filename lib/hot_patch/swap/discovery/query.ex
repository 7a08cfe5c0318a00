defmodule HotPatch.Swap.Discovery.Query do
  @moduledoc false
  # Those who alone know which modules they work for: event managers, wrappers, and servers
  # that began elsewhere. All are asked at once, with one short deadline; who is too busy is
  # named, and blocks nobody.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.Employer
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.Discovery.Wrapper
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Target

  @answer_within 500

  @typedoc """
  What a process is asked: its handlers; what its state has at the end of a path; its
  callback module, with the rule by which it was thought of.
  """
  @type question :: :handlers | {:inside_state, [term()]} | {:callback_module, Target.rule()}

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
    do: Enum.any?(Map.keys(replaced), &Classification.worked_for?/1)

  defp ask_all(questions, replaced) do
    ref = SysMessage.open()
    modules = Map.keys(replaced)
    Enum.each(questions, fn {pid, question} -> ask_one(pid, question, modules, ref) end)

    deadline = System.monotonic_time(:millisecond) + @answer_within

    {silent, answers} =
      SysMessage.collect_until({ref, Map.keys(questions)}, deadline, [], &note/3)

    # Whoever asks may be a process of the system: what comes late must not reach it.
    SysMessage.close(ref)

    {targets, next} =
      Enum.flat_map_reduce(answers, [], fn {pid, answer}, next ->
        case target({pid, questions[pid]}, answer, replaced) do
          {:ask, question} -> {[], [{pid, question} | next]}
          targets -> {targets, next}
        end
      end)

    believed = for pid <- silent, target <- believed(pid, questions[pid], replaced), do: target
    silent = silent -- Enum.map(believed, & &1.pid)
    {more_silent, more} = ask(next, replaced)
    silent = Enum.filter(silent, &blocks?(&1, questions[&1], replaced))
    {more_silent ++ silent, more ++ believed ++ targets}
  end

  # Who was only to be woken up for it, and has no time: it began in the module, and is asked once more when
  # it stands still.
  defp believed(pid, {:callback_module, :initial_call}, replaced) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         {module, :init, 1} when is_map_key(replaced, module) <- dictionary[:"$initial_call"],
         true <- Classification.behaves?(module) do
      [Classification.server(pid, :initial_call, replaced[module])]
    else
      _ -> []
    end
  end

  defp believed(_pid, _question, _replaced), do: []

  # gen_event answers get_modules, as release_handler asks it (gen_event.erl, handle_msg).
  defp ask_one(pid, :handlers, _modules, ref),
    do: send(pid, {self(), {self(), SysMessage.tag(ref, pid)}, :get_modules})

  defp ask_one(pid, {:inside_state, path}, _modules, ref),
    do: SysMessage.run_in(pid, &Wrapper.tell(&1, path, ref))

  defp ask_one(pid, {:callback_module, _rule}, modules, ref),
    do: Employer.ask(pid, modules, ref)

  defp note(pid, answer, answers), do: {:done, [{pid, answer} | answers]}

  # A server that began elsewhere is most likely somebody else's: that it is busy is no
  # reason to refuse a patch, unless it is busy in a module that the patch changes.
  defp blocks?(pid, {:callback_module, rule}, replaced) when rule in [:entered_elsewhere, :loop],
    do: Stacktrace.any?(pid, replaced)

  defp blocks?(_pid, _question, _replaced), do: true

  defp target({pid, {:callback_module, rule}}, answer, replaced) do
    case Employer.read(answer) do
      {:works_for, [module | below]} ->
        Classification.works_for(pid, {module, below}, rule, replaced)

      {:foreign, loop, module} when is_map_key(replaced, module) ->
        [Classification.foreign(pid, loop, replaced[module])]

      _unknown ->
        []
    end
  end

  defp target({pid, question}, modules, replaced) when is_list(modules) do
    case for module <- Enum.uniq(modules), is_map_key(replaced, module), do: module do
      [] ->
        []

      changed ->
        {kind, rule} = asked_as(question)
        modules = Enum.map(changed, &{&1, Classification.change_code?(replaced[&1], [3])})
        [Classification.target(pid, kind, rule, modules)]
    end
  end

  defp target(_asked, _no_modules, _replaced), do: []

  defp asked_as(:handlers), do: {:event_manager, :handlers}
  defp asked_as({:inside_state, _path}), do: {:wrapper, :inside_state}
end
