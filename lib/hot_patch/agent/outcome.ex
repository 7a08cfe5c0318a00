defmodule HotPatch.Agent.Outcome do
  @moduledoc false
  # What a commit leaves behind on this node: files, the state, the journal.

  alias HotPatch.Agent.Instructions
  alias HotPatch.Agent.Preparation
  alias HotPatch.Agent.Steps
  alias HotPatch.Agent.Verdict
  alias HotPatch.Fault
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Install
  alias HotPatch.Store.Neighbours

  @doc "Writes it all, in an order that a start can take up wherever it was cut off."
  @spec write(Preparation.t(), map()) :: :ok | {:error, String.t()}
  def write(%Preparation{operation: operation} = preparation, result) do
    note = %{
      state: state(preparation, result),
      what: operation.kind,
      entry: entry(preparation, result)
    }

    with {:ok, intent} <- Store.Files.decide(preparation.staged, note),
         :ok <- Fault.point(:decision_written),
         :ok <- Store.Recovery.finish(intent) do
      Store.Recovery.tidy()
    else
      {:error, {path, reason}} ->
        {:error,
         "what runs now is not on disk: #{path} cannot be written (#{reason(reason)}); make room there or " <>
           "make it writable, the next start of HotPatch finishes it"}
    end
  end

  @doc "What the journal says of an operation on this node."
  @spec entry(Preparation.t(), map()) :: map()
  def entry(%Preparation{operation: operation}, result) do
    facts = [:patch, :by, :seq, :scope, :cumulative?, :transition, :kind, :reason, :from]

    operation
    |> Map.take(facts ++ [:signed_by, :overridden, :accepted])
    |> Map.merge(Map.take(result, [:pause_us, :suspended, :error, :restart_needed]))
    |> Map.merge(%{
      op: operation.id,
      coordinator: node(operation.coordinator),
      release: Release.current(),
      status: Report.File.combine(result.files),
      files: Enum.frequencies_by(result.files, & &1.status),
      killed: length(result.killed),
      stragglers: length(result.stragglers)
    })
  end

  # Where the node has nothing to take back, it has only taken note.
  defp state(%Preparation{operation: operation} = preparation, result) do
    op = op(operation)
    state = Applied.state()

    case operation.kind do
      :apply ->
        state = %{state | install: state.install || Install.mark(preparation.staged.files)}
        Applied.applied(state, op, record(preparation, result))

      :rollback ->
        Applied.rolled_back(state, op)
    end
    |> remembered(state, operation)
  end

  # One that only makes room for others is nothing that other nodes could miss.
  defp remembered(after_it, before, %{catching_up: :room}), do: %{after_it | ops: before.ops}
  defp remembered(after_it, _before, _operation), do: after_it

  @doc "An operation as it is remembered."
  @spec op(HotPatch.Agent.operation()) :: Applied.op()
  def op(operation) do
    operation
    |> Map.take([
      :id,
      :seq,
      :kind,
      :patch,
      :cumulative?,
      :transition,
      :on_load,
      :scope,
      :by,
      :tried_by
    ])
    |> Map.put(:at, DateTime.utc_now())
  end

  defp record(%Preparation{operation: operation} = preparation, result) do
    %{
      id: operation.patch,
      op: operation.id,
      at: DateTime.utc_now(),
      by: operation.by,
      about: operation.about,
      restart: result.restart_needed,
      forced?: result.killed != [],
      boot: Applied.boot(),
      files: files(preparation),
      payload: preparation.payload,
      config: preparation.examination.config,
      down: preparation.examination.instructions.down,
      applications: Instructions.applications(preparation.examination.instructions),
      stopped: Steps.stopped(preparation.begun),
      replaced: []
    }
  end

  defp files(%Preparation{staged: staged, examination: examination, operation: operation}) do
    verdicts = Enum.filter(examination.verdicts, & &1.target)
    # Read once, and only if there is anything to look for.
    records =
      if Enum.any?(staged.files, &(&1.old == &1.new)),
        do: Neighbours.records(operation.patch),
        else: []

    for {verdict, file} <- Enum.zip(verdicts, staged.files) do
      former = former(file, records)

      %{
        path: verdict.entry.path,
        target: file.target,
        module: Verdict.module(verdict),
        alone?: match?(%{beam: %{on_load: true}}, verdict.entry),
        gone?: verdict.keeps != nil and verdict.move == nil,
        returned?: verdict.returns?,
        move: verdict.move,
        old: former.old,
        new: file.new,
        folders: former.folders
      }
    end
  end

  # Another node of this host, with which this one shares the files, was there first: what was
  # before is in its store. Otherwise an earlier patch has brought the same file, and it is what
  # was there before this one.
  defp former(%{old: same, new: same} = file, records) do
    Enum.find_value(records, file, fn {folder, record} ->
      Enum.find(
        record.files,
        &(&1.target == file.target and &1.new == same and take(&1.old, folder))
      )
    end)
  end

  defp former(file, _records), do: file

  defp take(nil, _folder), do: true

  defp take(digest, folder) do
    with {:ok, bytes} <- Store.Blobs.fetch(Store.blobs(folder), digest),
         {:ok, ^digest} <- Store.Blobs.put(Store.blobs(), bytes) do
      true
    else
      _ -> false
    end
  end

  defp reason(posix) when is_atom(posix), do: posix |> :file.format_error() |> to_string()
  defp reason({:locked, owner}), do: "locked by #{owner}"
end
