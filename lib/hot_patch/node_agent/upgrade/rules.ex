defmodule HotPatch.NodeAgent.Upgrade.Rules do
  @moduledoc false
  # Judges an upgrade on this node: whether it starts from what runs here, and what becomes of each of its files. All of
  # them go into folders that are new; nothing that runs is overwritten. What a restart would boot is another matter,
  # and not touched.

  alias HotPatch.Composition.Entry
  alias HotPatch.Host.Attachment
  alias HotPatch.Host.Config
  alias HotPatch.Host.NextBoot
  alias HotPatch.Host.ReleaseSource
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Manifest
  alias HotPatch.NodeAgent.BaseVersion
  alias HotPatch.NodeAgent.LoadRules
  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Payload
  alias HotPatch.NodeAgent.PreviousCode
  alias HotPatch.NodeAgent.RemovalRules
  alias HotPatch.NodeAgent.RollbackRules
  alias HotPatch.NodeAgent.Upgrade.Configuration
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.OwnOptions
  alias HotPatch.NodeAgent.Verdict
  alias HotPatch.Release
  alias HotPatch.Status
  alias HotPatch.Store.Applied
  alias HotPatch.Store.ReleaseFiles
  alias HotPatch.Store.Transaction
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder
  alias HotPatch.Support.Table
  alias HotPatch.Upgrade

  @with_application "it goes when its application has stopped"
  @by_restart "apply it with restart: :rolling, which restarts the nodes into it, one after the other"

  @doc """
  Where an upgrade leads from here. `:elsewhere` is a node of another system, `:there` one that runs the new release
  already; an error is a rule that this node breaks.
  """
  @spec course(Payload.t()) :: {:ok, Course.t()} | :elsewhere | :there | {:error, String.t()}
  def course(%Payload{manifest: %Manifest{release: from, upgrade: upgrade}} = payload) do
    current = Release.current()

    cond do
      current.name != from.name -> :elsewhere
      current.version == upgrade.to -> :there
      current.version != from.version -> {:error, other_version(from, upgrade, current)}
      true -> starts(from, upgrade, payload)
    end
  end

  defp starts(from, upgrade, payload) do
    with :ok <- own_identity(),
         :ok <- same_erts(upgrade),
         {:ok, root} <- root(from),
         :ok <- writable(root),
         :ok <- bootable(upgrade, payload, root),
         :ok <- no_system(upgrade),
         :ok <- shared(upgrade, root) do
      {:ok, Course.new({from.name, from.version}, upgrade, root)}
    end
  end

  @doc "The same of one that comes by a restart, which takes another VM, OTP and Elixir, too."
  @spec restart_course(Payload.t()) ::
          {:ok, Course.t()} | :elsewhere | :there | {:error, String.t()}
  def restart_course(%Payload{manifest: %Manifest{release: from, upgrade: upgrade}} = payload) do
    with {:error, _not_live} <- course(payload),
         true <- runs?(from) || {:error, other_version(from, upgrade, Release.current())},
         :ok <- own_identity(),
         {:ok, root} <- root(from),
         :ok <- writable(root),
         :ok <- bootable(upgrade, payload, root),
         :ok <- erts(upgrade, payload, root),
         :ok <- shared(upgrade, root) do
      {:ok, Course.new({from.name, from.version}, upgrade, root)}
    end
  end

  defp runs?(from), do: Release.current().version == from.version

  @doc """
  Whether this node can be restarted into the release from which an upgrade has led it here by a restart; `:there` is one
  that runs that, `:elsewhere` one of another system.
  """
  @spec back_by_restart(Payload.t()) :: :ok | :elsewhere | :there | {:error, String.t()}
  def back_by_restart(%Payload{release: to, leads_from: from, patch: patch}) do
    current = Release.current()

    cond do
      current.name != to.name ->
        :elsewhere

      current.version == to.version ->
        :there

      current.version != from ->
        {:error,
         "#{patch} has led from #{Release.text(to)} to #{from}, but this node runs #{Release.text(current)}: it is no way " <>
           "back from there"}

      Applied.find(patch) != nil ->
        {:error,
         "this node came to #{from} while it ran, and goes back so, with the states of its processes: roll #{patch} back " <>
           "without restart: :rolling"}

      true ->
        with :ok <- own_identity(), {:ok, root} <- root(current), do: whole(root, to)
    end
  end

  # All that a start in it needs lies where the start looks for it.
  defp whole(root, %Release{name: name, version: version}) do
    folder = Path.join([root, "releases", version])

    with {:release, _name, _version, erts, libs, _status} <-
           ReleaseFiles.entry(root, {name, version}, :unpacked),
         [] <- Enum.reject(libs, &library?(root, &1)),
         :ok <- runtime(root, to_string(erts)),
         :ok <- boot_file(folder),
         nil <- NextBoot.lacking(root, version) do
      :ok
    else
      nil -> gone(version, Path.join(folder, "#{name}.rel"))
      [{library, vsn, _dir} | _] -> gone(version, Path.join([root, "lib", "#{library}-#{vsn}"]))
      missing -> gone(version, missing)
    end
  end

  defp library?(root, {library, vsn, _dir}) do
    Enum.any?([root, :code.root_dir()], &File.dir?(Path.join([&1, "lib", "#{library}-#{vsn}"])))
  end

  # Where that of this VM is none of the releases' own, it is the host's, and there for the other, too.
  defp runtime(root, erts) do
    own = Path.join(root, "erts-" <> erts)
    same? = erts == List.to_string(:erlang.system_info(:version))
    if File.dir?(own) or same?, do: :ok, else: own
  end

  defp boot_file(folder),
    do: if(Folder.files(folder, ".boot") == [], do: Path.join(folder, "start.boot"), else: :ok)

  defp gone(version, path) do
    {:error,
     "#{version} is not on this node's disk any more (there is no #{path}): build the upgrade that leads there from what " <>
       "runs, and apply that with restart: :rolling"}
  end

  # A release that brings its own VM starts that which `start_erl.data` names; one that brings none, that of the host.
  defp erts(upgrade, payload, root) do
    folder = "erts-#{upgrade.erts}"
    own? = root |> Folder.folders() |> Enum.any?(&(&1 |> Path.basename() |> erts?()))
    brought? = Enum.any?(payload.entries, &String.starts_with?(&1.path, folder <> "/"))

    cond do
      brought? or File.dir?(Path.join(root, folder)) ->
        :ok

      not own? and same_erts(upgrade) == :ok ->
        :ok

      true ->
        {:error,
         "the new release needs ERTS #{upgrade.erts}, and there is no #{Path.join(root, folder)}, nor does the upgrade " <>
           "bring one: build the new release with include_erts: true, or put that folder there"}
    end
  end

  defp erts?(name), do: String.starts_with?(name, "erts-")

  @doc "The verdicts on all files of an upgrade that comes by a restart: nothing that runs changes."
  @spec unpacked(Course.t(), Payload.t()) :: [Verdict.t()]
  def unpacked(course, payload) do
    taken = taken(course, payload.entries)

    for entry <- payload.entries do
      target = Path.join(course.root, entry.path)

      case taken[folder_of(entry)] do
        nil -> Verdict.new(entry, :ok, "it runs from the restart of this node on", target)
        other -> Verdict.new(entry, :error, in_the_way(course, folder_of(entry), other))
      end
    end
  end

  # That which is new with it: of an application, of the release, or of its VM.
  defp folder_of(%{path: "erts-" <> _version = path}), do: path |> Path.split() |> hd()
  defp folder_of(%{path: path}), do: path |> Path.split() |> Enum.take(2) |> Path.join()

  defp other_version(from, upgrade, current) do
    "the upgrade leads from #{from.name} #{from.version} to #{upgrade.to}, but this node runs #{current.name} " <>
      "#{current.version}: build one from that, or go to #{from.version} first"
  end

  defp own_identity do
    cond do
      Config.current().release != nil ->
        {:error,
         "this node's release is what config :hot_patch, release: says, whatever it runs: an upgrade could not change " <>
           "that; remove it there"}

      Attachment.here() != nil ->
        {:error,
         "HotPatch was attached to this node and is not part of its release: a release without it cannot be taken to " <>
           "the next while it runs; install it by a restart"}

      ReleaseSource.booted() == nil ->
        {:error,
         "this node runs without a release, so there is none to go to the next version of"}

      true ->
        :ok
    end
  end

  defp same_erts(upgrade) do
    case List.to_string(:erlang.system_info(:version)) do
      same when same == upgrade.erts ->
        :ok

      other ->
        {:error,
         "the upgrade is built for ERTS #{upgrade.erts}, but this node runs ERTS #{other}: the VM cannot change while it " <>
           "runs; #{@by_restart}"}
    end
  end

  # By the folder of the version that runs it is known that it is the root.
  defp root(from) do
    root = Release.root()
    folder = root && Path.join([root, "releases", from.version])

    if folder && File.dir?(folder),
      do: {:ok, root},
      else:
        {:error,
         "where the releases of this node lie is not known: there is no folder #{folder || "releases/#{from.version}"}; " <>
           "start the node with RELEASE_ROOT set"}
  end

  # Whole folders come to it, so that a patch's way past it, in memory only, is none here.
  defp writable(root) do
    case Enum.find(["lib", "releases"], &(not writable?(Path.join(root, &1)))) do
      nil ->
        :ok

      folder ->
        {:error,
         "the release lies where this node may not write (#{Path.join(root, folder)}): an upgrade puts whole folders there, " <>
           "from which the next start boots, and the data directory cannot take their place. Deliver an image of the new " <>
           "release, or make #{root} writable for the node's user"}
    end
  end

  defp writable?(folder),
    do:
      match?(
        {:ok, %File.Stat{access: access}} when access in [:write, :read_write],
        File.stat(folder)
      )

  # A start by another script than `start` (RELEASE_BOOT_SCRIPT) asks the new release for one of that name.
  defp bootable(upgrade, payload, root) do
    paths = for entry <- payload.entries, do: entry.path

    case unbootable(:init.get_argument(:boot), root, upgrade.to, paths) do
      nil ->
        :ok

      {script, wanted} ->
        {:error,
         "this node is booted by #{script}, and the new release has no #{wanted}: no start of it would succeed; build the new " <>
           "release with a boot script of that name, or start the node by another (RELEASE_BOOT_SCRIPT)"}
    end
  end

  @doc false
  @spec unbootable({:ok, [[charlist()]]} | :error, Path.t(), String.t(), [Path.t()]) ::
          {Path.t(), Path.t()} | nil
  def unbootable({:ok, [_ | _] = given}, root, version, paths) do
    with [name | _] <- List.last(given),
         path = name |> FileName.to_binary() |> Path.expand(),
         script = Path.relative_to(path, Path.expand(root)),
         ["releases", _version, file] <- Path.split(script),
         wanted = Path.join(["releases", version, Path.basename(file, ".boot") <> ".boot"]),
         false <- wanted in paths,
         do: {script, wanted},
         else: (_elsewhere_or_there -> nil)
  end

  def unbootable(:error, _root, _version, _paths), do: nil

  defp no_system(upgrade) do
    case for(
           %{name: name, from: from} when from != nil <- upgrade.applications,
           SystemLibrary.application?(name),
           do: name
         ) do
      [] ->
        :ok

      names ->
        {:error,
         "the upgrade changes #{Enum.join(names, ", ")}, of #{SystemLibrary.owner(hd(names))}: that cannot change while " <>
           "the node runs; #{@by_restart}"}
    end
  end

  # What is not carried has to be here, to the letter. What patches have made of it goes back: with a live upgrade see
  # `common/3`, with a restart before anything of the system starts.
  defp shared(upgrade, root) do
    patched = patched()

    case for(
           %{path: path, sha256: sha256} <- upgrade.shared,
           digest(root, path, patched) != sha256,
           do: path
         ) do
      [] ->
        :ok

      [first | _] = others ->
        {:error,
         "the upgrade does not carry #{Table.count(length(others), "folder", "folders")} that this node does not have as they were when it was built, " <>
           "without patches: #{Enum.join(Enum.take(others, 5), ", ")}; #{put_right(root, first)}"}
    end
  end

  @doc """
  The verdicts on what patches have changed in folders that both releases have: patches are for one release, so with the
  upgrade they end there too, on disk and in memory, and come again with the way back. `own` are the verdicts on what the upgrade brings.
  """
  @spec common(Course.t(), Payload.t(), [Verdict.t()]) :: [Verdict.t()]
  def common(course, %Payload{manifest: %Manifest{upgrade: upgrade}} = payload, own) do
    folders = for %{path: path} <- upgrade.shared, do: Path.join(course.root, path) <> "/"
    own = for verdict <- own, name = Verdict.module(verdict), into: MapSet.new(), do: name

    (&String.starts_with?(&1, folders))
    |> RollbackRules.of_common(payload)
    |> Enum.map(&twice(&1, own))
  end

  # In another folder than the patch has it.
  defp twice(verdict, own) do
    name = Verdict.module(verdict)

    if name != nil and MapSet.member?(own, name) do
      reason =
        "a patch has #{name} in #{verdict.target}, and the upgrade has it elsewhere: roll that patch back first"

      Verdict.change_status(verdict, :error, reason)
    else
      verdict
    end
  end

  # A release that came by a restart has some of its applications among its own files, as in `lib` another build of them lies.
  defp put_right(root, folder) do
    version = Release.current().version

    if File.dir?(Path.join([root, "releases", version, folder])),
      do:
        "#{version} has it in releases/#{version}/#{folder}: build the upgrade --from a copy of what this node has",
      else:
        "roll back the patches that have files in #{folder}, put it right, or build the upgrade from what runs"
  end

  # What the files of patches were before: by their paths, and nil where there was none.
  defp patched do
    files = Applied.state().stack |> Applied.on_disk() |> Applied.net()
    for %{target: target, old: old} <- files, into: %{}, do: {Transaction.real(target), old}
  end

  # The digest of a folder below the root, as a manifest has it; nil where there is none.
  defp digest(root, path, patched) do
    folder = Path.join(root, path)

    case Enum.reduce(patched, Map.new(below(folder)), &unpatched(&1, &2, folder)) do
      none when none == %{} -> nil
      files -> files |> Enum.to_list() |> Upgrade.folder_digest()
    end
  end

  defp unpatched({target, old}, files, folder) do
    case Path.relative_to(target, folder) do
      ^target -> files
      relative when old == nil -> Map.delete(files, relative)
      relative -> Map.put(files, relative, old)
    end
  end

  # All files at once: of a whole OTP there are some thousand. Links count as what they lead to, as where the archive
  # was built.
  defp below(folder) do
    folder
    |> files("")
    |> Task.async_stream(&{&1, Transaction.digest(Path.join(folder, &1))}, timeout: :infinity)
    |> Enum.map(fn {:ok, file} -> file end)
  end

  # Folders within each other that are more than this lead in circles.
  @deepest 32

  defp files(folder, below, depth \\ 0)
  defp files(_folder, _below, @deepest), do: []

  defp files(folder, below, depth) do
    case File.ls(Path.join(folder, below)) do
      {:ok, names} -> Enum.flat_map(names, &file(folder, Path.join(below, &1), depth))
      {:error, _posix} -> []
    end
  end

  defp file(folder, path, depth) do
    case File.stat(Path.join(folder, path)) do
      {:ok, %File.Stat{type: :directory}} -> files(folder, path, depth + 1)
      {:ok, %File.Stat{type: :regular}} -> if temporary?(path), do: [], else: [path]
      _something_else -> []
    end
  end

  @doc "The verdicts on all files, and those on modules that go."
  @spec verdicts(Course.t(), Payload.t()) :: [Verdict.t()]
  def verdicts(course, payload) do
    taken = taken(course, payload.entries)
    types = Map.new(course.applications, &{&1.new, &1.type})

    for(entry <- payload.entries, do: judge(entry, {course, taken, types}, payload)) ++
      removed(course, payload)
  end

  # A folder that is there already is this upgrade's own, unpacked before, or nobody's to write into.
  defp taken(course, entries) do
    ours = Map.new(entries, &{&1.path, &1.sha256})
    runtime = "erts-#{course.erts}"
    brings? = Enum.any?(entries, &(folder_of(&1) == runtime))

    for folder <- if(brings?, do: [runtime], else: []) ++ new_folders(course),
        {path, _stat} <- Folder.tree(Path.join(course.root, folder)),
        File.regular?(path),
        relative = Path.relative_to(path, course.root),
        not temporary?(relative),
        Transaction.digest(path) != ours[relative],
        into: %{},
        do: {folder, relative}
  end

  # What a node of this host is about to put there.
  defp temporary?(path), do: String.contains?(Path.basename(path), ".hot_patch-")

  @doc "The folders that an upgrade brings."
  @spec new_folders(Course.t()) :: [Path.t()]
  def new_folders(course) do
    own = for %{new: new} when new != nil <- course.applications, do: new
    own ++ ["releases/#{elem(course.to, 1)}"]
  end

  defp judge(entry, {course, taken, types}, payload) do
    folder = folder_of(entry)
    target = Path.join(course.root, entry.path)

    cond do
      other = taken[folder] ->
        Verdict.new(entry, :error, in_the_way(course, folder, other))

      entry.kind == :damaged ->
        Verdict.new(entry, :error, entry.reason)

      entry.kind == :other ->
        Verdict.carried(entry, "no Erlang module: it comes to a new folder", target)

      true ->
        judge_module(entry, target, types[folder], payload)
    end
  end

  defp in_the_way(course, folder, other) do
    "#{Path.join(course.root, folder)} is there already and is not what the upgrade brings (#{other}): remove it, with " <>
      "HotPatch.remove_release/1 where it is of a release that HotPatch has unpacked"
  end

  # A module that the node has in another folder is still the same module: what counts is the code.
  defp judge_module(%Entry{beam: beam} = entry, target, type, payload) do
    {have, present} = have(beam.module, target)
    ran = ran(beam, have, present, payload)

    with :ok <- BaseVersion.check(beam.module, present, base(have), payload),
         {:load, change} <- wanted(beam, have, type),
         :ok <- LoadRules.check(beam, payload),
         :ok <- PreviousCode.restorable(ran, present, payload) do
      %Verdict{
        entry: entry,
        status: :ok,
        reason: PreviousCode.remark(ran, present),
        ran: ran,
        target: target,
        former: if(have != :new, do: present),
        change: change,
        new?: change == :add,
        alone?: beam.on_load
      }
    else
      {status, reason} -> %{Verdict.new(entry, status, reason, target) | ran: ran}
    end
  end

  @spec have(String.t(), Path.t()) :: {:loaded | :on_disk | :new | :system, Path.t()}
  defp have(name, target) do
    case LoadedCode.path(name) do
      {:loaded, :no_file} -> {:loaded, target}
      {have, path} -> {have, path}
      :none -> {:new, target}
      :system -> {:system, target}
    end
  end

  defp base(:system), do: :loaded
  defp base(have), do: have

  defp ran(beam, :loaded, present, payload) do
    {:ok, module} = LoadedCode.module(beam.module)
    facts = LoadedCode.facts(module)
    brought? = facts != nil and LoadedCode.same?(facts, beam.md5, beam.vsn)
    PreviousCode.find(module, present, brought?, payload.patch)
  end

  defp ran(_beam, _not_loaded, _present, _payload), do: :file

  defp wanted(beam, :system, _type), do: {:error, SystemLibrary.reason(beam.module, "erts")}

  defp wanted(beam, :loaded, _type) do
    {:ok, module} = LoadedCode.module(beam.module)

    case LoadedCode.facts(module) do
      %{} = facts ->
        if LoadedCode.same?(facts, beam.md5, beam.vsn),
          do: {:ok, "the same code runs already, and stays; its file comes"},
          else: {:load, :replace}

      nil ->
        {:load, :add}
    end
  end

  # An application that nobody loads has its modules loaded by nobody.
  defp wanted(_beam, _have, :none),
    do: {:not_loaded, "the new release does not load this application by itself"}

  # With the others of the release it becomes current in the same step.
  defp wanted(_beam, _on_disk_or_new, _type), do: {:load, :add}

  # Their files stay: the former release boots from them.
  defp removed(course, payload) do
    for verdict <- RemovalRules.verdicts(payload), do: removal(verdict, course)
  end

  defp removal(verdict, course) do
    verdict = %{verdict | disk?: false, disk: :entry, former: verdict.target}

    cond do
      Status.refuses?(verdict.status) -> verdict
      Course.leaves?(course, verdict.entry.path) -> later(verdict)
      verdict.status == :ok -> %{verdict | reason: nil}
      true -> verdict
    end
  end

  # With its application, when nobody needs that any more. Its processes are no hindrance.
  defp later(%{status: status} = verdict) when status in [:ok, :not_updated],
    do: %{verdict | status: :ok, change: nil, transient?: false, reason: @with_application}

  defp later(verdict), do: verdict

  @doc """
  The verdicts, with what would wait for a restart as what is refused: a restart boots the former release.
  """
  @spec live([Verdict.t()]) :: [Verdict.t()]
  def live(verdicts), do: Enum.map(verdicts, &live_one/1)

  defp live_one(%Verdict{status: :not_updated, transient?: false, held_back?: false} = verdict) do
    Verdict.change_status(
      verdict,
      :error,
      "#{verdict.reason}: an upgrade changes all or nothing, and a restart boots the release of before; #{@by_restart}"
    )
  end

  defp live_one(verdict), do: verdict

  @doc "What changes in environments, and the course with it; or why that is not known."
  @spec configured(Course.t(), Payload.t()) :: {:ok, Course.t(), [map()]} | {:error, String.t()}
  def configured(course, payload) do
    with {:ok, configuration} <- Configuration.evaluate(course, payload.entries),
         :ok <- OwnOptions.check(configuration.new, elem(course.to, 1)) do
      {:ok, %{course | configuration: configuration}, Configuration.foresee(configuration)}
    end
  end

  @doc """
  Of one that comes by a restart: whether the start of the new release finds what this node keeps; where that cannot be
  told, what is not known, in words. It may be of another Elixir, so that what cannot be evaluated here is no fault of it.
  """
  @spec finds_data(Course.t(), Payload.t()) :: {:ok, [String.t()]} | {:error, String.t()}
  def finds_data(course, payload) do
    case Configuration.evaluate(course, payload.entries) do
      {:ok, configuration} ->
        with :ok <- OwnOptions.check(configuration.new, elem(course.to, 1)), do: {:ok, []}

      {:error, text} ->
        {:ok,
         [
           "whether #{elem(course.to, 1)} has HotPatch keep its data where this node does is not known: if it has another data_dir, " <>
             "a node that starts in it does not find what it is to confirm, and goes back (#{text})"
         ]}
    end
  end
end
