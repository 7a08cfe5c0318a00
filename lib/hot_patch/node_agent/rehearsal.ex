defmodule HotPatch.NodeAgent.Rehearsal do
  @moduledoc false
  # What one node does for a rehearsal: all that comes before the decision of an apply, but that nobody stands
  # still and no file is written.

  alias HotPatch.NodeAgent.Acceptance
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Operation
  alias HotPatch.Rehearsal.NodeResult
  alias HotPatch.Status
  alias HotPatch.Strategy
  alias HotPatch.Swap

  @typedoc """
  How it is rehearsed: `timeout` milliseconds in all, `sample` processes of each module at most; `without`
  modules whose callbacks have effects; `most_bytes` the largest state that is copied.
  """
  @type how :: %{
          timeout: pos_integer(),
          sample: pos_integer() | nil,
          without: [String.t()],
          most_bytes: pos_integer()
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
        case Swap.Rehearsal.run(job, here(how, operation)) do
          {:ok, found} -> Map.update!(found, :warnings, &(unknown ++ &1))
          {:error, text} -> %{refused: [text]}
        end
    end
  end

  defp here(how, operation) do
    %{
      within: operation.pause_timeout,
      deadline: System.monotonic_time(:millisecond) + how.timeout,
      sample: how.sample,
      without: for(name <- how.without, {:ok, module} <- [LoadedCode.module(name)], do: module),
      most_bytes: how.most_bytes,
      owner: operation.coordinator,
      replay: nil
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
        Status.refuses?(verdict.status) or verdict.transient?,
        do: "#{verdict.entry.path}: #{verdict.reason}"
  end

  @doc "What the end of a rehearsal is told with."
  @spec measured({:ok, NodeResult.t()} | {:error, String.t()}) :: {map(), atom()}
  def measured({:ok, result}) do
    failed = for module <- result.modules, failure <- module.failures, do: failure.count

    {%{tried: NodeResult.tried(result), failed: Enum.sum(failed), pause_us: result.pause_us},
     result.outcome}
  end

  def measured({:error, _text}), do: {%{}, :failed}
end
