defmodule HotPatch.NodeAgent.MemoryOnly do
  @moduledoc false
  # Patches that touch no file of the system (`disk: :memory_only`): what becomes of each file then,
  # and what cannot be done so. Such a patch is in force until the node restarts, so nothing of it
  # can wait for that.

  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Store.Applied

  @doc "The verdicts as they are where only memory is changed, or where files are changed beside such patches."
  @spec adjust([Verdict.t()], Payload.t()) :: [Verdict.t()]
  def adjust(verdicts, %Payload{kind: :rollback, patch: patch}) do
    record = Applied.find(patch)

    if record && Applied.memory_only?(record),
      do: Enum.map(verdicts, &untouched/1),
      else: verdicts
  end

  def adjust(verdicts, %Payload{disk: :memory_only}), do: Enum.map(verdicts, &in_memory/1)

  def adjust(verdicts, payload) do
    case Enum.filter(Applied.list(), &(Applied.memory_only?(&1) and &1.id != payload.patch)) do
      [] -> verdicts
      records -> Enum.map(verdicts, &beside(&1, records, payload))
    end
  end

  defp untouched(verdict), do: %{verdict | disk?: false}

  defp in_memory(%Verdict{change: :delete} = verdict) do
    reason = "it stays: its file does, and would bring it back (disk: :memory_only)"
    verdict |> Verdict.change_status(:not_changed, reason) |> nowhere()
  end

  defp in_memory(%Verdict{change: change} = verdict) when change != nil, do: untouched(verdict)

  defp in_memory(%Verdict{status: :not_updated, transient?: false} = verdict) do
    reason =
      "#{verdict.reason}; but with disk: :memory_only there is nothing that a restart would bring: " <>
        "apply it without, or with what lets it be loaded now"

    Verdict.change_status(verdict, :error, reason)
  end

  defp in_memory(%Verdict{status: :not_beam, target: target} = verdict) when target != nil do
    reason = "no Erlang module: #{target} stays as it is (disk: :memory_only)"
    verdict |> Verdict.change_status(:not_beam, reason) |> nowhere()
  end

  defp in_memory(%Verdict{status: :not_loaded, target: target} = verdict) when target != nil do
    reason = "#{verdict.reason}; its file stays as it is (disk: :memory_only)"
    verdict |> Verdict.change_status(:not_loaded, reason) |> nowhere()
  end

  defp in_memory(verdict), do: untouched(verdict)

  defp nowhere(verdict), do: %{verdict | target: nil, disk?: false}

  # What a patch on disk is to go back to would be what the disk has, and not what runs.
  defp beside(%Verdict{target: nil} = verdict, _records, _payload), do: verdict

  defp beside(verdict, records, payload) do
    case Enum.find(records, &(payload.cumulative? or covers?(&1, verdict))) do
      nil ->
        verdict

      record ->
        Verdict.change_status(
          verdict,
          :error,
          "#{record.id} is applied in memory only, so that what runs is not what the disk has: roll it " <>
            "back first, restart the node, or apply this one with disk: :memory_only too"
        )
    end
  end

  defp covers?(record, verdict), do: Enum.any?(record.files, &(&1.target == verdict.target))

  @doc "Of each file in place of which patches in memory only have something else run, the digest of that."
  @spec former() :: %{Path.t() => HotPatch.Store.Blobs.digest() | nil}
  def former do
    for record <- Applied.list(),
        Applied.memory_only?(record),
        file <- record.files,
        into: %{},
        do: {file.target, file.new}
  end
end
