defmodule HotPatch.Console.Page.Notice do
  @moduledoc false
  # Pieces that several pages have: a problem in words, a report's nodes.

  use HotPatch.Console.Page.Template, [:notice, :nodes]

  alias HotPatch.Console.HTML
  alias HotPatch.Console.Problem
  alias HotPatch.Report

  @doc "A problem, with the report of the attempt where there is one."
  @spec problem(Problem.t()) :: HTML.safe()
  def problem(problem) do
    notice(%{problem: problem, title: Problem.title(problem.status), report: report_of(problem)})
  end

  @doc "The nodes of a report, each opening to its files and reasons."
  @spec report(Report.t()) :: HTML.safe()
  def report(%Report{} = report),
    do: nodes(%{report: report, open?: &open?/1, check?: report.operation == :check})

  # What is as it should be needs no reading.
  defp open?(node),
    do: node.status not in [:ok, :not_changed, :not_loaded] or node.stragglers != []

  defp report_of(%{more: %{report: %Report{} = report}}), do: report(report)
  defp report_of(_problem), do: nil
end
