defmodule HotPatch.Agent.Preparation do
  @moduledoc false
  # Everything of an apply that can fail without harm: the judgement, the new code ready to
  # be made current, the files staged beside their targets. `release` is what ran then, and
  # `callback_modes` what the gen_statems among the modules said of themselves; `begun` is what a commit
  # has done before the pause.

  alias HotPatch.Agent.Acceptance
  alias HotPatch.Agent.Changes
  alias HotPatch.Agent.Environment
  alias HotPatch.Agent.Examination
  alias HotPatch.Agent.Instructions
  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Steps
  alias HotPatch.Agent.Verdict
  alias HotPatch.FileName
  alias HotPatch.Hook
  alias HotPatch.Store
  alias HotPatch.Swap

  @type t :: %__MODULE__{
          examination: Examination.t(),
          accepted: Acceptance.t(),
          operation: HotPatch.Agent.operation(),
          release: HotPatch.Release.t() | nil,
          staged: Store.Files.intent(),
          payload: Store.Blobs.digest() | nil,
          ready: Swap.Ready.t() | nil,
          begun: Steps.begun() | nil,
          callback_modes: %{String.t() => term()}
        }
  @enforce_keys [:examination, :accepted, :operation, :staged]
  defstruct [
    :examination,
    :accepted,
    :operation,
    :release,
    :staged,
    :payload,
    :ready,
    :begun,
    callback_modes: %{}
  ]

  @doc "Prepares, or says by its verdicts why this node cannot."
  @spec run(Examination.t(), HotPatch.Agent.operation(), Payload.t()) ::
          {:ok, t()} | {:no, [Verdict.t()]}
  def run(%Examination{verdicts: verdicts} = examination, operation, payload) do
    with {:ok, accepted} <- Acceptance.accept(examination),
         modes = callback_modes(accepted),
         {:ok, ready} <- ready(accepted, examination, operation, payload),
         {:staged, {:ok, staged, digest}} <- {:staged, stage(verdicts, operation, payload, ready)} do
      {:ok,
       %__MODULE__{
         examination: examination,
         accepted: accepted,
         operation: operation,
         release: Store.Applied.state().release,
         staged: staged,
         payload: digest,
         ready: ready,
         callback_modes: modes
       }}
    else
      {:no, verdicts} -> {:no, verdicts}
      {:error, failure} -> {:no, Enum.map(verdicts, &not_ready(&1, failure))}
      {:staged, {:error, failure}} -> {:no, blame(verdicts, failure)}
    end
  end

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

  # What runs says it only as long as it runs, and the way back has to know.
  defp callback_modes(accepted) do
    for {module, %Verdict{change: :replace, direction: :up}} <- accepted.changes,
        mode = Swap.callback_mode(module),
        into: %{},
        do: {Atom.to_string(module), mode}
  end

  defp stage(verdicts, operation, payload, ready) do
    changes = for %{target: target} = verdict when target != nil <- verdicts, do: file(verdict)

    # Nodes of one host may share a release folder: each stages under a name of its own.
    tag = "hot_patch-#{:erlang.phash2({node(), operation.ref})}"

    with :ok <- keep_running(verdicts),
         {:ok, digest} <- keep(payload),
         {:ok, staged} <- Store.Files.stage(changes, tag) do
      {:ok, staged, digest}
    else
      {:error, failure} ->
        if ready, do: Swap.discard(ready)
        {:error, failure}
    end
  end

  defp file(%{disk: {:bytes, bytes}} = verdict), do: file(verdict, bytes)
  defp file(%{entry: %{bytes: bytes}} = verdict), do: file(verdict, bytes)
  defp file(%{target: target, folders: folders}, nil), do: {target, nil, folders}
  defp file(%{target: target}, bytes), do: {target, bytes}

  # The code that runs, where the file does not have it: a rollback loads it.
  defp keep_running(verdicts) do
    Enum.reduce_while(verdicts, :ok, fn
      %{ran: {:other, bytes}}, :ok ->
        case Store.Blobs.put(Store.blobs(), bytes) do
          {:ok, _digest} -> {:cont, :ok}
          {:error, failure} -> {:halt, {:error, failure}}
        end

      _verdict, :ok ->
        {:cont, :ok}
    end)
  end

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

  defp ready(accepted, examination, operation, payload) do
    case Changes.of(accepted.changes, examination.instructions) do
      [] ->
        {:ok, nil}

      changes ->
        changes = Enum.map(changes, &Instructions.extra(&1, examination.instructions))

        Swap.prepare(%Swap.Job{
          changes: changes,
          prepared: accepted.prepared.together,
          added: accepted.prepared.added,
          shadows: shadows(accepted, payload),
          on_load: on_load(accepted),
          pause_timeout: operation.pause_timeout,
          hold_timeout: operation.hold_timeout,
          transition: examination.strategy.transition,
          purge: operation.purge,
          after_load: fn ->
            Environment.set(accepted.config)
            Hook.run(:after_load, change(changes, operation))
          end
        })
    end
  end

  # Those that run code when they are loaded, in the order of the archive.
  defp on_load(accepted) do
    for {module, %Verdict{alone?: true} = verdict} <- accepted.changes,
        verdict.change != :delete do
      %{
        module: module,
        file: FileName.to_charlist(verdict.target),
        bytes: verdict.entry.bytes,
        back: Swap.former_code(module)
      }
    end
  end

  # Only of modules that are changed here, and that may be loaded just to be tried.
  defp shadows(accepted, payload) do
    by_name =
      for {module, %Verdict{alone?: false, direction: :up}} <- accepted.changes,
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
end
