defmodule HotPatch.NodeAgent.Prepare do
  @moduledoc false
  # Everything of an apply that can fail without harm: the judgement, the new code ready to
  # be made current, the files staged beside their targets. `release` is what ran then, and
  # `callback_modes` what the gen_statems among the modules said of themselves; `begun` is what a commit
  # has done before the pause.

  alias HotPatch.Hook
  alias HotPatch.NodeAgent.Acceptance
  alias HotPatch.NodeAgent.Changes
  alias HotPatch.NodeAgent.Check
  alias HotPatch.NodeAgent.DiskCheck
  alias HotPatch.NodeAgent.Environment
  alias HotPatch.NodeAgent.FunMaps
  alias HotPatch.NodeAgent.IdleConversions
  alias HotPatch.NodeAgent.InstructionRunner
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.MemoryOnly
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Operation
  alias HotPatch.Store
  alias HotPatch.Store.FileChange
  alias HotPatch.Support.FileName
  alias HotPatch.Swap

  require HotPatch.Support.Log, as: Log

  @type t :: %__MODULE__{
          examination: Check.t(),
          accepted: Acceptance.t(),
          operation: Operation.t(),
          release: HotPatch.Release.t() | nil,
          staged: Store.Transaction.intent(),
          payload: Store.Blobs.digest() | nil,
          ready: Swap.Ready.t() | nil,
          begun: InstructionRunner.begun() | nil,
          callback_modes: %{String.t() => term()},
          warnings: [String.t()]
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
    callback_modes: %{},
    warnings: []
  ]

  @doc "Prepares, or says by its verdicts why this node cannot."
  @spec run(Check.t(), Operation.t(), Payload.t()) ::
          {:ok, t()} | {:no, [Verdict.t()]}
  def run(%Check{verdicts: verdicts} = examination, operation, payload) do
    with {:ok, accepted} <- Acceptance.accept(examination, payload),
         modes = callback_modes(accepted),
         {:ok, ready, unknown} <- ready(accepted, examination, operation, payload),
         {:staged, {:ok, staged, digest}} <-
           {:staged, stage(examination, operation, payload, ready)} do
      {:ok,
       %__MODULE__{
         examination: examination,
         accepted: accepted,
         operation: operation,
         release: Store.Applied.state().release,
         staged: staged,
         payload: digest,
         ready: with_early_files(ready, staged),
         callback_modes: modes,
         warnings: unknown ++ warnings(ready, examination)
       }}
    else
      {:no, verdicts} -> {:no, verdicts}
      {:error, failure} -> {:no, Enum.map(verdicts, &not_ready(&1, failure))}
      {:staged, {:error, failure}} -> {:no, DiskCheck.blame(verdicts, failure)}
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

    with {:error, {path, reason}} <- Store.Recovery.undo(staged) do
      Log.error(
        "HotPatch: #{path} is not what it was before yet: #{inspect(reason)}; it is tried again before " <>
          "the next operation and with the next start"
      )
    end

    :ok
  end

  @doc "What hooks are told of a change."
  @spec change([Swap.Change.t()], [String.t()], Operation.t()) :: Hook.change()
  def change(changes, files, operation) do
    %{patch: operation.patch, modules: Enum.map(changes, & &1.module), files: files}
  end

  # What runs says it only as long as it runs, and the way back has to know.
  defp callback_modes(accepted) do
    for {module, %Verdict{change: :replace, direction: :up}} <- accepted.changes,
        mode = Swap.callback_mode(module),
        into: %{},
        do: {Atom.to_string(module), mode}
  end

  defp stage(%{verdicts: verdicts} = examination, operation, payload, ready) do
    former = former(examination, operation)
    early = early(examination, operation, ready)

    changes =
      for %{target: target} = verdict when target != nil <- verdicts,
          do: file(verdict, former[target], early?(verdict, early))

    with :ok <- keep_running(verdicts),
         {:ok, digest} <- keep(payload),
         {:ok, staged} <- Store.Transaction.stage(changes, tag(operation)),
         :ok <- ahead(early, staged) do
      {:ok, staged, digest}
    else
      {:error, failure} ->
        if ready, do: Swap.discard(ready)
        {:error, failure}
    end
  end

  # What patches have made of the files of the release that an upgrade leaves: also where another node of this host has
  # put what was there before in its place already.
  defp former(%{upgrade: %Course{}}, %{kind: :apply}) do
    for %{target: target, new: new} <-
          Store.Applied.list() |> Store.Applied.on_disk() |> Store.Applied.net(),
        into: %{},
        do: {target, new || :none}
  end

  defp former(_patch, %{kind: :apply}), do: MemoryOnly.former()
  defp former(_examination, _rollback), do: %{}

  # Of an upgrade all is in place before the code path leads there: nothing that runs is in its folders. Elsewhere it is
  # what new code may look for when it is loaded.
  defp early(%{upgrade: upgrade}, %{kind: :apply}, _ready) when upgrade != nil, do: :upgrade
  defp early(_examination, _operation, nil), do: :none
  defp early(%{upgrade: nil}, _operation, _ready), do: :others
  defp early(_upgrade, _rollback, _ready), do: :common

  defp early?(%{entry: %{bytes: nil}}, _early), do: false
  defp early?(%{common?: false}, :upgrade), do: true

  defp early?(%{entry: %{kind: kind}}, early) when early in [:upgrade, :others],
    do: kind == :other

  defp early?(%{common?: true, entry: %{kind: kind}}, :common), do: kind == :other
  defp early?(_verdict, _none_or_of_the_release), do: false

  # What lies in folders that nothing knows yet harms nobody there, and nobody stands still while a node is slow to
  # put it there: all begin their pause at the same time.
  defp ahead(:upgrade, staged) do
    with {:error, failure} <- Store.EarlyFiles.put(new_files(staged)) do
      _ = Store.Recovery.undo(staged)
      {:error, failure}
    end
  end

  defp ahead(_others_or_none, _staged), do: :ok

  defp new_files(staged), do: %{staged | files: Enum.filter(staged.files, &(&1.old == nil))}

  # Nodes of one host may share a release folder: each stages under a name of its own.
  defp tag(operation), do: "hot_patch-#{:erlang.phash2({node(), operation.ref})}"

  # Modules are loaded from memory; what else there is they may look for when they are.
  defp file(%Verdict{entry: entry} = verdict, former, early?) do
    %FileChange{
      target: verdict.target,
      bytes: on_disk(verdict),
      folders: verdict.folders,
      executable?: entry.executable,
      early?: early?,
      disk?: verdict.disk?,
      former: former,
      rights: verdict.rights,
      alone?: match?(%{on_load: true}, entry.beam)
    }
  end

  # What the file is to be need not be the code that is to run.
  defp on_disk(%{disk: {:bytes, bytes}}), do: bytes
  defp on_disk(%{entry: %{bytes: bytes}}), do: bytes

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

  defp not_ready(verdict, failure) do
    verdict = Verdict.change_status(verdict, :not_updated, failure.text)
    %{verdict | transient?: true, old_code?: failure.reason == :old_code}
  end

  @doc """
  Whether nothing else stands in the way than processes that run the old code of an earlier change: a loop written by
  hand leaves it with its next round.
  """
  @spec old_code?([Verdict.t()]) :: boolean()
  def old_code?(verdicts) do
    refusing = Enum.filter(verdicts, &Verdict.refuses?/1)
    refusing != [] and Enum.all?(refusing, & &1.old_code?)
  end

  defp ready(accepted, examination, operation, payload) do
    case job(accepted, examination, operation, payload) do
      nil ->
        {:ok, nil, []}

      {job, unknown} ->
        with {:ok, ready} <- Swap.prepare(job), do: {:ok, ready, unknown}
    end
  end

  @doc "The swap of an accepted patch, and what is not known of its funs; nil where memory does not change."
  @spec job(Acceptance.t(), Check.t(), Operation.t(), Payload.t()) ::
          {Swap.Job.t(), [String.t()]} | nil
  def job(accepted, examination, operation, payload) do
    case Changes.of(accepted.changes, examination.instructions) do
      [] ->
        nil

      changes ->
        changes = Enum.map(changes, &Instructions.extra(&1, examination.instructions))
        {changes, unknown} = FunMaps.attach(changes, accepted.changes)

        job = %Swap.Job{
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
            with %Course{} = course <- examination.upgrade, do: follow(course, examination)
            Hook.run(:after_load, change(changes, Check.paths(examination), operation))
          end
        }

        {job, unknown}
    end
  end

  defp follow(course, examination) do
    :ok = Course.follow(course)
    InstructionRunner.start_ahead(examination.instructions)
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

  # Code that is loaded back looks for the files that it had.
  defp with_early_files(nil, _staged), do: nil

  defp with_early_files(%{job: %{on_load: steps}} = ready, staged) do
    around = &Store.EarlyFiles.taken_back(staged, &1)
    put_in(ready.job.on_load, for(step <- steps, do: Map.put(step, :around_back, around)))
  end

  # All, if one of them is to convert states here: they call each other, also those of modules that
  # this node has in the same version already.
  defp shadows(accepted, payload) do
    changed =
      for {module, %Verdict{alone?: false, direction: :up}} <- accepted.changes,
          into: MapSet.new(),
          do: Atom.to_string(module)

    shadows =
      if Enum.any?(payload.shadows, &(&1.module in changed)), do: payload.shadows, else: []

    for shadow <- shadows do
      %{
        module: LoadedCode.accepted_module(shadow.module),
        name: LoadedCode.accepted_module(shadow.name),
        bytes: shadow.bytes,
        lambdas?: shadow.lambdas?,
        effect: shadow.effect
      }
    end
  end
end
