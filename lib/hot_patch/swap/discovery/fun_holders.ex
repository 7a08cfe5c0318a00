defmodule HotPatch.Swap.Discovery.FunHolders do
  @moduledoc false
  # Processes that hold funs which changed modules have made: what has to be made anew with the change
  # (HotPatch.Swap.FunRenewal). Nobody is asked: the VM shows the values on a stack, and with them the
  # state of whoever waits in a loop, as text (process_info(Pid, backtrace)), and a fun in it as
  # `#Fun<Module.Index.Uniq>`.
  #
  # The text does not show what funs were made with, so that a fun of any module may have one of those within
  # it; and who hibernates has no stack. Where such a process is a server or a supervisor it is asked, by a
  # function that it runs over its state. Who is busy then, or is none, is told as `:others`.
  #
  # What the text does not show either: messages that wait in a mailbox, and what is in the dictionary.
  # Of the changed modules' own processes any fun will do, and their state and dictionary are walked
  # along when they stand still. A large heap gives a large text: it is not looked at, and told as that.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Discovery.Classification
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.FunRenewal
  alias HotPatch.Swap.Hosted
  alias HotPatch.Swap.SysMessage
  alias HotPatch.Swap.Target

  # Words of a heap up to which its text is looked at.
  @most_words 100_000

  # Where whoever waits for a message in a behaviour's loop is, or is suspended; how often it is looked.
  @loops [:gen_server, :gen_statem, :gen_event, :sys]
  @looks 20

  # Milliseconds that those that hibernate have.
  @answer_within 500

  @typedoc "By module the uniqs of funs that are of no interest."
  @type wanted :: %{module() => [non_neg_integer()]}
  @type seen :: {:holds, [module(), ...]} | :others | :none | :unseen

  @typedoc "What a text shows."
  @type shown :: seen()

  @typedoc "What to look for in texts."
  @opaque patterns :: {:binary.cp() | nil, %{binary() => module()}, wanted()}

  @doc "The funs that changes are about."
  @spec wanted(%{module() => Change.t()}) :: wanted()
  def wanted(replaced) do
    case FunRenewal.table(Map.values(replaced)) do
      nil -> %{}
      %{modules: wanted} -> wanted
    end
  end

  @doc """
  Of processes those that have to stand still for the funs that they hold: those of changed
  modules that would not otherwise, and those of other modules. Of some it is known what their text shows.
  """
  @spec among([{pid(), shown() | nil}], [Target.t()], [Target.t()], wanted()) ::
          {own :: [Target.t()], others :: [Target.t()]}
  def among(_processes, _targets, _unpaused, wanted) when map_size(wanted) == 0, do: {[], []}

  def among(processes, targets, unpaused, wanted) do
    standing = MapSet.new(targets, & &1.pid)
    by_pid = Map.new(unpaused, &{&1.pid, &1})

    {unread, shown} =
      processes
      |> Enum.reject(fn {pid, _shown} -> pid in standing end)
      |> Enum.split_with(&match?({_pid, nil}, &1))

    (asked(shown, wanted) ++ look(Enum.map(unread, &elem(&1, 0)), wanted))
    |> Enum.flat_map(fn {pid, seen} -> target(by_pid[pid], pid, seen, wanted) end)
    |> Enum.split_with(&(&1.rule != :holds_fun))
  end

  # Of another module.
  defp target(nil, pid, {:holds, modules}, _wanted) do
    case kind(pid) do
      nil ->
        []

      kind ->
        modules = Enum.map(modules, &{&1, false})
        [%Target{pid: pid, kind: kind, rule: :holds_fun, modules: modules, holds?: true}]
    end
  end

  defp target(nil, _pid, _seen, _wanted), do: []
  defp target(_own, _pid, :none, _wanted), do: []

  defp target(own, _pid, _seen, wanted) do
    if Enum.any?(own.modules, fn {module, _} -> is_map_key(wanted, module) end),
      do: [%{own | holds?: true}],
      else: []
  end

  # Whoever is in a behaviour's loop answers system messages. Nil of who is in none, and of ours.
  defp kind(pid) do
    call = initial_call(pid)

    cond do
      :application.get_application(pid) == {:ok, :hot_patch} -> nil
      not waits?(pid, @looks) -> nil
      match?({:gen_event, _function, _arity}, call) -> :event_manager
      Stacktrace.in_loop?(pid, fn _stack -> true end) -> :holder
      Stacktrace.hibernates?(pid) and behaves?(call) -> :holder
      true -> nil
    end
  end

  # One that is in a callback for long is not waited for: a change of another module is not to fail
  # because of it. It keeps what it holds, and is named.
  defp waits?(_pid, 0), do: false

  defp waits?(pid, looks) do
    case Process.info(pid, :current_function) do
      {:current_function, {module, _function, _arity}} when module in @loops ->
        true

      {:current_function, {:erlang, :hibernate, 3}} ->
        true

      nil ->
        false

      _busy ->
        receive do
        after
          1 -> waits?(pid, looks - 1)
        end
    end
  end

  defp initial_call(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         do: dictionary[:"$initial_call"]
  end

  defp behaves?({module, :init, 1}), do: Classification.behaves?(module)
  defp behaves?({:supervisor, _module, _arity}), do: true
  defp behaves?(call), do: Hosted.library(call) != nil

  @doc "What the text of each process shows; those that are dead are left out."
  @spec look([pid()], wanted()) :: [{pid(), seen()}]
  def look(pids, wanted) when map_size(wanted) == 0, do: Enum.map(pids, &{&1, :none})

  def look(pids, wanted) do
    patterns = patterns(wanted)
    pids |> List.delete(self()) |> Lookers.look(&look_at_each(&1, patterns)) |> asked(wanted)
  end

  # Of some the text is not enough.
  defp asked(seen, wanted) do
    {asleep, seen} = Enum.split_with(seen, &match?({_pid, :asleep}, &1))
    {others, seen} = Enum.split_with(seen, &match?({_pid, :others}, &1))

    {servers, no_servers} =
      Enum.split_with(asleep, fn {pid, _} -> pid |> initial_call() |> behaves?() end)

    {waiting, busy} = Enum.split_with(others, fn {pid, _} -> waits_in_loop?(pid) end)

    Enum.concat([
      ask(servers, :unseen, wanted),
      ask(waiting, :others, wanted),
      for({pid, :asleep} <- no_servers, do: {pid, :unseen}),
      busy,
      seen
    ])
  end

  defp waits_in_loop?(pid) do
    match?(
      {:current_function, {module, _, _}} when module in @loops,
      Process.info(pid, :current_function)
    ) and
      not match?({:gen_event, _, _}, initial_call(pid)) and
      Stacktrace.in_loop?(pid, fn _stack -> true end) and
      :application.get_application(pid) != {:ok, :hot_patch}
  end

  # Who is asked wakes up, and goes to sleep again. Who does not answer is what it was.
  defp ask([], _otherwise, _wanted), do: []

  defp ask(some, otherwise, wanted) do
    pids = Enum.map(some, &elem(&1, 0))
    ref = SysMessage.open()
    Enum.each(pids, fn pid -> SysMessage.run_in(pid, &tell(&1, wanted, ref)) end)
    deadline = System.monotonic_time(:millisecond) + @answer_within

    {silent, answers} =
      SysMessage.collect_until({ref, pids}, deadline, [], fn pid, modules, answers ->
        {:done, [{pid, if(modules == [], do: :none, else: {:holds, modules})} | answers]}
      end)

    SysMessage.close(ref)
    answers ++ Enum.map(silent, &{&1, otherwise})
  end

  # Runs inside.
  defp tell(state, wanted, ref) do
    SysMessage.tell(ref, ref, FunRenewal.makers([state | Process.get()], wanted))
    state
  end

  defp look_at_each(pids, patterns) do
    for pid <- pids,
        {:total_heap_size, words} <- [Process.info(pid, :total_heap_size)],
        seen = seen(pid, words, patterns),
        seen != :dead,
        do: {pid, seen}
  end

  defp seen(_pid, words, _patterns) when words > @most_words, do: :unseen

  defp seen(pid, _words, patterns) do
    if Stacktrace.hibernates?(pid), do: :asleep, else: shown(pid, patterns)
  end

  defp shown(pid, patterns) do
    case Process.info(pid, :backtrace) do
      {:backtrace, text} -> in_text(text, patterns)
      nil -> :dead
    end
  end

  @doc "What is looked for in texts."
  @spec patterns(wanted()) :: patterns()
  def patterns(wanted) when map_size(wanted) == 0, do: {nil, %{}, wanted}

  def patterns(wanted) do
    names = Map.new(wanted, fn {module, _uniqs} -> {"#Fun<#{module}.", module} end)
    {:binary.compile_pattern(Map.keys(names)), names, wanted}
  end

  @doc "What a text shows of funs."
  @spec in_text(binary(), patterns()) :: shown()
  def in_text(_text, {nil, _names, _wanted}), do: :none

  def in_text(text, {pattern, names, wanted}) do
    found =
      for {from, size} <- :binary.matches(text, pattern),
          module = names[binary_part(text, from, size)],
          uniq = uniq(text, from + size),
          uniq not in wanted[module],
          uniq: true,
          do: module

    cond do
      found != [] -> {:holds, found}
      :binary.match(text, "#Fun<") != :nomatch -> :others
      true -> :none
    end
  end

  # Behind the index and a dot.
  defp uniq(text, from) do
    with rest = binary_part(text, from, byte_size(text) - from),
         {_index, "." <> rest} <- Integer.parse(rest),
         {uniq, ">" <> _} <- Integer.parse(rest) do
      uniq
    else
      _ -> nil
    end
  end
end
