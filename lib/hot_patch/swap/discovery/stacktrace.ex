defmodule HotPatch.Swap.Discovery.Stacktrace do
  @moduledoc false
  # What the stack of a process tells without asking it: whether it is in the loop of a
  # gen_server or a gen_statem, and whose code it runs.

  # The functions of the loops, and those from which they call the callbacks, on OTP 25 to 29
  # (gen_server.erl, gen_statem.erl). The client functions of the same modules, call/3 say, are
  # on the stacks of processes that are no server at all.
  @behaviours [:gen_server, :gen_statem]
  @in_loop ~w(loop decode_msg handle_ try_ system_ wake)
  @in_text ~r/\((?:gen_server|gen_statem):(?:#{Enum.join(@in_loop, "|")})/

  @doc """
  Whether a process is in a behaviour's loop, waiting there or in a callback. A stack deeper
  than the VM shows (eight functions, unless it is told otherwise) is looked at in full only
  if `worth?` says so of what is shown: that takes its text, with all values on it.
  """
  @spec in_loop?(pid(), (Exception.stacktrace() -> boolean())) :: boolean()
  def in_loop?(pid, worth?) do
    stack = shown(pid)
    Enum.any?(stack, &loop?/1) or (cut?(stack) and worth?.(stack) and text(pid) =~ @in_text)
  end

  @doc """
  Whether a process that proc_lib has started is in a loop that somebody has written by hand and
  that does not speak the system messages: not in a behaviour's, nor in one of a module that says
  so, nor about to enter one. Where the stack does not show it, it is not.
  """
  @spec by_hand?(pid()) :: boolean()
  def by_hand?(pid) do
    case Process.info(pid, :current_function) do
      {:current_function, {module, _function, _arity}} when module in [:sys | @behaviours] ->
        false

      {:current_function, {:erlang, :hibernate, 3}} ->
        false

      _ ->
        pid |> shown() |> unspoken?()
    end
  end

  defp unspoken?([]), do: false

  defp unspoken?(stack) do
    not cut?(stack) and not Enum.any?(stack, &(loop?(&1) or begins?(&1) or speaks?(&1)))
  end

  # Started by a behaviour, and still in the callback module's init.
  defp begins?({module, :init_it, _arity, _location}), do: module in [:gen | @behaviours]
  defp begins?(_frame), do: false

  # Suspended, it waits in sys itself.
  defp speaks?({:sys, _function, _arity, _location}), do: true

  defp speaks?({module, _function, _arity, _location}),
    do: function_exported?(module, :system_continue, 3)

  # Of OTP, and what is on the way to any loop.
  @otp [:sys, :proc_lib, :gen, :gen_event, :supervisor, :supervisor_bridge | @behaviours]

  @doc """
  The module in whose loop a process is that speaks the system messages and is none of OTP's
  behaviours; nil if there is none on the part of its stack that the VM shows. The outermost: what
  is called from there may be a client of another.
  """
  @spec foreign_loop(pid()) :: module() | nil
  def foreign_loop(pid) do
    stack = shown(pid)

    if cut?(stack),
      do: nil,
      else: stack |> Enum.reverse() |> Enum.find_value(&speaker/1) |> foreign()
  end

  defp foreign({:foreign, module}), do: module
  defp foreign(_otp), do: nil

  defp speaker({module, _function, _arity, _location} = frame) do
    cond do
      loop?(frame) -> :otp
      module in @otp -> nil
      function_exported?(module, :system_continue, 3) -> {:foreign, module}
      true -> nil
    end
  end

  @beginning [:proc_lib, :erlang]

  @doc "Whether a process that proc_lib has started is still in proc_lib's own code."
  @spec in_proc_lib?(pid()) :: boolean()
  def in_proc_lib?(pid) do
    # Nearly all wait in a loop: what they are in is quicker to see than their stack.
    case Process.info(pid, :current_function) do
      {:current_function, {module, _function, _arity}} when module in @beginning ->
        stack = shown(pid)
        stack != [] and Enum.all?(stack, fn {module, _, _, _} -> module in @beginning end)

      _elsewhere ->
        false
    end
  end

  @doc "Whether a process is a Task, whatever it runs."
  @spec task?(pid()) :: boolean()
  def task?(pid) do
    stack = shown(pid)

    Enum.any?(stack, &match?({Task.Supervised, _, _, _}, &1)) or
      (long?(stack) and small_text(pid) =~ "('Elixir.Task.Supervised':")
  end

  # As many functions as the VM shows, unless it is told otherwise; words of a heap up to which its text is read.
  @shown 8
  @most_words 100_000

  defp long?(stack), do: length(stack) >= @shown

  @doc """
  The innermost of these modules on the stack of a process below the part that the VM shows, which is `stack`; nil where
  there is none, or to read it would take too long.
  """
  @spec deeper(pid(), Exception.stacktrace(), MapSet.t(module())) :: module() | nil
  def deeper(pid, stack, modules),
    do: if(long?(stack), do: pid |> small_text() |> first_in(modules))

  defp first_in("", _modules), do: nil

  # Of a function that will go on the line has its address before it, which no value of a process can have.
  defp first_in(text, modules) do
    names = Map.new(modules, &{"(" <> to_string(:io_lib.write_atom(&1)) <> ":", &1})
    pattern = :binary.compile_pattern(Map.keys(names))

    text
    |> :binary.split("\n", [:global])
    |> Enum.filter(&String.starts_with?(&1, "0x"))
    |> Enum.find_value(fn line ->
      with {from, size} <- :binary.match(line, pattern),
           do: names[binary_part(line, from, size)],
           else: (:nomatch -> nil)
    end)
  end

  defp small_text(pid) do
    case Process.info(pid, :total_heap_size) do
      {:total_heap_size, words} when words <= @most_words -> text(pid)
      _large_or_dead -> ""
    end
  end

  @doc "Whether any of these modules is on the part of a stack that the VM shows."
  @spec any?(pid() | Exception.stacktrace(), %{module() => term()}) :: boolean()
  def any?(stack, modules) when is_list(stack),
    do: Enum.any?(stack, &is_map_key(modules, elem(&1, 0)))

  def any?(pid, modules), do: pid |> shown() |> any?(modules)

  @doc "Whether a module is anywhere on the stack of a process."
  @spec runs?(pid(), module()) :: boolean()
  def runs?(pid, module) do
    stack = shown(pid)
    # The text shows a call as `(module:function/arity + offset)`.
    any?(stack, %{module => []}) or
      String.contains?(text(pid), "(#{:io_lib.format("~tw", [module])}:")
  end

  @doc "Whether a process hibernates in such a way that it has no stack until it wakes."
  @spec hibernates?(pid()) :: boolean()
  def hibernates?(pid) do
    Process.info(pid, :current_function) == {:current_function, {:erlang, :hibernate, 3}}
  end

  defp shown(pid) do
    case Process.info(pid, :current_stacktrace) do
      {:current_stacktrace, stack} -> stack
      nil -> []
    end
  end

  defp loop?({module, function, _arity, _location}) when module in @behaviours,
    do: function |> Atom.to_string() |> String.starts_with?(@in_loop)

  defp loop?(_frame), do: false

  # Every process that proc_lib has started began in proc_lib.
  defp cut?([]), do: false
  defp cut?(stack), do: not match?({:proc_lib, _, _, _}, List.last(stack))

  @doc "The text of a process's stack, with the values on it; empty of one that is dead."
  @spec text(pid()) :: binary()
  def text(pid) do
    case Process.info(pid, :backtrace) do
      {:backtrace, text} -> text
      nil -> ""
    end
  end
end
