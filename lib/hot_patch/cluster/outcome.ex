defmodule HotPatch.Cluster.Outcome do
  @moduledoc false
  # How an operation ended, in words and figures: from what the nodes have answered to the
  # report and to what the caller is told.

  alias HotPatch.Error
  alias HotPatch.Operation
  alias HotPatch.Report
  alias HotPatch.Status
  alias HotPatch.Store.Journal
  alias HotPatch.Support.Table

  @typedoc """
  `:done`: current on all nodes. `:failed`: it was decided that all go on, and then some failed.
  `:left`: some are gone since, and will do it when they are back. `:nothing`: nothing was
  changed, as far as it is known.
  """
  @type t :: {:done, Report.t()} | {:nothing | :failed | :left, Error.t()}

  @doc "A node could not be taken for the operation."
  @spec not_reserved(node(), HotPatch.Cluster.answer(), map()) :: t()
  def not_reserved(node, {:ok, {:busy, holder}}, operation),
    do: {:nothing, busy(node, holder, operation)}

  def not_reserved(node, {:ok, {:unfinished, text}}, operation) do
    {:nothing,
     Error.new(
       :busy,
       "#{operation.kind} #{operation.patch}: nothing was changed, on #{node} an earlier operation is not " <>
         "ended on disk: #{text}; make room there or make it writable",
       %{node: node}
     )}
  end

  def not_reserved(node, {:error, text}, operation) do
    {:nothing,
     Error.new(
       :unreachable,
       "#{operation.kind} #{operation.patch}: nothing was changed, #{node} #{text}",
       %{nodes: [node]}
     )}
  end

  # Somebody else has the node.
  @spec busy(node(), HotPatch.NodeAgent.Server.holder(), map()) :: Error.t()
  defp busy(node, holder, operation) do
    Error.new(
      :busy,
      "#{operation.kind} #{operation.patch}: nothing was changed, #{node} is busy: #{holder.kind} of " <>
        "#{holder.patch} by #{holder.by} from #{node(holder.coordinator)}; try again when that is done",
      %{
        node: node,
        holder: Map.take(holder, [:patch, :by]) |> Map.put(:node, node(holder.coordinator))
      }
    )
  end

  @doc "A node's vote, for the report."
  @spec voted({node(), HotPatch.Cluster.answer()}) :: Report.NodeResult.t()
  def voted({node, {:ok, {_vote, files}}}) when is_list(files),
    do: %Report.NodeResult{node: node, status: integral(files, nil), files: files}

  def voted({node, {:ok, {:failed, text}}}), do: failed(node, text)
  def voted({node, {:error, text}}), do: failed(node, text)

  @doc "How a node ended, for the report."
  @spec committed(node(), HotPatch.Cluster.answer()) :: Report.NodeResult.t()
  def committed(node, {:ok, {:ended, result}}) do
    status = integral(result.files, result.error)
    known = result |> Map.delete(:as_told?) |> Map.merge(%{node: node, status: status})
    struct!(Report.NodeResult, known)
  end

  def committed(node, {:ok, {:error, text}}), do: failed(node, text)
  def committed(node, {:error, text}), do: failed(node, text)

  @doc "What is wrong with an answer; nil if nothing is."
  @spec text(HotPatch.Cluster.answer()) :: String.t() | nil
  def text({:ok, {:ended, %{error: error}}}), do: error
  def text({_ok_or_error, {:error, text}}), do: text
  def text({:ok, {:failed, text}}), do: text
  def text({:ok, {:no, _files}}), do: "it refuses"
  def text({:error, text}), do: text
  def text(_well), do: nil

  defp failed(node, text), do: %Report.NodeResult{node: node, status: :error, error: text}

  defp integral(files, nil), do: Report.FileResult.combine(files)
  defp integral(_files, _error), do: :error

  @doc "All were held, or not, and what followed was decided; some nodes do not answer any more."
  @spec decided(Report.t(), :finish | {:take_back, String.t(), String.t()}, gone :: [node()]) ::
          t()
  def decided(report, decision, gone) do
    report = finished(report)

    case {decision, Enum.filter(report.nodes, &(&1.error != nil))} do
      {:finish, []} ->
        {:done, report}

      {:finish, nodes} ->
        why = nodes |> Enum.map(&{&1.node, &1.error}) |> Table.each_once()

        why =
          Enum.map_join(
            why,
            "; ",
            &"the commit failed on #{Table.named(elem(&1, 0))}: #{elem(&1, 1)}"
          )

        text = "#{report.operation} #{report.patch}: #{why}"

        if Enum.any?(nodes, &(&1.node not in gone)),
          do: {:failed, error(:failed, report, text)},
          else: {:left, error(:failed, report, "#{text}; it does it when it is back")}

      {{:take_back, what, cause}, nodes} ->
        {_known?, how} = taken_back(nodes)
        text = "#{report.operation} #{report.patch}: #{what}: #{cause}; #{how}"
        {:nothing, error(:failed, report, text)}
    end
  end

  @doc "Whether all is as it was on nodes that have taken back, in words too."
  @spec taken_back([Report.NodeResult.t()]) :: {as_it_was? :: boolean(), String.t()}
  def taken_back(nodes) do
    stuck = for %{restart_needed: text} = node when text != nil <- nodes, do: node.node
    # One that has told its end has told its strategy too.
    unknown =
      for %{error: text, files: [], strategy: nil} = node when text != nil <- nodes, do: node.node

    case {stuck, unknown} do
      {[], []} ->
        {true, "nothing was changed on any node"}

      {[], _} ->
        {false, "nothing was changed but on #{Enum.join(unknown, ", ")}, where it is not known"}

      _ ->
        {false, "the new code is current on #{Enum.join(stuck, ", ")}, see the report"}
    end
  end

  @doc "A node cannot prepare."
  @spec refused(Report.t()) :: t()
  def refused(report) do
    report = finished(report)

    {:nothing,
     error(
       :refused,
       report,
       "#{report.operation} #{report.patch}: refused, nothing was changed on any node: #{why(report)}"
     )}
  end

  @doc "Writes down that an operation was refused, once, however often it was tried."
  @spec note_refusal(Error.t(), Operation.t()) :: :ok | {:error, File.posix()}
  # A node that catches up tries again and again, and says in `nodes/0` what stands in its way.
  def note_refusal(_error, %Operation{origin: {_missed_or_room, _op}}), do: :ok

  def note_refusal(%Error{reason: :refused, report: report}, operation) do
    Journal.add(:refused, %{
      kind: operation.kind,
      patch: operation.patch,
      by: operation.by,
      from: operation.from,
      status: report.status,
      error: why(report)
    })
  end

  def note_refusal(_error, _operation), do: :ok

  @doc "The report of a step put to that of the steps before it."
  @spec joined(Report.t(), Report.t()) :: Report.t()
  def joined(before, step) do
    nodes = Enum.sort_by(step.nodes ++ before.nodes, & &1.node)

    %{
      step
      | nodes: Enum.uniq_by(nodes, & &1.node),
        started_at: before.started_at,
        watch: before.watch
    }
  end

  @doc "A report with what follows from its nodes."
  @spec finished(Report.t()) :: Report.t()
  def finished(report) do
    %{
      report
      | status: Status.combine(Enum.map(report.nodes, & &1.status)),
        duration_us: DateTime.diff(DateTime.utc_now(), report.started_at, :microsecond)
    }
  end

  @doc "An error with the report of what was tried."
  @spec error(Error.reason(), Report.t(), String.t()) :: Error.t()
  def error(reason, report, message),
    do: %Error{reason: reason, message: message, report: report}

  # The worst finding that refuses stands for all; the report has the rest.
  defp why(report) do
    files = for node <- report.nodes, file <- node.files, refuses?(file), do: {node.node, file}
    # What only waits for another file explains nothing.
    rank = fn {_node, file} -> {Status.code(file.status), file.held_back?} end

    case Enum.min_by(files, rank, fn -> nil end) do
      {node, file} ->
        "#{file.path} on #{node}: #{file.status}, #{file.reason}"

      nil ->
        %{node: node, error: error} = Enum.find(report.nodes, &(&1.error != nil))
        "#{node} #{error}"
    end
  end

  # A file that is not updated refuses only while old code is in use; then it is alone.
  defp refuses?(file), do: Status.refuses?(file.status) or file.status == :not_updated
end
