defmodule HotPatch.NodeAgent.Rehearsal do
  @moduledoc false
  # What one node does for a rehearsal: all that comes before the decision of an apply, but that nobody stands
  # still and no file is written.

  alias HotPatch.LiveView
  alias HotPatch.NodeAgent.Acceptance
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.ReplayCode
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Operation
  alias HotPatch.Rehearsal.NodeResult
  alias HotPatch.Strategy
  alias HotPatch.Swap

  @typedoc """
  How it is rehearsed: `timeout` milliseconds in all, `sample` processes of each module at most; `without`
  modules whose callbacks have effects; `most_bytes` the largest state that is copied. `replay` is for how many
  seconds messages are played, and whether their values are told; nil where none are.
  """
  @type how :: %{
          timeout: pos_integer(),
          sample: pos_integer() | nil,
          without: [String.t()],
          most_bytes: pos_integer(),
          replay: %{seconds: pos_integer(), values?: boolean()} | nil
        }

  @doc "Rehearses a patch on this node."
  @spec run(Operation.t(), Payload.t(), how()) :: {:ok, NodeResult.t()}
  def run(operation, payload, how) do
    examination = Check.run(payload)

    result = %NodeResult{
      node: node(),
      outcome: :ok,
      instructions: Instructions.lines(examination.instructions),
      warnings: warnings(examination)
    }

    found =
      case Acceptance.accept(examination, payload) do
        {:ok, accepted} -> rehearsed(accepted, examination, {operation, payload}, how)
        {:no, verdicts} -> %{refused: refusals(verdicts)}
      end

    found = Map.update(found, :warnings, result.warnings, &(result.warnings ++ &1))
    {:ok, result |> Map.merge(found) |> NodeResult.judged()}
  end

  defp rehearsed(accepted, examination, {operation, payload}, how) do
    case Prepare.job(accepted, examination, operation, payload) do
      nil ->
        %{}

      {job, unknown} ->
        {replay, not_played, warnings} = replay(accepted, examination, how.replay)
        here = Map.put(here(how, operation), :replay, replay)

        case Swap.Rehearsal.run(job, here) do
          {:ok, found} ->
            found
            |> Map.update!(:warnings, &(unknown ++ warnings ++ &1))
            |> Map.update!(:uncertain, &(not_played ++ &1))

          {:error, text} ->
            %{refused: [text]}
        end
    end
  end

  defp replay(_accepted, _examination, nil), do: {nil, [], []}

  defp replay(accepted, examination, replay) do
    modules = for {module, _verdict} <- accepted.changes, do: module
    shown = LiveView.showing(modules)

    case ReplayCode.make(accepted.changes, Map.keys(shown)) do
      {:ok, %{old: old, new: new, warnings: warnings}} ->
        coming = coming(accepted.config, examination)
        {Map.merge(replay, %{old: old, new: new, shown: shown, coming: coming}), [], warnings}

      {:error, text} ->
        {nil, ["no message was played: #{text}"], []}
    end
  end

  # What comes besides code, and is not there while the new code is played.
  defp coming(config, examination) do
    %Swap.Replay.Coming{
      settings: for(one <- config, into: %{}, do: {{one.application, one.key}, one.new}),
      starts?: Instructions.start?(examination.instructions)
    }
  end

  defp here(how, operation) do
    %{
      within: operation.pause_timeout,
      deadline: System.monotonic_time(:millisecond) + how.timeout,
      sample: how.sample,
      without: for(name <- how.without, {:ok, module} <- [LoadedCode.module(name)], do: module),
      most_bytes: how.most_bytes,
      owner: operation.coordinator
    }
  end

  # What only the disk gets is nobody's to try.
  defp warnings(examination) do
    waiting =
      for %{status: :not_updated} = verdict <- examination.verdicts,
          do: "#{Verdict.name(verdict)}: #{verdict.reason}"

    waiting ++ Strategy.lines(examination.strategy) ++ examination.apart
  end

  defp refusals(verdicts) do
    for verdict <- verdicts,
        Verdict.refuses?(verdict),
        do: "#{verdict.entry.path}: #{verdict.reason}"
  end

  @doc "What the end of a rehearsal is told with."
  @spec measured({:ok, NodeResult.t()} | {:error, String.t()}) :: {map(), atom()}
  def measured({:ok, result}) do
    failed = for module <- result.modules, failure <- module.failures, do: failure.count

    measured = %{
      tried: NodeResult.tried(result),
      failed: Enum.sum(failed),
      played: result.replays |> Enum.map(& &1.messages) |> Enum.sum(),
      pause_us: result.pause_us
    }

    {measured, result.outcome}
  end

  def measured({:error, _text}), do: {%{}, :failed}
end
