defmodule HotPatch.NodeAgent.RelocationRules do
  @moduledoc false
  # Judges a module that moves from one application to another: its new file and its former one,
  # which go together. The module is loaded from its new place also where its code is the same, so
  # that the node knows from then on where it is.

  alias HotPatch.Composition.Entry
  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.BootScript
  alias HotPatch.NodeAgent.Location
  alias HotPatch.NodeAgent.RemovalRules
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Status

  @typedoc "What is made of the new file: where it goes, where the node has the module now."
  @type judge ::
          (:loaded | :on_disk | :new, target :: Path.t(), present :: Path.t() -> Verdict.t())

  @doc "The verdicts on both files."
  @spec verdicts(Entry.t(), Manifest.removed(), judge()) :: [Verdict.t()]
  def verdicts(%Entry{beam: beam} = entry, removed, judge) do
    case Location.of_move(entry.path, removed.path, beam.module) do
      {:ok, :moves, have, target, former} ->
        comes = have |> judge.(target, former || target) |> moving()
        [comes, goes(comes, removed, former)]

      {:ok, :moved, have, target, former} ->
        comes = judge.(have, target, target)
        [comes, goes(comes, removed, former)]

      {:absent, reason} ->
        both(entry, removed, :not_loaded, reason)

      {status, reason} ->
        both(entry, removed, status, reason)
    end
  end

  defp both(entry, removed, status, reason) do
    former = Verdict.new(RemovalRules.entry(removed), status, "it goes with #{entry.path}")
    [Verdict.new(entry, status, reason), %{former | move: :away}]
  end

  defp moving(%Verdict{status: :not_changed} = verdict),
    do: moving(%{verdict | status: :ok, reason: nil, change: :replace})

  defp moving(%Verdict{target: nil} = verdict), do: verdict

  # Of two places and two versions a rollback could not make what was there before.
  defp moving(%Verdict{ran: ran, change: change} = verdict) when ran != :file and change != nil do
    reason =
      "it is to move, and the version that runs is not that of its file: see HotPatch.drift/0, and " <>
        "put the file right or restart the node first"

    Verdict.change_status(verdict, :error, reason)
  end

  defp moving(verdict), do: %{verdict | move: :here}

  # Nothing of it is loaded, and it is written only together with the other.
  defp goes(comes, removed, former) do
    name = Verdict.module(comes)
    keeps = if BootScript.needs?(name), do: comes.entry.bytes

    reason =
      cond do
        comes.target == nil or Status.refuses?(comes.status) -> "it goes with #{comes.entry.path}"
        keeps != nil -> "the module moves; this file gets its new code, for the boot script"
        true -> "the module moves to #{comes.target}, and this file is removed"
      end

    target = if comes.target != nil, do: former
    verdict = Verdict.new(RemovalRules.entry(removed), comes.status, reason, target)
    %{verdict | disk: if(keeps, do: {:bytes, keeps}, else: :entry), move: :away}
  end
end
