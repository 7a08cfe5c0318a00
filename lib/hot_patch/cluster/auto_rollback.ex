defmodule HotPatch.Cluster.AutoRollback do
  @moduledoc false
  # Takes back by itself what an apply has done on some nodes, because it went wrong on others
  # or because of what was seen afterwards. It is a rollback like any other, in the journal with
  # its cause.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.Draft
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Cluster.TwoPhase
  alias HotPatch.Error
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.Operation
  alias HotPatch.Options
  alias HotPatch.Report

  # Milliseconds: processes that never stand still leave the old code only now and then, and
  # until they have the way back is refused; a node that failed may be about to do what it has
  # missed, and is busy with that. And how long a node may take to say that it is there.
  @patience 10_000
  @every 250
  @hello_within 5_000

  @doc "A step did not come about: what the steps before it have done goes back."
  @spec earlier(Error.t(), map()) :: Outcome.t()
  def earlier(error, %{done: []}), do: {:nothing, error}

  def earlier(error, %{options: %{on_failure: :keep}} = course),
    do: {:nothing, joined(error, course)}

  def earlier(error, course) do
    {result, how, rollback} = run(course.done, false, error.message, course)
    # What was kept was so before: of this apply nothing is left.
    result = if result == :kept, do: :nothing, else: result
    {result, told(joined(error, course), how, rollback)}
  end

  @doc "A node failed when it was too late to take back: all others go back too, unless they are to keep it."
  @spec after_failure(Error.t(), [node()], boolean(), map()) :: Outcome.t()
  def after_failure(error, _nodes, _last?, %{payload: %{kind: :rollback}}), do: {:failed, error}

  def after_failure(error, _nodes, _last?, %{options: %{on_failure: :keep}} = course),
    do: {:failed, joined(error, course)}

  def after_failure(error, nodes, last?, course) do
    error = joined(error, course)
    course = %{course | report: error.report}
    {_result, how, rollback} = run(course.done ++ nodes, last?, error.message, course)
    {:failed, told(error, how, rollback)}
  end

  @doc "An error with the report of all steps."
  @spec joined(Error.t(), map()) :: Error.t()
  def joined(%Error{report: nil} = error, course), do: %{error | report: course.report}

  def joined(error, course),
    do: %{error | report: Outcome.finished(Outcome.joined(course.report, error.report))}

  defp told(error, how, rollback) do
    report = error.report && %{error.report | rollback: rollback}
    %{error | message: "#{error.message}; #{how}", report: report}
  end

  @doc """
  Rolls back on these nodes, as far as the course has brought them the patch. `all?`: the patch counted
  for the whole scope of the operation, so that nodes which have missed it take note of both. Who is gone
  does it when it is back: the rollback is for it too. Says whether nothing is left of the patch, how it
  went, and reports. `:kept`: it was in force before on all of them.
  """
  @spec run([node()], boolean(), String.t(), map()) ::
          {:nothing | :failed | :kept, String.t(), Report.t() | nil}
  def run(nodes, all?, why, course) do
    kept = already(nodes, course.report)

    case nodes -- kept do
      [] -> {:kept, kept_text(kept), nil}
      changed -> take_back(changed, kept, scope(changed, all?, course), {why, course})
    end
  end

  defp scope(_changed, true, course), do: course.options.nodes
  defp scope(changed, false, _course), do: changed

  # Where the patch was in force before, it is the work of another operation.
  defp already(nodes, report),
    do: for(%{already?: true, node: node} <- report.nodes, node in nodes, do: node)

  defp kept_text([]), do: ""

  defp kept_text(nodes) do
    "it was in force on #{Enum.join(nodes, ", ")} before this apply, which does not take back what it has " <>
      "not brought: roll it back if it is to blame"
  end

  defp take_back(nodes, kept, scope, {why, course}) do
    deadline = System.monotonic_time(:millisecond) + @patience
    payload = payload(course)
    options = options(course, scope, cut(why))

    case attempt(payload, nodes, {options, course}, deadline) do
      {{:done, report, _seq}, here} ->
        text = "it was rolled back on #{Enum.join(here, ", ")}#{later(nodes -- here)}"
        {:nothing, Enum.join([text | List.delete([kept_text(kept)], "")], "; "), report}

      {{_how, error}, _here} ->
        _ = Outcome.note_refusal(error, Draft.operation(payload, nodes, options))
        {:failed, "it could not be rolled back: #{error.message}", error.report}
    end
  end

  # It is not stopped half-way itself.
  defp options(%{options: options}, scope, reason) do
    told = %{nodes: scope, reason: reason, origin: Operation.undoing(options.origin)}
    options |> Map.merge(told) |> Map.drop([:id, :seq, :stop])
  end

  defp later([]), do: ""
  defp later(gone), do: ", and will be on #{Enum.join(gone, ", ")} when that is back"

  # The way back is that by which the patch came. Processes that may be killed may be so in all of it.
  defp payload(course) do
    more = [undoes: course.ops] ++ Options.inherited(:undo, :apply, course.payload)
    Payload.rollback(course.payload.patch, course.payload.release, more)
  end

  defp attempt(payload, nodes, {options, course}, deadline) do
    {result, here} = on_those_here(payload, nodes, options, course)

    if passing?(result) and System.monotonic_time(:millisecond) < deadline do
      receive do
      after
        @every -> attempt(payload, nodes, {options, course}, deadline)
      end
    else
      {result, here}
    end
  end

  # A node that is gone, maybe of this very patch, does not keep the others from going back.
  # rule: rollback-reachable
  defp on_those_here(payload, nodes, options, course) do
    here = for {node, {:ok, _holder}} <- Cluster.call(nodes, :holder, [], @hello_within), do: node
    operation = Draft.operation(payload, here, options)
    operation = %{operation | above: max(operation.above, course.operation.above + 1)}
    report = Draft.report(payload, [], options)

    if here == [] do
      text = "no answer from #{Enum.join(nodes, ", ")}; see HotPatch.nodes() when they are back"
      {{:nothing, Error.new(:unreachable, text, %{nodes: nodes})}, []}
    else
      run = %TwoPhase{
        payload: payload,
        operation: operation,
        report: report,
        teller: course.teller,
        options: options
      }

      {TwoPhase.run(run), here}
    end
  end

  defp passing?({:nothing, %Error{reason: reason}}),
    do: reason in [:refused, :busy, :unreachable]

  defp passing?(_result), do: false

  # As long as a reason may be.
  defp cut(text), do: String.slice(text, 0, 200)
end
