defmodule HotPatch.Swap.Asked do
  @moduledoc false
  # Those who alone know which modules they work for: event managers and wrappers. All are
  # asked at once, with one short deadline; who is too busy is named, and blocks nobody.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Processes
  alias HotPatch.Swap.Recognise
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Wrapper

  @answer_within 500

  @doc "Asks processes, given with their initial calls; gives the silent ones and the targets."
  @spec ask([{pid(), mfa()}], %{module() => Change.t()}) :: {[pid()], [Processes.target()]}
  def ask(to_ask, replaced) do
    ref = make_ref()

    calls =
      for {pid, call} <- to_ask, ask_one(pid, call, ref, replaced), into: %{}, do: {pid, call}

    deadline = System.monotonic_time(:millisecond) + @answer_within
    {silent, answers} = SysMessage.collect_until(ref, Map.keys(calls), deadline, [], &note/3)

    {silent,
     Enum.flat_map(answers, fn {pid, modules} -> target(pid, calls[pid], modules, replaced) end)}
  end

  # gen_event answers get_modules, as release_handler asks it (gen_event.erl, handle_msg).
  # Asked only if a changed module can be a handler at all: any manager may be busy.
  defp ask_one(pid, {:gen_event, _, _}, ref, replaced) do
    if Enum.any?(Map.keys(replaced), &Recognise.exports?(&1, [{:handle_event, 2}])) do
      send(pid, {self(), {self(), {ref, pid}}, :get_modules})
    end
  end

  defp ask_one(pid, {module, _, _}, ref, _replaced) do
    path = Wrapper.path(module)
    asker = self()
    SysMessage.run_in(pid, &Wrapper.tell(&1, path, asker, ref))
  end

  defp note(pid, modules, answers) when is_list(modules), do: {:done, [{pid, modules} | answers]}
  defp note(_pid, _neither, answers), do: {:done, answers}

  defp target(pid, call, modules, replaced) do
    {kind, rule, arities} =
      if match?({:gen_event, _, _}, call),
        do: {:event_manager, :handlers, [3]},
        else: {:wrapper, :inside_state, [3]}

    case for module <- Enum.uniq(modules), is_map_key(replaced, module), do: module do
      [] ->
        []

      changed ->
        modules = Enum.map(changed, &{&1, Recognise.change_code?(replaced[&1], arities)})
        [Recognise.target(pid, kind, rule, modules)]
    end
  end
end
