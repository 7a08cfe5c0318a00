defmodule HotPatch.NodeAgent.LoadRules do
  @moduledoc false
  # Whether memory can be changed from one version of a module to another, or only disk.

  alias HotPatch.Composition.Entry
  alias HotPatch.NodeAgent.Changes
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Swap
  alias HotPatch.Swap.Description

  @doc "What the file itself says of it."
  @spec check(Entry.beam(), Payload.t()) :: :ok | {:not_updated, String.t()}
  def check(beam, payload) do
    cond do
      beam.on_load and payload.on_load == :restart ->
        {:not_updated,
         "runs code when it is loaded (on_load), so it cannot become current in one step with " <>
           "the others: disk is replaced, restart the node to run it, or apply with on_load: :load"}

      beam.load_nif and not beam.on_load ->
        {:not_updated,
         "loads a NIF library, which may refuse to be replaced: disk is replaced, restart the " <>
           "node to run it"}

      true ->
        :ok
    end
  end

  @doc """
  The verdicts, with those modules whose old code is still in use: room is for two versions.
  All modules together, because to look at every process takes a while. It passes by itself,
  so the patch is refused rather than put off to a restart.
  """
  @spec hindered([Verdict.t()], :soft | :force) :: [Verdict.t()]
  def hindered(verdicts, :force), do: verdicts

  def hindered(verdicts, :soft) do
    replaced = Enum.filter(verdicts, &replaces?/1)
    holders = Swap.holders(Enum.map(replaced, &running/1))
    held = Swap.held_funs(for verdict <- replaced, do: {running(verdict), md5(verdict)})

    Enum.map(verdicts, fn verdict ->
      case replaces?(verdict) && in_the_way(running(verdict), holders, held) do
        reason when is_binary(reason) ->
          old_code? = is_map_key(holders, running(verdict))
          verdict = Verdict.change_status(verdict, :not_updated, reason)
          %{verdict | transient?: true, old_code?: old_code?}

        _nothing ->
          verdict
      end
    end)
  end

  defp in_the_way(module, holders, held) do
    case holders do
      %{^module => pids} -> "old code of an earlier change #{Description.in_use(pids)}"
      _ -> held[module]
    end
  end

  defp md5(%{change: :delete}), do: nil
  defp md5(%{entry: %{beam: beam}}), do: beam.md5

  @doc """
  The verdicts, with those modules whose processes would die of the change: that is known, and not done
  without the operator's word. Of modules that go it is judged elsewhere.
  """
  @spec survived([Verdict.t()], Payload.t(), Instructions.t()) :: [Verdict.t()]
  def survived(verdicts, %{purge: :force}, _instructions), do: verdicts

  def survived(verdicts, payload, instructions) do
    casualties =
      for(%{change: :replace} = verdict <- verdicts, do: {running(verdict), verdict})
      |> Changes.of(instructions)
      |> Swap.casualties(payload.transition)
      |> Enum.group_by(&Atom.to_string(&1.module))

    Enum.map(verdicts, fn verdict ->
      case casualties[Verdict.module(verdict)] do
        nil ->
          verdict

        some ->
          reason = Swap.fatal_text(some)
          %{Verdict.change_status(verdict, :not_updated, reason) | transient?: true}
      end
    end)
  end

  defp replaces?(verdict), do: verdict.change in [:replace, :delete]

  defp running(verdict) do
    {:ok, module} = LoadedCode.module(Verdict.module(verdict))
    module
  end
end
