defmodule HotPatch.Agent.Commit do
  @moduledoc false
  # The second half of an apply, on one node: memory, then disk, then what really runs is
  # read back. Runs in a process of its own and sends its result to the agent.

  alias HotPatch.Agent.Preparation
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Verdict
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Store
  alias HotPatch.Swap
  alias HotPatch.Swap.Stragglers

  require Logger

  @type result :: %{
          files: [Report.File.t()],
          pause_us: non_neg_integer(),
          suspended: non_neg_integer(),
          stragglers: [Stragglers.straggler()],
          restart_needed: String.t() | nil,
          error: String.t() | nil
        }

  @doc "Body of the commit process."
  @spec run(pid(), Preparation.t()) :: {module(), result()}
  def run(agent, preparation) do
    result = preparation |> swap() |> finish(preparation)
    log(result, preparation.operation)
    send(agent, {__MODULE__, result})
  end

  defp swap(%Preparation{job: nil}), do: {:ok, %{pause_us: 0, suspended: 0}}
  defp swap(%Preparation{job: job}), do: Swap.run(job)

  defp finish({:error, failure}, preparation) do
    Preparation.discard(preparation)

    restart = if failure.reason == :not_taken_back, do: failure.text
    files = for verdict <- verdicts(preparation), do: failed(verdict, failure.text)
    result(files, %{pause_us: failure.pause_us, suspended: 0}, [], restart, failure.text)
  end

  defp finish({:ok, done}, preparation) do
    case Store.Files.replace(preparation.staged) do
      :ok ->
        verdicts = Enum.map(verdicts(preparation), &read_back/1)
        restart = restart_needed(verdicts)
        recorded = record(preparation, restart)
        result(verdicts, done, purge(preparation), restart, recorded)

      {:error, {target, posix}} ->
        text =
          "the new code runs but is not on disk: cannot rename into #{target} " <>
            "(#{:file.format_error(posix)}); a restart would bring back the old code"

        files = for verdict <- verdicts(preparation), do: failed(verdict, text)
        result(files, done, purge(preparation), nil, text)
    end
  end

  defp verdicts(preparation), do: preparation.examination.verdicts

  # Only what was to be loaded can have failed to be.
  defp failed(%Verdict{change: nil} = verdict, _text), do: verdict
  defp failed(verdict, text), do: Verdict.change_status(verdict, :error, text)

  defp read_back(%Verdict{change: nil} = verdict), do: verdict

  defp read_back(%Verdict{entry: %{beam: beam}} = verdict) do
    with {:ok, module} <- Running.module(beam.module),
         %{} = facts <- Running.facts(module),
         true <- Running.same?(facts, beam.md5, beam.vsn) do
      verdict
    else
      _ ->
        Verdict.change_status(
          verdict,
          :error,
          "another version of it runs: something else loaded this module just now"
        )
    end
  end

  defp restart_needed(verdicts) do
    case for %{status: :not_updated} = verdict <- verdicts, do: Verdict.module(verdict) do
      [] -> nil
      modules -> "on disk but not in memory: #{Enum.join(modules, ", ")}"
    end
  end

  defp record(%Preparation{operation: operation} = preparation, restart) do
    added = for %{new?: true, target: target} <- verdicts(preparation), target != nil, do: target

    case Store.Applied.add(operation.patch, operation.by, restart, added) do
      :ok -> nil
      {:error, posix} -> "applied, but that could not be recorded: #{:file.format_error(posix)}"
    end
  end

  defp purge(%Preparation{job: nil}), do: []

  defp purge(%Preparation{job: job}) do
    Swap.purge(for %{kind: :replace, module: module} <- job.changes, do: module)
  end

  defp result(verdicts, done, stragglers, restart, error) do
    %{
      files: Enum.map(verdicts, &Verdict.to_report/1),
      pause_us: done.pause_us,
      suspended: done.suspended,
      stragglers: stragglers,
      restart_needed: restart,
      error: error
    }
  end

  defp log(result, operation) do
    status = Status.combine(Enum.map(result.files, & &1.status))

    Logger.info(
      "HotPatch: #{operation.patch} on #{node()}: #{status}, #{result.suspended} processes " <>
        "paused for #{result.pause_us} us",
      patch: operation.patch,
      status: status,
      by: operation.by
    )
  end
end
