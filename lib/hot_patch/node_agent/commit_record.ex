defmodule HotPatch.NodeAgent.CommitRecord do
  @moduledoc false
  # What a commit leaves behind on this node: files, the state, the journal.

  alias HotPatch.NodeAgent.DiskCheck
  alias HotPatch.NodeAgent.InstructionRunner
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Prepare
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.Releases
  alias HotPatch.NodeAgent.Upgrade.WayBack
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Operation
  alias HotPatch.Release
  alias HotPatch.Report
  alias HotPatch.Store
  alias HotPatch.Store.Applied
  alias HotPatch.Store.InstallMark
  alias HotPatch.Store.SharedHost
  alias HotPatch.Strategy
  alias HotPatch.Support.FaultPoint

  @doc "Writes it all, in an order that a start can take up wherever it was cut off."
  @spec write(Prepare.t(), map()) :: :ok | {:error, String.t()}
  def write(%Prepare{operation: operation} = preparation, result) do
    state = preparation |> state(result) |> pending(preparation, result)
    note = Store.Recovery.note(state, operation.kind, entry(preparation, result))

    # rule: intent-first
    with {:ok, intent} <- Store.Transaction.decide(preparation.staged, note),
         :ok <- FaultPoint.point(:decision_written),
         :ok <- Store.Recovery.finish(intent) do
      runs(preparation)
      Store.Recovery.tidy()
    else
      {:error, {path, reason}} ->
        runs(preparation)

        {:error,
         "what runs now is not on disk: #{path} cannot be written (#{DiskCheck.words(reason)}); make room there or " <>
           "make it writable, the next start of HotPatch finishes it"}
    end
  end

  # From here on that is what this node runs.
  defp runs(%{examination: %{upgrade: %Course{} = course}}) do
    :ok = Course.arrive(course)
    Releases.arrived(course)
  end

  defp runs(_patch), do: :ok

  @doc "What the report of a node has besides the outcome of the swap."
  @spec facts(Prepare.t()) :: %{strategy: Strategy.t(), already?: boolean()}
  def facts(%Prepare{examination: examination}),
    do: Map.take(examination, [:strategy, :already?])

  @doc "What the journal says of an operation on this node."
  @spec entry(Prepare.t(), map()) :: map()
  def entry(%Prepare{operation: operation, examination: examination}, result) do
    facts = [
      :patch,
      :by,
      :seq,
      :scope,
      :cumulative?,
      :again?,
      :disk,
      :kind,
      :reason,
      :from,
      :missing
    ]

    operation
    |> Map.take(facts ++ [:signed_by, :overridden, :accepted])
    |> Map.merge(Map.take(result, [:pause_us, :suspended, :error, :restart_needed]))
    |> Map.merge(%{
      op: operation.id,
      coordinator: node(operation.coordinator),
      release: Release.current(),
      transition: examination.strategy.transition,
      on_load: examination.strategy.on_load,
      status: Report.FileResult.combine(result.files),
      files: Enum.frequencies_by(result.files, & &1.status),
      killed: length(result.killed),
      stragglers: length(result.stragglers)
    })
  end

  # Where the node has nothing to take back, it has only taken note.
  defp state(%Prepare{operation: operation} = preparation, result) do
    op = Operation.to_record(operation)
    state = Applied.state()

    case {operation.kind, preparation.examination.upgrade} do
      {:apply, nil} ->
        state |> marked(preparation) |> Applied.applied(op, record(preparation, result))

      {:apply, %Course{} = course} ->
        record = record(preparation, result)
        state |> marked(preparation) |> Applied.upgraded(op, record, Course.release(course))

      # It is none of this node's: its system is another one, or was installed as what the upgrade makes of others.
      {:apply, :nowhere} ->
        state

      {:rollback, %Course{} = course} ->
        %{Applied.rolled_back(state, op) | release: Course.release(course)}

      {:rollback, _patch} ->
        Applied.rolled_back(state, op)
    end
    |> remembered(state, operation)
  end

  defp marked(state, preparation) do
    files = Enum.filter(preparation.staged.files, & &1.disk?)
    %{state | install: state.install || InstallMark.mark(files)}
  end

  # One that only makes room for others is nothing that other nodes could miss.
  defp remembered(after_it, before, %{origin: {:make_room, _op}}),
    do: %{after_it | ops: before.ops}

  defp remembered(after_it, _before, _operation), do: after_it

  # What memory does not have now, or may not have: it is compared whenever somebody asks.
  defp pending(state, %Prepare{operation: operation} = preparation, result) do
    verdicts = preparation.examination.verdicts
    about = %{patch: operation.patch, boot: state.boot, target: nil, module: nil, md5: nil}

    due =
      for {%{target: target} = verdict, file} <- Enum.zip(verdicts, result.files),
          target != nil,
          file.status in [:not_updated, :error] or verdict.change == :delete,
          do: due(verdict, file, about)

    failed = if result.error, do: [Map.put(about, :text, result.error)], else: []
    targets = for %{target: target} <- verdicts, target != nil, do: target
    Applied.pending(state, operation.patch, targets, due ++ failed)
  end

  defp due(verdict, file, about) do
    name = Verdict.module(verdict)
    md5 = md5(verdict.entry)
    # What the code does not show, such as a library that is loaded already, is said in words.
    text =
      if name == nil or (md5 && LoadedCode.md5_of(name) == md5),
        do: "#{file.path}: #{file.reason}"

    Map.merge(about, %{target: verdict.target, module: name, md5: md5, text: text})
  end

  defp record(%Prepare{operation: operation} = preparation, result) do
    %{
      id: operation.patch,
      op: Operation.brought_by(operation),
      at: DateTime.utc_now(),
      by: operation.by,
      about: operation.about,
      forced?: result.killed != [],
      memory_only?: operation.disk == :memory_only,
      boot: Applied.boot(),
      files: files(preparation),
      upgrade: upgrade(preparation),
      payload: preparation.payload,
      config: preparation.accepted.config,
      down: preparation.examination.instructions.down,
      applications: applications(preparation.examination),
      stopped: InstructionRunner.stopped(preparation.begun),
      strategy: strategy(preparation),
      replaced: []
    }
  end

  defp upgrade(%{examination: %{upgrade: %Course{} = course, verdicts: verdicts}} = preparation) do
    files = verdicts |> Enum.filter(& &1.target) |> Enum.zip(preparation.staged.files)
    own = Enum.reject(files, fn {verdict, _file} -> verdict.common? end)
    WayBack.keep(course, own, preparation.callback_modes)
  end

  defp upgrade(_patch), do: nil

  # The boot script of a new release knows its applications.
  defp applications(%{upgrade: nil, instructions: instructions}),
    do: Instructions.applications(instructions)

  defp applications(_upgrade), do: []

  # Applied once more, a patch that runs already has come as it came the first time.
  defp strategy(%Prepare{ready: nil, operation: %{patch: patch}} = preparation) do
    case Applied.find(patch) do
      %{strategy: strategy} -> strategy
      nil -> preparation.examination.strategy
    end
  end

  defp strategy(preparation), do: preparation.examination.strategy

  defp files(%Prepare{staged: staged, operation: operation} = preparation) do
    examination = preparation.examination
    verdicts = Enum.filter(examination.verdicts, & &1.target)

    # Read once, and only if there is anything to look for. What this node has applied before itself
    # it knows better.
    records =
      if Enum.any?(staged.files, &(&1.old == &1.new)) and Applied.find(operation.patch) == nil,
        do: SharedHost.records(operation.patch),
        else: []

    # What comes into folders of its own an upgrade keeps elsewhere.
    own? = &(examination.upgrade == nil or &1.common?)

    for {verdict, file} <- Enum.zip(verdicts, staged.files), own?.(verdict) do
      former = former(file, records)

      %{
        path: verdict.entry.path,
        target: file.target,
        module: Verdict.module(verdict),
        alone?: match?(%{beam: %{on_load: true}}, verdict.entry),
        convert?: verdict.convert?,
        callback_mode: preparation.callback_modes[Verdict.module(verdict)],
        gone?: Verdict.stays_for_boot?(verdict),
        returned?: verdict.returns?,
        move: verdict.move,
        old: former.old,
        new: file.new,
        ran: ran(verdict.ran, former.old),
        md5: md5(verdict.entry),
        rights: file.rights,
        folders: former.folders,
        real: nil,
        stamp: nil
      }
    end
  end

  defp ran(as_on_disk, _old) when as_on_disk in [:file, :brought], do: nil
  defp ran({:lost, _md5} = lost, _old), do: lost

  defp ran({:other, bytes}, old) do
    digest = :crypto.hash(:sha256, bytes)
    if digest != old, do: digest
  end

  defp md5(%{kind: :beam, bytes: bytes}) when is_binary(bytes), do: :code.module_md5(bytes)
  defp md5(_no_module_or_gone), do: nil

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
end
