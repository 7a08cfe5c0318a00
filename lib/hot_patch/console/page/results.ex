defmodule HotPatch.Console.Page.Results do
  @moduledoc false
  # How what was done with a patch has ended: with its report where it was begun on this node's console,
  # and from the journal wherever it was.

  use HotPatch.Console.Page.Template, [:results, :result]

  alias HotPatch.Console.Operations
  alias HotPatch.Console.Page
  alias HotPatch.Console.Problem
  alias HotPatch.Console.Router
  alias HotPatch.Rehearsal

  @spec index(Router.request(), Router.access(), Router.form(), String.t()) :: Router.response()
  def index(request, access, _form, id) do
    Page.Patches.with_patch(request, access, {id, :results}, fn context, patch ->
      with {:ok, %{items: journal}} <- HotPatch.journal(patch: patch.id) do
        runs = Enum.filter(Operations.list(), &(&1.subject == patch.id))
        {:ok, results(Map.merge(context, %{runs: runs, journal: journal}))}
      end
    end)
  end

  @spec show(Router.request(), Router.access(), Router.form(), {String.t(), String.t()}) ::
          Router.response()
  def show(request, access, _form, {id, run}) do
    Page.Patches.with_patch(request, access, {id, :results}, fn context, patch ->
      case Operations.fetch(run) do
        {:ok, %{subject: subject} = operation} when subject == patch.id ->
          {:ok, result(Map.merge(context, outcome(operation)))}

        _unknown ->
          {:error,
           Problem.new(
             404,
             :unknown_operation,
             "this node does not know it any more; the journal does"
           )}
      end
    end)
  end

  @doc "An operation, and what is to be told of its end."
  @spec outcome(Operations.t()) :: map()
  def outcome(operation) do
    case operation.result do
      nil -> told(operation, [])
      {:ok, %Rehearsal{} = rehearsal} -> told(operation, rehearsal: rehearsal)
      {:ok, report} -> told(operation, report: report)
      {:error, error} -> told(operation, problem: Problem.from(error))
    end
  end

  defp told(operation, what) do
    Map.merge(%{operation: operation, report: nil, rehearsal: nil, problem: nil}, Map.new(what))
  end
end
