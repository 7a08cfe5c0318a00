defmodule HotPatch.Swap.Description do
  @moduledoc false
  # Processes and failures in words, for reports.

  alias HotPatch.Support.Cause

  @most_named 3

  @doc "A process and what it is doing."
  @spec process(pid()) :: String.t()
  def process(pid) do
    case Process.info(pid, [:current_stacktrace, :status]) do
      nil ->
        "#{inspect(pid)} (dead by now)"

      [current_stacktrace: stack, status: :suspended] ->
        "#{name(pid)} in #{place(stack)}, held by :erlang.suspend_process/1#{by(pid)}: it does nothing " <>
          "until it is resumed by who holds it"

      [current_stacktrace: stack, status: _status] ->
        "#{name(pid)} in #{place(stack)}"
    end
  end

  # Not busy, but held from outside: nobody else can let it go.
  defp by(pid) do
    case for other <- Process.list(),
             {:suspending, list} <- [Process.info(other, :suspending)],
             List.keymember?(list, pid, 0),
             do: other do
      [] -> ""
      holders -> " of " <> Enum.map_join(holders, ", ", &name/1)
    end
  end

  @doc "Processes in words, the first few of them one by one."
  @spec processes([pid()]) :: String.t()
  def processes(pids) do
    named = pids |> Enum.take(@most_named) |> Enum.map_join("; ", &process/1)

    if length(pids) > @most_named,
      do: "#{named}; and #{length(pids) - @most_named} more",
      else: named
  end

  @doc "The first few of some processes by name."
  @spec names([pid()]) :: String.t()
  def names(pids) do
    named = pids |> first_names() |> Enum.join(", ")
    if length(pids) > @most_named, do: "#{named}, ...", else: named
  end

  @doc "The same, each for itself."
  @spec first_names([pid()]) :: [String.t()]
  def first_names(pids), do: pids |> Enum.take(@most_named) |> Enum.map(&name/1)

  @doc "That processes had to be asked for the modules they work for, and did not answer."
  @spec silent([pid()]) :: String.t()
  def silent(pids) do
    "#{processes(pids)} had to be asked for the modules they work for and did not answer in time, " <>
      "nothing was loaded: try again"
  end

  @doc "That old code is in use, by whom, and what can be done."
  @spec in_use([pid()]) :: String.t()
  def in_use([]), do: "is in use by processes that come and go: try again"

  def in_use(pids) do
    more = if length(pids) > @most_named, do: " and #{length(pids) - @most_named} more", else: ""
    named = pids |> Enum.take(@most_named) |> Enum.map_join(", ", &process/1)

    "is still in use by #{named}#{more}: wait until they leave it, or apply with purge: :force, " <>
      "which kills them"
  end

  @doc "The same of the old code of a module."
  @spec old_code(module(), [pid()]) :: String.t()
  def old_code(module, pids), do: "old code of #{inspect(module)} #{in_use(pids)}"

  @doc "A code_change that failed in a process, or what is tried of it beforehand."
  @spec failure({pid(), module(), term()}, String.t()) :: String.t()
  def failure(failed, what \\ "code_change")

  def failure({pid, module, :too_long}, what), do: too_long(pid, module, what)

  def failure({pid, module, :ended}, what) do
    "#{what} of #{inspect(module)} ended #{inspect(pid)}: the process died while it ran, as of an exit signal of " <>
      "what it is linked to, or of its max_heap_size"
  end

  def failure({pid, module, reason}, what) do
    "#{what} of #{inspect(module)} failed in #{name(pid)}: #{reason(module, reason)}"
  end

  @doc "A code_change that does not end; it may still be in it."
  @spec too_long(pid(), module(), String.t()) :: String.t()
  def too_long(pid, module, what) do
    "#{what} of #{inspect(module)} took too long in #{unshadow(process(pid))}"
  end

  @doc "A process that died in the new code."
  @spec crash({pid(), module(), term()}) :: String.t()
  def crash({pid, module, reason}), do: "#{inspect(pid)} died of #{reason(module, reason)}"

  @doc "Those that failed when the new code was current already, why it stays, and what that means."
  @spec failures([{pid(), module(), term(), why :: String.t()}]) :: String.t()
  def failures([{pid, module, reason, why} | rest]) do
    others = if rest == [], do: "", else: " and #{length(rest)} more"

    left = if reason != :ended, do: ", and these processes kept their old state: restart them"

    "#{failure({pid, module, reason})}#{others}; the new code is current and could not be taken back " <>
      "(#{why})#{left}"
  end

  @doc "Those that failed before anything was loaded."
  @spec refused([{pid(), module(), term()}]) :: String.t()
  def refused([first | _]), do: failure(first)

  # As caught in the process itself, or as a behaviour reports it.
  defp reason(module, {kind, reason, stack})
       when kind in [:error, :exit, :throw] and is_list(stack) do
    "#{unshadow(Cause.of(kind, reason, stack))} in #{where(module, stack)}"
  end

  defp reason(module, {:EXIT, {reason, [{_, _, _, _} | _] = stack}}),
    do: reason(module, {:error, reason, stack})

  defp reason(_module, {:error, {:child_of_a_module_that_goes, child}}),
    do: "it names a child of #{inspect(child)}, a module that goes with this change"

  defp reason(_of, {:error, {:not_its_socket, _module}}),
    do: "it did not give back the socket that it was given, with what it has changed in it"

  defp reason(_of, {:error, {:unknown_state_of_library, _module}}),
    do:
      "Phoenix keeps its state in another form than is known here, so that its socket was not found in it: " <>
        "apply with transition: :none if the new code takes the state as it is, or restart the nodes"

  defp reason(_module, {:works_for, other}),
    do: "it works for #{inspect(other)} now, and not for this module as it did; try again"

  defp reason(_module, :works_for_another),
    do: "it works for another module now, and not for this one as it did; try again"

  defp reason(_module, reason), do: short(reason)

  # A shadow is nobody's business but ours.
  defp unshadow(text), do: String.replace(text, ~r/:"?(?:Elixir\.)?([\w.]+)@hot_patch"?/, "\\1")

  @doc "The place in a stack where a module failed."
  @spec where(module(), Exception.stacktrace()) :: String.t()
  def where(module, stack),
    do: module |> own(stack) |> Exception.format_stacktrace_entry() |> unshadow()

  # The place in the callback module rather than in what it calls; a shadow's name is told
  # as that of its module. Arguments are states: too long, and nobody else's business.
  defp own(module, stack) do
    prefix = Atom.to_string(module)
    own? = fn {name, _, _, _} -> String.starts_with?(Atom.to_string(name), prefix) end
    {name, function, arity, location} = Enum.find(stack, hd(stack), own?)
    arity = if is_list(arity), do: length(arity), else: arity
    {if(own?.({name, 0, 0, 0}), do: module, else: name), function, arity, location}
  end

  defp name(pid) do
    case Process.info(pid, :registered_name) do
      {:registered_name, name} when is_atom(name) -> "#{inspect(pid)} (#{inspect(name)})"
      _ -> inspect(pid)
    end
  end

  defp place(stack) do
    stack |> Enum.take(3) |> Enum.map_join(" < ", &Exception.format_stacktrace_entry/1)
  end

  defp short(term), do: inspect(term, limit: 20, printable_limit: 200)
end
