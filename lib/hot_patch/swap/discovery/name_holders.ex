defmodule HotPatch.Swap.Discovery.NameHolders do
  @moduledoc false
  # Servers of other modules that keep the name of a module in their state, as a library does that
  # works for callback modules of its own: a likely cause where nobody was found who works for a
  # module. The values of a process that waits stand in the text of its stack, so that nothing of
  # it is run. It is a hint: a name may be kept for another reason.

  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Swap.Discovery.Lookers
  alias HotPatch.Swap.Discovery.Stacktrace

  @typedoc "The module whose servers they are, and how many."
  @type keepers :: {module(), pos_integer()}

  # Words of a heap, beyond which the text would be too long; and processes that are looked at.
  @largest_heap 10_000
  @most 20_000

  @doc "Whose servers keep the names of these modules, those with the most first."
  @spec of([module()]) :: %{module() => [keepers()]}
  def of([]), do: %{}

  def of(modules) do
    looks = Map.new(modules, &{&1, pattern(&1)})

    Process.list()
    |> List.delete(self())
    |> Enum.take(@most)
    |> Lookers.look(&look_at_each(&1, looks))
    |> Enum.frequencies()
    |> Enum.group_by(fn {{module, _}, _} -> module end, fn {{_, by}, count} -> {by, count} end)
    |> Map.new(fn {module, found} -> {module, Enum.sort_by(found, &(-elem(&1, 1)))} end)
  end

  defp look_at_each(pids, looks) do
    for pid <- pids,
        server = server(pid),
        text = Stacktrace.text(pid),
        {module, pattern} <- looks,
        server != module,
        named?(text, pattern),
        do: {module, server}
  end

  @doc """
  Servers with the module that they began in, and the text of their stack, when it is asked for.
  """
  @spec servers() :: [{pid(), module(), (() -> binary())}]
  def servers do
    for pid <- Enum.take(Process.list(), @most),
        pid != self(),
        server = server(pid),
        do: {pid, server, fn -> Stacktrace.text(pid) end}
  end

  # Supervisors have names of modules in the specifications of children, and processes of OTP and
  # Elixir for reasons of their own.
  defp server(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         {module, _function, _arity} when module != :supervisor <- dictionary[:"$initial_call"],
         false <- system?(module),
         {:total_heap_size, size} when size <= @largest_heap <-
           Process.info(pid, :total_heap_size) do
      module
    else
      _ -> nil
    end
  end

  defp system?(module) do
    case :application.get_application(module) do
      {:ok, application} -> SystemLibrary.application?(Atom.to_string(application))
      :undefined -> false
    end
  end

  @doc "What a name is looked for by: as the VM writes an atom in that text."
  @spec pattern(module()) :: :binary.cp()
  def pattern(module), do: :binary.compile_pattern(to_string(:io_lib.write_atom(module)))

  @doc false
  # Whether a text has the name, and not only as a part of another.
  @spec named?(binary(), :binary.cp()) :: boolean()
  def named?(text, pattern) do
    text
    |> :binary.matches(pattern)
    |> Enum.any?(fn {start, length} ->
      not letter?(text, start - 1) and not letter?(text, start + length)
    end)
  end

  defp letter?(text, at) when at < 0 or at >= byte_size(text), do: false

  defp letter?(text, at) do
    byte = :binary.at(text, at)
    byte in ?a..?z or byte in ?A..?Z or byte in ?0..?9 or byte in [?_, ?@, ?.]
  end
end
