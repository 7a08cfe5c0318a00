defmodule HotPatch.Cluster.Effects do
  @moduledoc false
  # Which callbacks of a patch do something to the world when they convert a state, as far as the code shows:
  # that of the patch, and of what it calls as far as this node has it.

  alias HotPatch.Analysis.Effects
  alias HotPatch.Archive
  alias HotPatch.Composition.Entry
  alias HotPatch.Error
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.Rehearsal
  alias HotPatch.Swap

  @supervisors ["supervisor", "Elixir.Supervisor", "Elixir.DynamicSupervisor"]
  @converters [{"code_change", 3}, {"code_change", 4}, {"system_code_change", 4}]

  # Calls are followed so many modules deep, and into so many in all.
  @rounds 8
  @modules 300

  @doc "Those of the modules of a patch, with what they call; `id` names the patch in an error."
  @spec of([Entry.t()], String.t()) :: {:ok, [Rehearsal.effective()]} | {:error, Error.t()}
  def of(entries, id) do
    entries =
      for %Entry{beam: beam, bytes: bytes} = entry when beam != nil <- entries,
          bytes != nil,
          do: entry

    case Enum.flat_map(entries, &callbacks/1) do
      [] -> {:ok, []}
      callbacks -> follow(callbacks, Map.new(entries, &{&1.beam.module, &1.bytes}), id, @rounds)
    end
  end

  defp callbacks(%{beam: beam}) do
    supervisor? = Enum.any?(beam.behaviours, &(&1 in @supervisors))
    own = if supervisor?, do: [{"init", 1}], else: @converters
    for {name, arity} <- own, {name, arity} in beam.exports, do: {beam.module, name, arity}
  end

  # Each round has more of the modules that are called.
  defp follow(callbacks, modules, id, rounds) do
    with {:ok, leads} <- Archive.leads(Map.values(modules), callbacks, id) do
      wanted =
        for({out, _unknown} <- leads, {module, _, _} = name <- out, unknown?(name), do: module)
        |> Enum.uniq()
        |> Enum.reject(&(is_map_key(modules, &1) or Effects.known?(&1)))

      more = for name <- wanted, bytes = code(name), into: %{}, do: {name, bytes}

      if more == %{} or rounds == 0 or map_size(modules) > @modules,
        do: {:ok, effective(callbacks, leads)},
        else: follow(callbacks, Map.merge(more, modules), id, rounds - 1)
    end
  end

  defp unknown?(name), do: Effects.judge(name) == :unknown

  # As it runs here, or as it would be loaded here.
  defp code(name) do
    with {:ok, module} <- LoadedCode.module(name) do
      case Swap.former_code(module) || :code.get_object_code(module) do
        {^module, bytes, _file} -> bytes
        bytes when is_binary(bytes) -> bytes
        _in_no_file -> nil
      end
    else
      _no_such_atom -> nil
    end
  end

  defp effective(callbacks, leads) do
    for {{module, name, arity}, {out, unknown}} <- Enum.zip(callbacks, leads),
        calls = calls(out, unknown),
        calls != [] do
      %{module: module, function: "#{name}/#{arity}", calls: calls}
    end
  end

  defp calls(out, unknown) do
    for(name <- out, Effects.judge(name) != :none, do: Effects.text(name)) ++
      Enum.map(unknown, &"cannot be looked into wholly: #{&1}")
  end
end
