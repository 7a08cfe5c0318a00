defmodule HotPatch.NodeAgent.BootScript do
  @moduledoc false
  # The modules that a start of this node loads by name: in embedded mode the VM does not start
  # without the file of one of them. So what a patch takes away of them is taken out of memory,
  # again at every start, and its file stays.

  alias HotPatch.NodeAgent.LoadedCode

  # What a VM has to have that starts nothing of the system.
  @clean [:kernel, :stdlib]

  @doc """
  The script by which this VM was booted, in which nothing starts but kernel and stdlib. Not every release has one of
  that kind (`start_clean`): `systools` makes none.
  """
  @spec clean() :: {:ok, binary()} | :error
  def clean do
    with {:ok, bytes} <- File.read(path()) do
      {:script, id, instructions} = :erlang.binary_to_term(bytes)
      {:ok, :erlang.term_to_binary({:script, id, Enum.filter(instructions, &clean?/1)})}
    else
      {:error, _posix} -> :error
    end
  end

  defp clean?({:apply, {:application, :load, [{:application, name, _properties}]}}),
    do: name in @clean

  defp clean?({:apply, {:application, :start_boot, [name | _type]}}), do: name in @clean

  # What a start has besides is of the system that starts, as are the providers of its configuration.
  defp clean?({:apply, _other}), do: false
  defp clean?(_instruction), do: true

  @doc """
  Whether the next start would fail without a file of this module. Of a script that cannot be read
  this is taken for granted: a file too many does no harm.
  """
  @spec needs?(String.t()) :: boolean()
  def needs?(name), do: LoadedCode.embedded?() and loads?(name)

  # Read each time: only the few patches that take modules away ask for it.
  defp loads?(name) do
    case File.read(path()) do
      {:ok, bytes} -> name in modules(:erlang.binary_to_term(bytes))
      {:error, _posix} -> true
    end
  end

  # The names of all modules that a boot script loads.
  @spec modules(term()) :: [String.t()]
  defp modules({:script, _id, instructions}) do
    for {:primLoad, modules} <- instructions,
        module <- modules,
        do: Atom.to_string(module)
  end

  # As init.erl finds it.
  defp path do
    case :init.get_argument(:boot) do
      {:ok, [[_ | _] = boot | _more]} -> in_root("#{List.last(boot)}.boot")
      _none -> in_root("start.boot")
    end
  end

  defp in_root(path) do
    if File.exists?(path), do: path, else: Path.join([:code.root_dir(), "bin", path])
  end
end
