defmodule HotPatch.NodeAgent.Changes do
  @moduledoc false
  # The modules that a swap is to replace, add or take out, from the verdicts on their files.

  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Swap

  @doc "The changes of modules, as the instructions for them have it."
  @spec of([{module(), Verdict.t()}], Instructions.t()) :: [Swap.Change.t()]
  def of(modules, instructions) do
    for {module, verdict} <- modules,
        do: module |> change_of(verdict) |> Instructions.adjust(instructions)
  end

  defp change_of(module, %Verdict{direction: :up, change: kind, entry: entry} = verdict) do
    %Swap.Change{
      module: module,
      kind: kind,
      exports: entry.beam.exports,
      arriving: entry.beam.exports,
      md5: entry.beam.md5,
      old_vsn: old_vsn(kind, module),
      convert?: converts?(module, verdict)
    }
  end

  # The code that runs knows the way down, and is told to which version.
  defp change_of(module, %Verdict{direction: :down, change: kind, entry: entry} = verdict) do
    exports = for {name, arity} <- LoadedCode.exports(module), do: {Atom.to_string(name), arity}

    %Swap.Change{
      module: module,
      kind: kind,
      direction: :down,
      exports: exports,
      arriving: arriving(entry.bytes),
      callback_mode: verdict.callback_mode,
      md5: entry.beam.md5,
      old_vsn: {:down, LoadedCode.vsn_of(entry.beam.vsn)},
      convert?: converts?(module, verdict)
    }
  end

  # What only moves is loaded with the code that it has, which knows the states that there are.
  defp converts?(module, %Verdict{move: :here, change: :replace, entry: %{beam: beam}}),
    do: not LoadedCode.same?(LoadedCode.facts(module), beam.md5, beam.vsn)

  defp converts?(_module, verdict), do: verdict.convert?

  # It ran on this node, so this node's beam_lib can read it.
  defp arriving(nil), do: nil

  defp arriving(bytes) do
    {:ok, {_module, [exports: exports]}} = :beam_lib.chunks(bytes, [:exports])
    for {name, arity} <- exports, do: {Atom.to_string(name), arity}
  end

  defp old_vsn(:add, _module), do: nil

  defp old_vsn(:replace, module) do
    case LoadedCode.facts(module) do
      nil -> nil
      facts -> LoadedCode.old_vsn(facts)
    end
  end
end
