defmodule HotPatch.NodeAgent.Check do
  @moduledoc false
  # Judges every file of a patch against this node. It reads and changes nothing, not even the
  # table of atoms, so that anybody may look at any patch. The same code serves a check, a plan and
  # the first half of an apply, which then goes on with HotPatch.NodeAgent.Acceptance.

  alias HotPatch.Composition.Entry
  alias HotPatch.Host.Comeback
  alias HotPatch.Host.Trust
  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.BaseVersion
  alias HotPatch.NodeAgent.DiskCheck
  alias HotPatch.NodeAgent.Environment
  alias HotPatch.NodeAgent.Forerunner
  alias HotPatch.NodeAgent.Instructions
  alias HotPatch.NodeAgent.LoadRules
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.LoadedLibraries
  alias HotPatch.NodeAgent.LoaderCheck
  alias HotPatch.NodeAgent.LoaderTrial
  alias HotPatch.NodeAgent.Location
  alias HotPatch.NodeAgent.MemoryOnly
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.Precedence
  alias HotPatch.NodeAgent.PreviousCode
  alias HotPatch.NodeAgent.RelocationRules
  alias HotPatch.NodeAgent.RemovalRules
  alias HotPatch.NodeAgent.RollbackRules
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.NextStart
  alias HotPatch.NodeAgent.Upgrade.OwnChildren
  alias HotPatch.NodeAgent.Upgrade.Rules
  alias HotPatch.NodeAgent.Upgrade.WayBack
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Release
  alias HotPatch.Status
  alias HotPatch.Store
  alias HotPatch.Strategy
  alias HotPatch.Upgrade

  @typedoc """
  `config` is what changes in the environments of applications, as text where it comes from an
  archive; `instructions` what is to be done beside; `strategy` how, and `apart` where that is
  another way than the one by which the patch came; `already?`: the patch is in force here before it
  is applied. `upgrade` is where an upgrade leads from here; `:nowhere` where it changes nothing, nil of a patch.
  `restart`: it comes by a restart, after which this starts the node again. `notes` is what else is to be known.
  """
  @type t :: %__MODULE__{
          verdicts: [Verdict.t()],
          config: [Environment.foreseen() | Environment.change()],
          instructions: Instructions.t(),
          strategy: Strategy.t(),
          apart: [String.t()],
          already?: boolean(),
          upgrade: Course.t() | :nowhere | nil,
          restart: Comeback.t() | nil,
          notes: [String.t()]
        }
  @enforce_keys [:verdicts]
  defstruct [
    :verdicts,
    config: [],
    instructions: %Instructions{},
    strategy: Strategy.default(),
    apart: [],
    already?: false,
    upgrade: nil,
    restart: nil,
    notes: []
  ]

  @doc "Judges a patch on this node."
  @spec run(Payload.t()) :: t()
  def run(%Payload{} = payload), do: Store.Applied.read_once(fn -> examine(payload) end)

  defp examine(payload) do
    # Read once: all is judged by what is in force at one moment.
    state = Store.Applied.state()
    record = in_force(payload, state)
    strategy = Strategy.of(payload, record)
    apart = if payload.kind == :rollback, do: Strategy.differs(strategy, record), else: []

    already? =
      payload.kind == :apply and
        Store.Applied.renews?(state, payload.patch, payload.cumulative?)

    examination = judge(Map.merge(payload, strategy), state, record)
    %{examination | strategy: strategy, apart: apart, already?: already?}
  end

  # The record of the patch, as far as it is meant: what an operation has not brought it does not take
  # back.
  defp in_force(payload, state) do
    with %{op: op} = record <- Enum.find(state.stack, &(&1.id == payload.patch)),
         true <- payload.kind == :apply or Store.Applied.undoes?(payload, op) do
      record
    else
      _ -> nil
    end
  end

  defp judge(%Payload{kind: :rollback, restart: :rolling} = payload, _state, _record) do
    with :ok <- Rules.back_by_restart(payload), {:ok, way} <- Comeback.how() do
      text = "the former release is there: it runs from the restart of this node on"
      %{back(payload, :ok, text) | restart: way}
    else
      :elsewhere -> back(payload, :not_loaded, "this node runs another system")
      :there -> back(payload, :not_changed, "this node runs that release already")
      {:error, reason} -> back(payload, :error, reason)
    end
  end

  defp judge(%Payload{kind: :rollback} = payload, state, %{upgrade: %{} = upgrade} = record) do
    with :ok <- lowest(payload, state) do
      course = upgrade.course |> Course.from_map() |> Course.back()

      examination =
        (WayBack.verdicts(upgrade, course, payload) ++ RollbackRules.again(record, payload))
        |> LoadRules.hindered(payload.purge)
        |> possible(payload, record, Environment.back(record.config))

      %{examination | upgrade: course}
    else
      {:error, reason} -> %__MODULE__{verdicts: [refused_upgrade(upgrade, reason)]}
    end
  end

  defp judge(%Payload{kind: :apply} = payload, state, record) do
    if Upgrade.of(payload),
      do: judge_upgrade(payload, state),
      else: judge_patch(payload, state, record)
  end

  defp judge(payload, state, record), do: judge_patch(payload, state, record)

  defp judge_upgrade(%{restart: :rolling} = payload, _state) do
    with :ok <- trusted(payload),
         :ok <- on_disk(payload),
         {:ok, course} <- Rules.restart_course(payload),
         {:ok, way} <- Comeback.how(),
         verdicts = course |> Rules.unpacked(payload) |> refuse_twins() |> DiskCheck.hindered(),
         {:ok, notes} <- finds_data(course, payload, verdicts) do
      %__MODULE__{verdicts: verdicts, upgrade: :nowhere, restart: way, notes: notes}
    else
      not_here -> not_upgraded(not_here, payload)
    end
  end

  defp judge_upgrade(payload, state) do
    with :ok <- trusted(payload),
         :ok <- on_disk(payload),
         {:ok, course} <- Rules.course(payload),
         verdicts = foundation(course, payload, state),
         {:ok, course, own, left} <- configured(course, payload, verdicts) do
      config = Environment.instead(own, Store.Applied.all(state.stack))
      examination = possible(verdicts, payload, nil, config)

      restarted =
        for %{what: :restart_application} = one <- examination.instructions.steps, do: one.subject

      notes =
        Upgrade.remarks(payload.manifest.upgrade) ++
          left ++
          NextStart.lines(course, payload.manifest.upgrade, payload.entries) ++
          OwnChildren.lines(course, examination.verdicts, restarted)

      %{examination | upgrade: course, verdicts: Rules.live(examination.verdicts), notes: notes}
    else
      not_here -> not_upgraded(not_here, payload)
    end
  end

  defp not_upgraded(:elsewhere, payload),
    do: unchanged(payload, :not_loaded, "this node runs another system")

  defp not_upgraded(:there, payload),
    do: unchanged(payload, :not_changed, "this node runs that release already")

  defp not_upgraded({:error, reason}, payload),
    do: %__MODULE__{verdicts: refuse_all(payload, nil, reason)}

  defp unchanged(payload, status, reason) do
    verdicts = for entry <- payload.entries, do: Verdict.new(entry, status, reason)
    %__MODULE__{verdicts: verdicts, upgrade: :nowhere}
  end

  defp on_disk(%{disk: :memory_only}) do
    {:error,
     "an upgrade brings whole folders, and cannot be applied in memory only: apply it without disk: :memory_only"}
  end

  defp on_disk(_payload), do: :ok

  defp foundation(course, payload, state) do
    own = course |> Rules.verdicts(payload) |> refuse_twins()

    (own ++ Rules.common(course, payload, own))
    |> LoadRules.hindered(payload.purge)
    |> loaded_libraries(payload, state)
    |> DiskCheck.hindered()
  end

  @left "which keys of the configuration change is not known: to see that the upgrade's own runtime.exs and configuration " <>
          "providers are run, which whoever may apply it has done by a check or a plan"

  defp finds_data(course, payload, verdicts) do
    cond do
      refused?(verdicts) -> {:ok, []}
      not Map.get(payload, :evaluate?, true) -> {:ok, [@left]}
      true -> Rules.finds_data(course, payload)
    end
  end

  # Nothing of what is refused is carried out to see what it would set, nor for who may not apply it. A payload that an
  # earlier version has made does not say.
  defp configured(course, payload, verdicts) do
    cond do
      refused?(verdicts) ->
        {:ok, course, [], []}

      not Map.get(payload, :evaluate?, true) ->
        {:ok, course, [], [@left]}

      true ->
        with {:ok, course, own} <- Rules.configured(course, payload),
             do: {:ok, course, own, []}
    end
  end

  # Under patches of the new release its own ground cannot be taken away.
  defp lowest(payload, state) do
    case Enum.drop_while(state.stack, &(&1.id != payload.patch)) do
      [_upgrade] ->
        :ok

      [_upgrade | above] ->
        %{id: top} = List.last(above)

        {:error,
         "#{payload.patch} cannot be taken back: #{top} is for the release to which it has led; roll back #{top} first"}
    end
  end

  defp refused_upgrade(upgrade, reason) do
    {_name, version} = Course.from_map(upgrade.course).to
    of_release(version, :error, reason)
  end

  # What is said of a release as a whole, in place of files.
  defp of_release(version, status, reason) do
    entry = RollbackRules.entry(%{path: "releases/#{version}", module: nil, alone?: false}, nil)
    Verdict.new(entry, status, reason)
  end

  defp back(payload, status, reason) do
    verdict = of_release(payload.release.version, status, reason)
    %__MODULE__{verdicts: [verdict], upgrade: :nowhere}
  end

  defp judge_patch(payload, state, record) do
    with :ok <- bound_here(payload),
         :ok <- trusted(payload),
         :ok <- on_top(payload, state, record),
         :ok <- latest(payload, state),
         :ok <- Forerunner.check(payload),
         {:ok, config} <- config(payload, state, record) do
      payload
      |> verdicts(record)
      |> LoadRules.hindered(payload.purge)
      |> loaded_libraries(payload, state)
      |> MemoryOnly.adjust(payload)
      |> DiskCheck.hindered()
      |> possible(payload, record, config)
    else
      {:error, reason} -> %__MODULE__{verdicts: refuse_all(payload, record, reason)}
    end
  end

  # Of what waits for a restart nothing is in memory, so that it goes back without one.
  defp loaded_libraries(verdicts, %Payload{kind: :rollback, patch: patch}, state) do
    if Store.Applied.waits?(state, patch),
      do: verdicts,
      else: LoadedLibraries.hindered(verdicts)
  end

  defp loaded_libraries(verdicts, %Payload{disk: :memory_only}, _state), do: verdicts
  defp loaded_libraries(verdicts, _payload, _state), do: LoadedLibraries.hindered(verdicts)

  # A loader comes last, and sees nothing that any other rule has refused.
  defp possible(verdicts, payload, record, config) do
    with {:ok, instructions} <- Instructions.here(payload, verdicts) do
      verdicts = Enum.map(verdicts, &in_sticky_folder/1)
      tried = if refused?(verdicts), do: verdicts, else: LoaderTrial.judge(verdicts, payload)
      tried = LoadRules.survived(tried, payload, instructions)
      %__MODULE__{verdicts: hold_back(tried), config: config, instructions: instructions}
    else
      {:error, reason} -> %__MODULE__{verdicts: refuse_all(payload, record, reason)}
    end
  end

  defp verdicts(%Payload{kind: :rollback}, nil), do: []

  defp verdicts(%Payload{kind: :rollback} = payload, record),
    do: RollbackRules.of_record(record, payload)

  defp verdicts(%Payload{} = payload, _record) do
    moved = moved(Map.get(payload, :manifest))
    brought = Enum.flat_map(payload.entries, &verdicts_of(&1, moved, payload))
    own = brought ++ RemovalRules.verdicts(payload)
    verdicts = own |> refuse_sources(payload) |> refuse_twins()

    if payload.cumulative?,
      do: verdicts ++ RollbackRules.of_others(verdicts, payload),
      else: verdicts
  end

  defp moved(nil), do: %{}
  defp moved(manifest), do: Manifest.moved(manifest)

  defp verdicts_of(%Entry{kind: :beam, beam: %{module: name}} = entry, moved, payload)
       when is_map_key(moved, name) do
    RelocationRules.verdicts(entry, moved[name], fn have, target, present ->
      judge_module(entry, have, %{target: target, present: present}, payload)
    end)
  end

  defp verdicts_of(entry, _moved, payload), do: [judge(entry, payload)]

  defp config(%Payload{kind: :rollback}, _state, nil), do: {:ok, []}

  defp config(%Payload{kind: :rollback}, _state, record),
    do: {:ok, Environment.back(record.config)}

  defp config(%Payload{} = payload, state, _record) do
    with {:ok, own} <- Environment.foresee(payload.config) do
      others = if payload.cumulative?, do: Store.Applied.all(state.stack), else: []
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
  defp on_top(%Payload{cumulative?: true}, _state, _record), do: :ok

  defp on_top(%Payload{kind: kind, patch: patch}, state, record) do
    case record && Store.Applied.covering(state.stack, patch) do
      none when none in [nil, []] ->
        :ok

      [top | _] ->
        what = if kind == :rollback, do: "cannot be taken back", else: "is applied already"

        {:error,
         "#{patch} #{what}: #{top} was applied later and has files or settings in common with it, or follows it; roll back #{top} first"}
    end
  end

  defp latest(%Payload{kind: :rollback}, _state), do: :ok
  defp latest(payload, state), do: Precedence.check(payload, state)

  @doc "The verdicts on modules that are to be loaded or taken out; none of a patch that is refused."
  @spec changes(t()) :: [Verdict.t()]
  def changes(%__MODULE__{verdicts: verdicts}) do
    if refused?(verdicts),
      do: [],
      else: for(%Verdict{change: change} = verdict <- verdicts, change != nil, do: verdict)
  end

  @doc "The paths of all files, as the archive names them."
  @spec paths(t()) :: [String.t()]
  def paths(%__MODULE__{verdicts: verdicts}), do: for(verdict <- verdicts, do: verdict.entry.path)

  @doc """
  Those of them whose names this VM knows already, with their atoms. A module whose name it does
  not know is run by no process.
  """
  @spec known_changes(t()) :: [{module(), Verdict.t()}]
  def known_changes(examination) do
    for verdict <- changes(examination),
        {:ok, module} <- [LoadedCode.module(Verdict.module(verdict))],
        do: {module, verdict}
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

  defp refuse_all(%Payload{kind: :rollback}, nil, _reason), do: []

  defp refuse_all(%Payload{kind: :rollback}, record, reason) do
    for file <- record.files,
        do: Verdict.new(RollbackRules.entry(file, nil), :error, reason)
  end

  defp refuse_all(payload, _record, reason),
    do: Enum.map(payload.entries, &Verdict.new(&1, :error, reason))

  defp judge(%Entry{kind: :damaged} = entry, _payload),
    do: Verdict.new(entry, :error, entry.reason)

  defp judge(%Entry{kind: :other} = entry, _payload) do
    case Location.of_file(entry.path) do
      {:ok, _have, target} ->
        carried(entry, target)

      {:absent, reason} ->
        Verdict.carried(entry, "no Erlang module, and goes nowhere: #{reason}")

      {:wrong_path, reason} ->
        Verdict.new(entry, :not_beam, "no Erlang module, and goes nowhere: #{reason}")

      {:error, reason} ->
        Verdict.new(entry, :error, reason)
    end
  end

  defp judge(%Entry{kind: :beam, beam: beam} = entry, payload) do
    case Location.of_module(entry.path, beam.module) do
      {:ok, have, target} ->
        judge_module(entry, have, %{target: target, present: target}, payload)

      {:absent, reason} ->
        Verdict.new(entry, :not_loaded, reason)

      {status, reason} ->
        Verdict.new(entry, status, reason)
    end
  end

  defp carried(entry, target) do
    case Location.resource_file(target) do
      nil ->
        Verdict.carried(entry, "no Erlang module: it goes to #{target}", target)

      reason ->
        if Store.Transaction.digest(target) == entry.sha256,
          do: Verdict.carried(entry, "no Erlang module: #{target} is the same already"),
          else: Verdict.new(entry, :error, reason)
    end
  end

  # `present` is the file that this node has of the module, if it has one.
  defp judge_module(%Entry{beam: beam} = entry, have, %{target: target} = place, payload) do
    ran = ran(entry, have, place.present, payload)

    with :ok <- runnable(beam),
         :ok <- BaseVersion.check(beam.module, place.present, have, payload),
         {:load, change} <- wanted(beam, have, target),
         :ok <- LoadRules.check(beam, payload),
         :ok <- PreviousCode.restorable(ran, place.present, payload) do
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
    {:ok, module} = LoadedCode.module(beam.module)
    facts = LoadedCode.facts(module)
    brought? = facts != nil and LoadedCode.same?(facts, beam.md5, beam.vsn)
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
    {:ok, module} = LoadedCode.module(beam.module)

    case LoadedCode.facts(module) do
      nil ->
        {:not_loaded, "was unloaded a moment ago"}

      facts ->
        if LoadedCode.same?(facts, beam.md5, beam.vsn),
          do: {:not_changed, nil},
          else: {:load, :replace}
    end
  end

  # Not loaded, whether its file is there already or not: with the others of a running
  # application it becomes current in the same step. Left to its first use, it could be
  # loaded from the old file in between; in embedded mode it would never be.
  defp wanted(_beam, _on_disk_or_new, target) do
    folder = target |> Path.split() |> Enum.at(-3) |> String.split("-") |> hd()

    with {:ok, application, _folder} <- LoadedCode.application_folder(folder),
         nil <- Application.spec(application, :vsn) do
      {:not_loaded, "the application #{application} is not loaded on this node"}
    else
      _ -> {:load, :add}
    end
  end

  # What holds no module at all is mostly meant to hold some: sources, or files under wrong paths.
  defp refuse_sources(verdicts, payload) do
    modules? = Enum.any?(verdicts, &(&1.entry.kind in [:beam, :damaged]))
    nowhere? = verdicts != [] and not Enum.any?(verdicts, & &1.carried?)

    cond do
      modules? or payload.config != [] ->
        verdicts

      nowhere? ->
        for verdict <- verdicts, do: nowhere(verdict)

      true ->
        for verdict <- verdicts,
            do: if(source?(verdict.entry.path), do: refuse_source(verdict), else: verdict)
    end
  end

  @compiled "a patch holds compiled modules (.beam), see mix help hot_patch.build"

  defp nowhere(%Verdict{status: :not_beam, reason: reason} = verdict),
    do:
      Verdict.change_status(verdict, :error, "#{reason}; the archive has no module: #{@compiled}")

  defp nowhere(verdict), do: verdict

  # What is in priv is for the application itself to read.
  defp source?(path) do
    Path.extname(path) in [".ex", ".exs", ".erl", ".hrl", ".xrl", ".yrl"] and
      "priv" not in Path.split(path)
  end

  defp refuse_source(verdict) do
    reason = "source code, in an archive without a module: nothing compiles it here; #{@compiled}"
    Verdict.change_status(verdict, :error, reason)
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

  # What moves claims its former place only.
  defp claims(%Verdict{move: :away, target: target}),
    do: if(target, do: [place: target], else: [])

  defp claims(verdict) do
    for {what, name} <- [module: Verdict.module(verdict), place: verdict.target],
        name != nil,
        do: {what, name}
  end

  # The code server replaces nothing there, whoever has made the folder sticky.
  defp in_sticky_folder(%Verdict{change: :replace} = verdict) do
    with {:ok, module} <- LoadedCode.module(Verdict.module(verdict)),
         true <- :code.is_sticky(module) do
      Verdict.change_status(verdict, :error, LoaderCheck.refused(:sticky_directory))
    else
      _not_sticky -> verdict
    end
  end

  defp in_sticky_folder(verdict), do: verdict

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
            held_back(verdict, blocker)
        end)
    end
  end

  defp held_back(verdict, blocker) do
    text =
      "held back with #{Verdict.name(blocker)}: all modules of a patch become current in one step"

    %{Verdict.change_status(verdict, :not_updated, text) | held_back?: true}
  end
end
