defmodule HotPatch.Agent.Preparation do
  @moduledoc false
  # Everything of an apply that can fail without harm: the judgement, the new code ready to
  # be made current, the files staged beside their targets. `begun` is what a commit has then done
  # before the pause.

  alias HotPatch.Agent.Environment
  alias HotPatch.Agent.Examination
  alias HotPatch.Agent.IdleConversions
  alias HotPatch.Agent.Instructions
  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Steps
  alias HotPatch.Agent.Verdict
  alias HotPatch.Hook
  alias HotPatch.Status
  alias HotPatch.Store
  alias HotPatch.Swap

  @type t :: %__MODULE__{
          examination: Examination.t(),
          operation: HotPatch.Agent.operation(),
          staged: Store.Files.intent(),
          payload: Store.Blobs.digest() | nil,
          ready: Swap.Ready.t() | nil,
          begun: Steps.begun() | nil,
          warnings: [String.t()]
        }
  @enforce_keys [:examination, :operation, :staged]
  defstruct [:examination, :operation, :staged, :payload, :ready, :begun, warnings: []]

  @doc "Prepares, or says by its verdicts why this node cannot."
  @spec run(Examination.t(), HotPatch.Agent.operation(), Payload.t()) ::
          {:ok, t()} | {:no, [Verdict.t()]}
  def run(%Examination{verdicts: verdicts} = examination, operation, payload) do
    with false <- Enum.any?(verdicts, &refuses?/1),
         {:ok, ready} <- ready(examination, operation, payload),
         {:staged, {:ok, staged, digest}} <- {:staged, stage(verdicts, operation, payload, ready)} do
      {:ok,
       %__MODULE__{
         examination: examination,
         operation: operation,
         staged: staged,
         payload: digest,
         ready: ready,
         warnings: warnings(ready, examination)
       }}
    else
      true -> {:no, verdicts}
      {:error, failure} -> {:no, Enum.map(verdicts, &not_ready(&1, failure))}
      {:staged, {:error, failure}} -> {:no, blame(verdicts, failure)}
    end
  end

  # Where nobody is to be suspended, nobody was looked for.
  defp warnings(%{job: %{transition: :suspend} = job, found: found}, examination) do
    targets = found.targets ++ found.unpaused
    IdleConversions.warnings(job.changes, targets, examination.instructions)
  end

  defp warnings(_nothing_to_convert, _examination), do: []

  @doc "Takes back what preparing has left."
  @spec discard(t()) :: :ok
  def discard(%__MODULE__{staged: staged, ready: ready}) do
    if ready, do: Swap.discard(ready)
    Store.Files.unstage(staged)
  end

  @doc "What hooks are told of a change."
  @spec change([Swap.Change.t()], HotPatch.Agent.operation()) :: Hook.change()
  def change(changes, operation) do
    %{patch: operation.patch, modules: Enum.map(changes, & &1.module)}
  end

  @doc "The modules that a swap replaces or adds."
  @spec changes(Examination.t()) :: [Swap.Change.t()]
  def changes(examination) do
    for {module, verdict} <- Examination.changes(examination),
        do: module |> change_of(verdict) |> Instructions.adjust(examination.instructions)
  end

  defp change_of(module, %Verdict{direction: :up, change: kind, entry: entry} = verdict) do
    %Swap.Change{
      module: module,
      kind: kind,
      exports: entry.beam.exports,
      md5: :code.module_md5(entry.bytes),
      old_vsn: old_vsn(kind, module),
      convert?: converts?(module, verdict)
    }
  end

  # The code that runs knows the way down, and is told to which version.
  defp change_of(module, %Verdict{direction: :down, change: kind, entry: entry} = verdict) do
    exports = for {name, arity} <- Running.exports(module), do: {Atom.to_string(name), arity}

    %Swap.Change{
      module: module,
      kind: kind,
      direction: :down,
      exports: exports,
      md5: entry.beam.md5,
      old_vsn: {:down, Running.vsn_of(entry.beam.vsn)},
      convert?: converts?(module, verdict)
    }
  end

  # What only moves is loaded with the code that it has, which knows the states that there are.
  defp converts?(module, %Verdict{move: :here, change: :replace, entry: %{beam: beam}}),
    do: not Running.same?(Running.facts(module), beam.md5, beam.vsn)

  defp converts?(_module, _verdict), do: true

  # A condition that will pass by itself: refusing now is better than a restart later.
  defp refuses?(verdict), do: Status.refuses?(verdict.status) or verdict.transient?

  defp stage(verdicts, operation, payload, ready) do
    changes = for %{target: target} = verdict when target != nil <- verdicts, do: file(verdict)

    # Nodes of one host may share a release folder: each stages under a name of its own.
    tag = "hot_patch-#{:erlang.phash2({node(), operation.ref})}"

    with {:ok, digest} <- keep(payload),
         {:ok, staged} <- Store.Files.stage(changes, tag) do
      {:ok, staged, digest}
    else
      {:error, failure} ->
        if ready, do: Swap.discard(ready)
        {:error, failure}
    end
  end

  defp file(%{target: target, keeps: bytes}) when bytes != nil, do: {target, bytes}
  defp file(%{target: target, folders: folders, entry: %{bytes: nil}}), do: {target, nil, folders}
  defp file(%{target: target, entry: %{bytes: bytes}}), do: {target, bytes}

  # For nodes that are away now and come to this one for what they have missed. Not compressed:
  # code is by a quarter at most, and that took longer than all else of preparing.
  defp keep(%Payload{kind: :rollback}), do: {:ok, nil}

  defp keep(payload) do
    Store.Blobs.put(Store.blobs(), :erlang.term_to_binary(payload))
  end

  # Memory cannot be changed now, though nothing is wrong with the file.
  defp not_ready(%Verdict{change: nil} = verdict, _failure), do: verdict
  defp not_ready(verdict, failure), do: Verdict.change_status(verdict, :not_updated, failure.text)

  # The file itself; where the data directory cannot be written, each of them.
  defp blame(verdicts, {path, posix}) do
    at_fault =
      if Enum.any?(verdicts, &(&1.target == path)),
        do: &(&1.target == path),
        else: &(&1.target != nil)

    reason = "cannot write #{path}: #{:file.format_error(posix)}"

    Enum.map(verdicts, fn verdict ->
      if at_fault.(verdict), do: Verdict.change_status(verdict, :error, reason), else: verdict
    end)
  end

  defp ready(examination, operation, payload) do
    case changes(examination) do
      [] ->
        {:ok, nil}

      changes ->
        changes = Enum.map(changes, &Instructions.extra(&1, examination.instructions))

        Swap.prepare(%Swap.Job{
          changes: changes,
          prepared: examination.prepared,
          shadows: shadows(examination, payload),
          on_load: on_load(examination),
          pause_timeout: operation.pause_timeout,
          hold_timeout: operation.hold_timeout,
          transition: operation.transition,
          purge: operation.purge,
          after_load: fn ->
            Environment.set(examination.config)
            Hook.run(:after_load, change(changes, operation))
          end
        })
    end
  end

  # Those that run code when they are loaded, in the order of the archive.
  defp on_load(examination) do
    for {module, %Verdict{alone?: true} = verdict} <- Examination.changes(examination),
        verdict.change != :delete do
      %{
        module: module,
        file: String.to_charlist(verdict.target),
        bytes: verdict.entry.bytes,
        back: Swap.former_code(module)
      }
    end
  end

  # Only of modules that are changed here, and that may be loaded just to be tried.
  defp shadows(examination, payload) do
    by_name =
      for {module, %Verdict{alone?: false, direction: :up}} <- Examination.changes(examination),
          into: %{},
          do: {Atom.to_string(module), module}

    for %{module: name} = shadow <- payload.shadows, module = by_name[name] do
      %{
        module: module,
        name: Running.accepted_module(shadow.name),
        bytes: shadow.bytes,
        lambdas?: shadow.lambdas?
      }
    end
  end

  defp old_vsn(:add, _module), do: nil

  defp old_vsn(:replace, module) do
    case Running.facts(module) do
      nil -> nil
      facts -> Running.old_vsn(facts)
    end
  end
end
