defmodule HotPatch.Cancellation do
  @moduledoc """
  What became of something that was cancelled: the result of `HotPatch.cancel/2`.

    * `:operation` - its id
    * `:kind` - `:apply`, `:rollback`, `:restart`, `:check`, `:plan`, `:rehearse`, `:attach`, `:detach`
    * `:patch` - the patch, or the node, that it was about
    * `:by` - who has cancelled it: the first, where several have
    * `:outcome` - see below
    * `:message` - the same in words
    * `:report` - the `HotPatch.Report` of what was done, where there is one

  | outcome | what it means |
  |---|---|
  | `:nothing_changed` | it had not been decided: every node is as it was |
  | `:rolled_back` | what was done was taken back |
  | `:kept` | what was done stays, as `keep: true` says; nothing more was done |
  | `:too_late` | it was decided already and has come to its end |
  | `:failed` | it could not be taken back, or kept, everywhere: the message says where and why |
  | `:ending` | it was told to end and has not done so within `timeout`: see `HotPatch.progress/0` |
  """

  alias HotPatch.Error
  alias HotPatch.NodeAgent.Coordinators
  alias HotPatch.Report

  @type outcome :: :nothing_changed | :rolled_back | :kept | :too_late | :failed | :ending
  @type t :: %__MODULE__{
          operation: String.t(),
          kind: atom(),
          patch: String.t(),
          by: String.t(),
          outcome: outcome(),
          message: String.t(),
          report: Report.t() | nil
        }
  @enforce_keys [:operation, :kind, :patch, :by, :outcome, :message]
  defstruct [:operation, :kind, :patch, :by, :outcome, :message, :report]

  @doc false
  @spec of(Coordinators.facts(), Coordinators.order(), term()) :: t()
  def of(facts, order, result) do
    {outcome, message, report} = outcome(result, facts)
    new(facts, order, outcome, {message, report})
  end

  @doc false
  @spec new(Coordinators.facts(), Coordinators.order(), outcome(), {String.t(), Report.t() | nil}) ::
          t()
  def new(facts, order, outcome, {message, report}) do
    %__MODULE__{
      operation: facts.id,
      kind: facts.kind,
      patch: facts.patch,
      by: order.by,
      outcome: outcome,
      message: message,
      report: report
    }
  end

  # What has been cancelled says how far it had come. All else has ended by itself.
  defp outcome({:error, %Error{reason: :cancelled} = error}, _facts),
    do: {error.details.outcome, error.message, error.report}

  defp outcome({:error, %Error{reason: :rolled_back} = error}, _facts),
    do: {:rolled_back, error.message, error.report}

  defp outcome({:error, %Error{reason: :failed} = error}, _facts),
    do: {:failed, error.message, error.report}

  defp outcome({:error, %Error{} = error}, _facts),
    do: {:nothing_changed, error.message, error.report}

  defp outcome(done, facts) do
    report = with {:ok, %Report{} = report} <- done, do: report

    {:too_late, "#{facts.kind} #{facts.patch}: it was decided already, and is done",
     if(is_struct(report, Report), do: report)}
  end

  defimpl Inspect do
    def inspect(cancellation, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Cancellation<#{cancellation.kind} of #{cancellation.patch}: #{cancellation.outcome}>"
      )
    end
  end

  defimpl String.Chars do
    def to_string(cancellation), do: HotPatch.Support.Printable.line(cancellation.message)
  end
end
