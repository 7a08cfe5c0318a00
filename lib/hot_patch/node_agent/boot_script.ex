defmodule HotPatch.NodeAgent.BootScript do
  @moduledoc false
  # The modules that a start of this node loads by name: in embedded mode the VM does not start
  # without the file of one of them. So what a patch takes away of them is taken out of memory,
  # again at every start, and its file stays.

  alias HotPatch.NodeAgent.LoadedCode

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
