defmodule HotPatch.NodeAgent.RestartNeed do
  @moduledoc false
  # Why a node's memory is not what a restart would bring. It is found by comparing the code that runs
  # with the code that should run after all that was done; only what the code does not show (a NIF
  # library, a failure in words) is remembered until the next boot.

  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.Store.Applied
  alias HotPatch.Store.FileMark

  @typedoc """
  What is asked of the VM: the digest of a module's running code, nil where it is not loaded; the real
  path from which it was loaded; the stamp of a file; and whether a module that is not loaded stays so.
  """
  @type vm :: %{
          md5: (String.t() -> binary() | nil),
          path: (String.t() -> Path.t() | nil),
          stamp: (Path.t() -> FileMark.stamp() | nil),
          embedded?: boolean(),
          boot: term()
        }

  @doc "The reasons on this node, in words."
  @spec list(Applied.state()) :: [String.t()]
  def list(state), do: of(state, vm())

  @doc "The modules of this node whose reason is what was done by patches, with the reason."
  @spec by_module(Applied.state()) :: %{String.t() => String.t()}
  def by_module(state), do: Map.new(by_patches(state, vm()))

  @doc "The reasons that a state has in a VM, in words."
  @spec of(Applied.state(), vm()) :: [String.t()]
  def of(state, vm) do
    modules =
      state
      |> modules(vm)
      |> Enum.group_by(&elem(&1, 1), &elem(&1, 0))
      |> Enum.sort()
      |> Enum.map(fn {why, names} -> "#{why}: #{Enum.join(Enum.sort(names), ", ")}" end)

    texts = for %{text: text} <- now(state, vm), text != nil, do: text
    modules ++ Enum.uniq(texts)
  end

  # Each module once: what operations are known to have left so counts first.
  defp modules(state, vm) do
    (by_patches(state, vm) ++ Enum.flat_map(Applied.net(state.stack), &in_force(&1, vm)))
    |> Enum.uniq_by(&elem(&1, 0))
  end

  defp by_patches(state, vm) do
    pending = for %{module: name, text: nil} = one <- now(state, vm), name != nil, do: one
    Enum.flat_map(pending, &due(&1, vm)) ++ Enum.flat_map(state.ended, &ended(&1, vm))
  end

  # A restart has mended what was so before it.
  defp now(state, vm), do: Enum.filter(state.pending, &(&1.boot == vm.boot))

  defp in_force(%{module: nil}, _vm), do: []
  # It runs from its new place.
  defp in_force(%{move: :away}, _vm), do: []
  defp in_force(%{module: name, gone?: true}, vm), do: gone(name, vm)
  defp in_force(%{module: name, new: nil}, vm), do: gone(name, vm)
  # Written before digests were.
  defp in_force(%{md5: nil}, _vm), do: []

  defp in_force(%{module: name, md5: md5, id: id}, vm),
    do: other(name, vm.md5.(name), md5, "in memory otherwise than #{id} has brought it")

  defp due(%{module: name, md5: nil}, vm), do: gone(name, vm)

  defp due(%{module: name, md5: md5}, vm) do
    case vm.md5.(name) do
      nil -> if vm.embedded?, do: [{name, "on disk but not in memory"}], else: []
      running -> other(name, running, md5, "on disk but not in memory")
    end
  end

  defp other(_name, nil, _md5, _why), do: []
  defp other(_name, same, same, _why), do: []
  defp other(name, _running, _md5, why), do: [{name, why}]

  defp gone(name, vm),
    do: if(vm.md5.(name), do: [{name, "in memory but no longer on disk"}], else: [])

  # Another version of the release may have a module of the same name and code, also in the same folder:
  # a file that was written since is not the patch's.
  defp ended(%{module: name, md5: md5} = file, vm) when name != nil and md5 != nil do
    if vm.md5.(name) == md5 and vm.path.(name) == file.real and
         (file.done != nil or vm.stamp.(file.real) == file.stamp),
       do: [{name, "code of #{file.patch}, which has ended, is in memory"}],
       else: []
  end

  defp ended(_file, _vm), do: []

  defp vm do
    %{
      md5: &LoadedCode.md5_of/1,
      path: &path/1,
      stamp: &FileMark.stamp/1,
      embedded?: LoadedCode.embedded?(),
      boot: Applied.boot()
    }
  end

  defp path(name) do
    case LoadedCode.path(name) do
      {:loaded, path} when is_binary(path) -> FileMark.real(path)
      _no_file -> nil
    end
  end
end
