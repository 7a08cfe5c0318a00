defmodule HotPatch.Agent.Examination do
  @moduledoc false
  # Judges every file of a patch against this node. Reads, changes nothing: the same code
  # serves a check and the first half of an apply.

  alias HotPatch.Agent.Base
  alias HotPatch.Agent.Environment
  alias HotPatch.Agent.Instructions
  alias HotPatch.Agent.Loader
  alias HotPatch.Agent.Location
  alias HotPatch.Agent.Payload
  alias HotPatch.Agent.PreviousCode
  alias HotPatch.Agent.Removal
  alias HotPatch.Agent.Reversal
  alias HotPatch.Agent.Running
  alias HotPatch.Agent.Swappable
  alias HotPatch.Agent.Verdict
  alias HotPatch.Composition.Entry
  alias HotPatch.Release
  alias HotPatch.Status
  alias HotPatch.Store
  alias HotPatch.Trust

  @typedoc """
  `prepared` is the loader's own result for all modules to load, in one; `config` what changes in
  the environments of applications; `instructions` what is to be done beside.
  """
  @type t :: %__MODULE__{
          verdicts: [Verdict.t()],
          prepared: term(),
          config: [Environment.change()],
          instructions: Instructions.t()
        }
  @enforce_keys [:verdicts]
  defstruct [:verdicts, :prepared, config: [], instructions: %Instructions{}]

  @doc "Judges a patch on this node."
  @spec run(Payload.t()) :: t()
  def run(%Payload{} = payload) do
    with :ok <- bound_here(payload),
         :ok <- trusted(payload),
         :ok <- on_top(payload),
         {:ok, config} <- config(payload) do
      payload |> verdicts() |> Swappable.hindered(payload.purge) |> possible(payload, config)
    else
      {:error, reason} -> %__MODULE__{verdicts: refuse_all(payload, reason)}
    end
  end

  # Nothing of the patch becomes an atom before all that it wants done is possible here.
  defp possible(verdicts, payload, config) do
    with {:ok, instructions} <- Instructions.here(payload, verdicts) do
      %{prepare(verdicts) | config: config, instructions: instructions}
    else
      {:error, reason} -> %__MODULE__{verdicts: refuse_all(payload, reason)}
    end
  end

  defp verdicts(%Payload{kind: :rollback} = payload) do
    case Store.Applied.find(payload.patch) do
      nil -> []
      record -> Reversal.of_record(record, payload)
    end
  end

  defp verdicts(%Payload{} = payload) do
    own = Enum.map(payload.entries, &judge(&1, payload)) ++ Removal.verdicts(payload)
    verdicts = refuse_twins(own)
    if payload.cumulative?, do: verdicts ++ Reversal.of_others(verdicts, payload), else: verdicts
  end

  defp config(%Payload{kind: :rollback, patch: patch}) do
    case Store.Applied.find(patch) do
      nil -> {:ok, []}
      record -> {:ok, record |> Environment.config() |> Environment.back()}
    end
  end

  defp config(%Payload{} = payload) do
    with {:ok, own} <- Environment.changes(payload.config) do
      others = if payload.cumulative?, do: Store.Applied.list(), else: []
      {:ok, Environment.instead(own, others)}
    end
  end

  # By this node's own configuration. What is taken back was let in before.
  defp trusted(%Payload{kind: :rollback}), do: :ok

  defp trusted(payload) do
    patch = %{manifest: Map.get(payload, :manifest), signature: Map.get(payload, :signature)}

    with {:error, error} <- Trust.check(patch, payload.entries),
         do: {:error, Exception.message(error)}
  end

  # Patches stack: what lies below others cannot be taken back, nor put in place again.
  defp on_top(%Payload{cumulative?: true}), do: :ok

  defp on_top(%Payload{kind: kind, patch: patch}) do
    case Store.Applied.covering(patch) do
      [] ->
        :ok

      [top | _] ->
        what = if kind == :rollback, do: "cannot be taken back", else: "is applied already"

        {:error,
         "#{patch} #{what}: #{top} was applied later and has files or settings in common with it; roll back #{top} first"}
    end
  end

  @doc """
  The modules that are to be loaded, as atoms with their verdicts; none of a patch that is
  refused, whose names must not become atoms.
  """
  @spec changes(t()) :: [{module(), Verdict.t()}]
  def changes(%__MODULE__{verdicts: verdicts}) do
    if refused?(verdicts) do
      []
    else
      for %Verdict{change: change} = verdict <- verdicts, change != nil do
        {Running.accepted_module(Verdict.module(verdict)), verdict}
      end
    end
  end

  # What is in force here is this node's, whatever its release was called when it came.
  defp bound_here(%Payload{kind: :rollback}), do: :ok

  # Nodes of another kind have a release of their own; one of the same name must be of
  # the very version.
  defp bound_here(%Payload{release: %Release{name: name, version: version}}) do
    %Release{version: other} = current = Release.current()

    if current.name == name and other != version and not Release.none?(current) do
      {:error,
       "the patch is bound to #{name} #{version}, but this node runs #{name} #{other}: make one for that " <>
         "version, or, where it is for this one, upload it again with release: {\"#{name}\", \"#{other}\"}"}
    else
      :ok
    end
  end

  defp refuse_all(%Payload{kind: :rollback} = payload, reason) do
    for %{files: files} <- List.wrap(Store.Applied.find(payload.patch)),
        file <- files,
        do: Verdict.new(Reversal.entry(file, nil), :error, reason)
  end

  defp refuse_all(payload, reason),
    do: Enum.map(payload.entries, &Verdict.new(&1, :error, reason))

  defp judge(%Entry{kind: :damaged} = entry, _payload),
    do: Verdict.new(entry, :error, entry.reason)

  defp judge(%Entry{kind: :other} = entry, _payload) do
    case Location.of_file(entry.path) do
      {:ok, _have, target} ->
        Verdict.new(entry, :not_beam, "no Erlang module: it goes to #{target}", target)

      {:absent, reason} ->
        Verdict.new(entry, :not_beam, "no Erlang module, and goes nowhere: #{reason}")

      {:wrong_path, _reason} ->
        Verdict.new(
          entry,
          :not_beam,
          "no Erlang module, and goes nowhere: the path begins with no application's folder"
        )

      {:error, reason} ->
        Verdict.new(entry, :error, reason)
    end
  end

  defp judge(%Entry{kind: :beam, beam: beam} = entry, payload) do
    case Location.of_module(entry.path, beam.module) do
      {:ok, have, target} -> judge_module(entry, have, target, payload)
      {:absent, reason} -> Verdict.new(entry, :not_loaded, reason)
      {status, reason} -> Verdict.new(entry, status, reason)
    end
  end

  defp judge_module(%Entry{beam: beam} = entry, have, target, payload) do
    ran = ran(entry, have, target, payload)

    with :ok <- runnable(beam),
         :ok <- Base.check(beam.module, target, have, payload),
         {:load, change} <- wanted(beam, have, target),
         :ok <- Swappable.check(beam, payload),
         :ok <- PreviousCode.restorable(ran, target, payload) do
      %Verdict{
        entry: entry,
        status: :ok,
        reason: PreviousCode.remark(ran, target),
        ran: ran,
        target: target,
        change: change,
        new?: change == :add,
        alone?: beam.on_load
      }
    else
      {status, reason} ->
        %{Verdict.new(entry, status, reason, target) | new?: have == :new, ran: ran}
    end
  end

  defp ran(%Entry{beam: beam}, :loaded, target, payload) do
    {:ok, module} = Running.module(beam.module)
    facts = Running.facts(module)
    brought? = facts != nil and Running.same?(facts, beam.md5, beam.vsn)
    PreviousCode.find(module, target, brought?, payload.patch)
  end

  defp ran(_entry, _not_loaded, _target, _payload), do: :file

  defp runnable(%{needs_otp: nil}), do: :ok

  defp runnable(%{needs_otp: needed}) do
    case Integer.parse(System.otp_release()) do
      {otp, ""} when otp < needed ->
        {:error, "needs OTP #{needed}, but this node runs OTP #{otp}: compile it on #{otp}"}

      _ ->
        :ok
    end
  end

  # What there is to load: the node runs it and differs, or the running application is to
  # get a new module.
  defp wanted(beam, :loaded, _target) do
    {:ok, module} = Running.module(beam.module)

    case Running.facts(module) do
      nil ->
        {:not_loaded, "was unloaded a moment ago"}

      facts ->
        if Running.same?(facts, beam.md5, beam.vsn),
          do: {:not_changed, nil},
          else: {:load, :replace}
    end
  end

  # Not loaded, whether its file is there already or not: with the others of a running
  # application it becomes current in the same step. Left to its first use, it could be
  # loaded from the old file in between; in embedded mode it would never be.
  defp wanted(_beam, _on_disk_or_new, target) do
    folder = target |> Path.split() |> Enum.at(-3) |> String.split("-") |> hd()

    with {:ok, application, _folder} <- Running.application_folder(folder),
         nil <- Application.spec(application, :vsn) do
      {:not_loaded, "the application #{application} is not loaded on this node"}
    else
      _ -> {:load, :add}
    end
  end

  # Of two files for one module, or one place, only one can be meant.
  defp refuse_twins(verdicts) do
    counts = verdicts |> Enum.flat_map(&claims/1) |> Enum.frequencies()

    Enum.map(verdicts, fn verdict ->
      case Enum.find(claims(verdict), &(counts[&1] > 1)) do
        nil ->
          verdict

        {what, name} = claim ->
          reason = "the archive has #{counts[claim]} files for the #{what} #{name}: keep one"
          Verdict.change_status(verdict, :error, reason)
      end
    end)
  end

  defp claims(verdict) do
    for {what, name} <- [module: Verdict.module(verdict), place: verdict.target],
        name != nil,
        do: {what, name}
  end

  # Nothing comes before the loader that any rule has refused: it makes the modules' atoms.
  defp prepare(verdicts) do
    case Loader.prepare(changes(%__MODULE__{verdicts: verdicts})) do
      {:ok, prepared} ->
        %__MODULE__{verdicts: hold_back(verdicts), prepared: prepared}

      {:error, reasons} ->
        %__MODULE__{verdicts: verdicts |> Loader.blame(reasons) |> hold_back()}
    end
  end

  defp refused?(verdicts), do: Enum.any?(verdicts, &Status.refuses?(&1.status))

  # All modules of a patch become current in one step or none does: beside a module that
  # memory cannot take, the others wait for the restart too.
  defp hold_back(verdicts) do
    case Enum.find(verdicts, &(&1.status == :not_updated)) do
      nil ->
        verdicts

      blocker ->
        Enum.map(verdicts, fn
          %Verdict{change: nil} = verdict ->
            verdict

          verdict ->
            Verdict.change_status(
              verdict,
              :not_updated,
              "held back with #{Verdict.module(blocker)}: all modules of a patch become current " <>
                "in one step"
            )
        end)
    end
  end
end
