defmodule HotPatch.Console.Page.Notice do
  @moduledoc false
  # Pieces that several pages have: a problem in words, a report's nodes.

  use HotPatch.Console.Page.Template, [:notice, :nodes, :away]

  alias HotPatch.Answers
  alias HotPatch.Console.HTML
  alias HotPatch.Console.Page
  alias HotPatch.Console.Problem
  alias HotPatch.Rehearsal
  alias HotPatch.Report

  @doc "A problem, with the report of the attempt where there is one."
  @spec problem(Problem.t()) :: HTML.safe()
  def problem(problem) do
    notice(%{problem: problem, title: Problem.headline(problem), report: report_of(problem)})
  end

  @doc "The nodes of a report, each opening to its files and reasons."
  @spec report(Report.t()) :: HTML.safe()
  def report(%Report{} = report),
    do: nodes(%{report: report, open: open(report.nodes), check?: report.operation == :check})

  @doc "Which nodes are not in what is shown, each once."
  @spec silent([{:ok, Answers.t()} | {:error, term()}]) :: HTML.safe()
  def silent(results) do
    lines = for {:ok, answers} <- results, line <- Answers.lines(answers), uniq: true, do: line
    away(%{lines: lines})
  end

  # What is as it should be needs no reading; what several nodes say alike is read once.
  defp open(nodes) do
    nodes
    |> Enum.filter(
      &(&1.status not in [:ok, :not_changed, :not_loaded] or &1.stragglers != [] or
          &1.error != nil)
    )
    |> Enum.uniq_by(
      &{Enum.map(&1.files, fn file -> {file.path, file.status} end), &1.error, &1.stragglers}
    )
    |> Enum.map(& &1.node)
  end

  defp report_of(%{more: %{report: %Report{} = report}}), do: report(report)

  defp report_of(%{more: %{report: %Rehearsal{} = rehearsal}}),
    do: Page.Rehearsals.findings(rehearsal)

  defp report_of(_problem), do: nil
end
