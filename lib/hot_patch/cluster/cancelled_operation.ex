defmodule HotPatch.Cluster.CancelledOperation do
  @moduledoc false
  # An operation was told to stop. What is not decided has changed nothing; what is done so far is taken
  # back, or kept, as the one who has cancelled it wants.

  alias HotPatch.Cluster
  alias HotPatch.Cluster.AutoRollback
  alias HotPatch.Cluster.Comparison
  alias HotPatch.Cluster.Coordinator
  alias HotPatch.Cluster.Outcome
  alias HotPatch.Operation
  alias HotPatch.Store.Decisions

  @doc """
  Brings a course to its end. `all?`: its last step is done, so that the patch counts for the whole scope
  of the operation.
  """
  @spec run(map(), boolean()) :: Outcome.t()
  def run(course, all?), do: stop(course, all?, Coordinator.asked())

  defp stop(%{done: []} = course, _all?, order) do
    {as_it_was?, how} = Outcome.taken_back(course.report.nodes)
    outcome = if as_it_was?, do: :nothing_changed, else: :failed
    {if(as_it_was?, do: :nothing, else: :failed), error(course, order, outcome, how)}
  end

  # There is no half of it that could be kept, and what is taken back was to be so.
  defp stop(%{payload: %{kind: :rollback}} = course, _all?, _order), do: {:done, course.report}

  defp stop(course, all?, %{keep?: true} = order), do: keep(course, all?, order)

  defp stop(course, all?, order) do
    why = Coordinator.by(order)
    {result, how, rollback} = AutoRollback.run(course.done, all?, why, course)
    course = put_in(course.report.rollback, rollback)

    case result do
      :nothing -> {:nothing, error(course, order, :rolled_back, how)}
      :kept -> {:nothing, error(course, order, :nothing_changed, how)}
      :failed -> {:failed, error(course, order, :failed, how)}
    end
  end

  defp keep(course, true, order), do: {:failed, error(course, order, :kept, kept(course))}

  # What was tried counts only while its coordinator lives. That it counts for good is written down
  # here first: whoever of these nodes cannot be told finds it when it compares.
  defp keep(course, false, order) do
    op = Operation.to_record(confirmed(course))

    with {:written, :ok} <- {:written, Decisions.put(op)},
         [] <- not_noted(course, op) do
      Comparison.soon()
      {:failed, error(course, order, :kept, kept(course))}
    else
      {:written, {:error, {path, posix}}} ->
        text =
          "it cannot be kept, because #{path} cannot be written on #{node()} (#{:file.format_error(posix)}); " <>
            "#{Enum.join(course.done, ", ")} take it back by themselves"

        {:failed, error(course, order, :failed, text)}

      texts ->
        Comparison.soon()
        text = "#{kept(course)}; not yet written down there: #{Enum.join(texts, "; ")}"
        {:failed, error(course, order, :kept, text)}
    end
  end

  defp confirmed(%{operation: operation, done: done} = course) do
    %{
      operation
      | id: Coordinator.new_id(),
        seq: operation.above + 1,
        scope: done,
        members: done,
        tried_by: nil,
        reason: course.options[:reason]
    }
  end

  defp not_noted(course, op) do
    {answers, failed} = Cluster.survey(course.done, :note, [[op]], course.options.timeout)

    for({node, {:error, text}} <- answers, do: "#{node}: #{text}") ++
      for %{node: node, problem: problem} <- failed, do: "#{node} #{problem}"
  end

  defp kept(%{done: done}), do: "it stays on #{Enum.join(done, ", ")}, as was asked"

  defp error(course, order, outcome, how) do
    what = %{kind: course.payload.kind, patch: course.payload.patch}
    {as_it_was?, rest} = Outcome.taken_back(course.left_out)
    how = if as_it_was?, do: how, else: "#{how}; of the step that was under way #{rest}"
    %{Coordinator.error(what, order, outcome, how) | report: Outcome.finished(course.report)}
  end
end
