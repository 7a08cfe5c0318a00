defmodule HotPatch.NodeAgent.Upgrade.Releases do
  @moduledoc false
  # What becomes of releases on this node beside what runs: which one counts as current, permanent or old, which one the
  # next start boots, and which ones are removed. OTP's release handler, where it runs, has its own idea of that,
  # which it keeps in its state and writes to `RELEASES`: it is told.

  alias HotPatch.Host.Comeback
  alias HotPatch.Host.Config
  alias HotPatch.Host.NextBoot
  alias HotPatch.Host.ReleaseSource
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Upgrade.RuntimeConfig
  alias HotPatch.Release
  alias HotPatch.Store.Applied
  alias HotPatch.Store.Journal
  alias HotPatch.Store.ReleaseFiles
  alias HotPatch.Store.Rolled
  alias HotPatch.Store.SharedHost
  alias HotPatch.Store.Transaction
  alias HotPatch.Store.Trial
  alias HotPatch.Support.FaultPoint
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  require HotPatch.Support.Log, as: Log

  # Milliseconds that the release handler may take.
  @within 1_000

  @typedoc "For the journal."
  @type facts :: %{by: String.t(), reason: String.t() | nil, from: String.t() | nil}

  @doc """
  A course has led to another release, which is current from now on; what runs no more and is not permanent has been.
  Where that cannot be written down it is logged: what runs does not depend on it.
  """
  @spec arrived(Course.t()) :: :ok
  def arrived(course) do
    mend(course.root)
    # A way back may have changed that.
    if version = NextBoot.version(course.root), do: boots_here(course.root, version)
    # Restarts that have led elsewhere before are none that this node has missed.
    _ = if Rolled.seq() > 0, do: Rolled.arrived(Course.release(course), :latest)

    change(course.root, fn entries ->
      entries
      |> known(course.root, course.from, :permanent)
      |> known(course.root, course.to, :unpacked)
      |> Enum.map(&now(&1, course.to, NextBoot.version(course.root)))
    end)
  end

  # The one that a start boots is permanent, whatever runs.
  defp now({{_name, version} = id, _status}, _runs, version), do: {id, :permanent}
  defp now({runs, _status}, runs, _boots), do: {runs, :current}
  defp now({id, :permanent}, _runs, nil), do: {id, :permanent}

  defp now({id, status}, _runs, _boots) when status in [:permanent, :current, :tmp_current],
    do: {id, :old}

  defp now(other, _runs, _boots), do: other

  @doc """
  Writes anew what says which release a start boots, where that is torn. We write it by one rename, so somebody else
  has; but no start would find its way by it. What `RELEASES` has as permanent counts, else what this VM was booted with.
  """
  @spec mend(Path.t() | nil) :: :ok
  def mend(root) do
    with true <- root != nil and ReleaseFiles.torn?(root),
         {_name, booted} <- ReleaseSource.booted(),
         version = ReleaseFiles.permanent(root) || booted,
         true <- NextBoot.there?(root, version) do
      erts = List.to_string(:erlang.system_info(:version))
      path = NextBoot.start_data(root)

      case ReleaseFiles.boot(root, erts, version) do
        :ok ->
          Log.warning("HotPatch: #{path} was torn: it says again that a start boots #{version}")

        {:error, {path, posix}} ->
          Log.error(
            "HotPatch: #{path} is torn, and no start finds a release by it: write \"#{erts} #{version}\" into it " <>
              "(#{:file.format_error(posix)})"
          )
      end
    else
      _whole_or_not_known -> :ok
    end
  end

  @doc """
  A start by what says which release boots has booted that one: it is the permanent one, in `RELEASES` too. Whoever was
  killed between the two has left another there.
  """
  @spec align(Path.t() | nil) :: :ok
  def align(root) do
    with true <- root != nil,
         {_name, booted} = id <- ReleaseSource.booted(),
         ^booted <- NextBoot.version(root),
         true <- Enum.any?(ReleaseFiles.list(root), &other_permanent?(&1, id)) do
      change(root, fn entries ->
        for {one, status} <- known(entries, root, id, :permanent) do
          cond do
            one == id -> {one, :permanent}
            status == :permanent -> {one, :old}
            true -> {one, status}
          end
        end
      end)
    else
      _agrees_or_not_known -> :ok
    end
  end

  defp other_permanent?(entry, id), do: elem(entry, 5) == :permanent and id(entry) != id

  @doc "A start has gone back to the permanent release: what was current lies there."
  @spec returned() :: :ok
  def returned do
    if root = Release.root() do
      change(root, fn entries ->
        for {id, status} <- entries,
            do: {id, if(status in [:current, :tmp_current], do: :unpacked, else: status)}
      end)
    else
      :ok
    end
  end

  @doc """
  Whether sets of files that were just finished have the next start boot another release than the one that this
  start has booted. A restart inside the VM boots that, too, from here on.
  """
  @spec other?([Transaction.intent()]) :: boolean()
  def other?(intents) do
    with [_ | _] <- intents,
         root when root != nil <- Release.root(),
         {_name, booted} <- ReleaseSource.booted(),
         version when version not in [nil, booted] <- NextBoot.version(root),
         path = Folder.resolve(NextBoot.start_data(root)),
         true <- Enum.any?(intents, &(&1.state == :decided and changes?(&1, path))) do
      boots_here(root, version)
      true
    else
      _the_same_or_not_of_ours -> false
    end
  end

  defp changes?(intent, path), do: Enum.any?(intent.files, &(Folder.resolve(&1.target) == path))

  @doc """
  That this node runs what it was booted with while its next start boots another, in words: a way back could only be written
  to the end when the node was there again, as where its disk was full, or somebody has started it by hand.
  """
  @spec start_differs() :: [String.t()]
  def start_differs do
    with root when root != nil <- Release.root(),
         {_name, booted} <- ReleaseSource.booted(),
         %Release{version: ^booted} <- Release.current(),
         version when version not in [nil, booted] <- NextBoot.version(root) do
      [
        "it runs release #{booted}, and a start boots #{version}: restart it, or make #{booted} permanent"
      ]
    else
      _the_same_or_not_known -> []
    end
  end

  @doc "Why this node could not make a release permanent; `:ok` if it can."
  @spec may_be_permanent(String.t()) :: :ok | {:error, String.t()}
  def may_be_permanent(version) do
    release = Release.current()

    cond do
      ReleaseSource.booted() == nil or Release.root() == nil ->
        {:error, "it runs without a release: nothing is made permanent there"}

      release.version != version ->
        {:error, "it runs #{Release.text(release)}, and only what runs is made permanent"}

      true ->
        :ok
    end
  end

  @doc "Has the next start boot the release that runs."
  @spec make_permanent(String.t(), facts()) :: :ok | {:error, String.t()}
  def make_permanent(version, facts) do
    root = Release.root()
    erts = List.to_string(:erlang.system_info(:version))

    with :ok <- may_be_permanent(version),
         :ok <- FaultPoint.point(:before_permanent),
         :ok <- written(ReleaseFiles.boot(root, erts, version)) do
      FaultPoint.point(:permanent)
      boots_here(root, version)
      counts_as_permanent(version, root)
      noted = note(:make_permanent, version, facts)
      :ok = keep_few(root)
      noted
    end
  end

  @doc "A node has been started in a release to which it was switched before: it is the permanent one, and runs."
  @spec started(String.t(), from :: String.t(), Path.t()) :: :ok
  def started(version, from, root) do
    %Release{name: name} = Release.current()

    change(root, fn entries ->
      entries |> known(root, {name, from}, :permanent) |> permanent({name, version}, root)
    end)

    keep_few(root)
  end

  # What the configuration keeps of the releases on disk; the rest goes, as far as it may. The last is the one whose
  # files were put there last.
  defp keep_few(root) do
    with most when most != nil <- Config.current().kept_releases,
         {_old, [_ | _] = surplus} <- root |> versions() |> Enum.split(most) do
      facts = %{by: "HotPatch", reason: "config :hot_patch, kept_releases: #{most}", from: nil}

      for version <- surplus,
          version not in SharedHost.versions(),
          {:error, text} <- [remove(version, facts)],
          do: Log.info("HotPatch: #{version} stays, though kept_releases is #{most}: #{text}")
    end

    :ok
  end

  # Those of this release on disk, the latest first.
  defp versions(root) do
    %Release{name: name} = Release.current()

    for(
      folder <- Folder.folders(Path.join(root, "releases")),
      version = Path.basename(folder),
      ReleaseFiles.entry(root, {name, version}, :unpacked) != nil,
      {:ok, %File.Stat{mtime: at}} <- [File.stat(Path.join(folder, "start.boot"), time: :posix)],
      do: {at, version}
    )
    |> Enum.sort(:desc)
    |> Enum.map(&elem(&1, 1))
  end

  defp counts_as_permanent(version, root) do
    %Release{name: name} = Release.current()
    change(root, &permanent(&1, {name, version}, root))
  end

  defp permanent(entries, one, root) do
    for {id, status} <- known(entries, root, one, :current) do
      cond do
        id == one -> {id, :permanent}
        status in [:permanent, :current, :tmp_current] -> {id, :old}
        true -> {id, status}
      end
    end
  end

  # A restart inside the VM reads the arguments with which the VM was started, and not that file.
  defp boots_here(root, version) do
    boot = of_version(:init.get_argument(:boot), root, version)
    given = :init.get_argument(:config)
    config = RuntimeConfig.of(given, root, version) || of_version(given, root, version)
    _ = if boot, do: :init.make_permanent(boot, config)
    if System.get_env("RELEASE_VSN") not in [nil, version], do: heart(root)
    environment(root, version, config)
  end

  # Heart has the environment with which this VM was started, and would hand the release that is named there to the next.
  defp heart(root) do
    with pid when is_pid(pid) <- Process.whereis(:heart),
         command when is_binary(command) <- Comeback.command(),
         false <- String.starts_with?(command, "unset "),
         unset = "unset #{Enum.join(Trial.variables(root), " ")}; #{command}",
         {:error, _too_long} <- :heart.set_cmd(FileName.to_charlist(unset)) do
      Log.error(
        "HotPatch: heart does not take its command, and starts the release of before: #{unset}"
      )
    end

    :ok
  catch
    :exit, _busy -> :ok
  end

  # What the scripts of `mix release` have told the VM: configuration providers look there.
  defp environment(root, version, config) do
    for {name, path} <- [
          {"RELEASE_SYS_CONFIG", config},
          {"RELEASE_VM_ARGS", named("RELEASE_VM_ARGS", root, version)}
        ],
        System.get_env(name) != nil and path != false,
        do: System.put_env(name, FileName.to_binary(path))

    if System.get_env("RELEASE_VSN"), do: System.put_env("RELEASE_VSN", version)
    :ok
  end

  defp named(variable, root, version) do
    case System.get_env(variable) do
      nil -> false
      value -> of_version({:ok, [[value]]}, root, version)
    end
  end

  # Only what lies among the files of a release has one of another.
  defp of_version({:ok, values}, root, version) do
    with [name | _] <- List.last(values),
         path = name |> FileName.to_binary() |> Path.expand(),
         ["releases", _vsn, file] <- path |> Path.relative_to(Path.expand(root)) |> Path.split() do
      FileName.to_charlist(Path.join([root, "releases", version, file]))
    else
      _elsewhere -> false
    end
  end

  defp of_version(:error, _root, _version), do: false

  @doc "Why this node could not remove a release; `:ok` if it can, also where it has none."
  @spec may_be_removed(String.t()) :: :ok | {:error, String.t()}
  def may_be_removed(version) do
    root = Release.root()

    cond do
      root == nil ->
        {:error, "it runs without a release"}

      Release.current().version == version ->
        {:error, "it runs #{version}"}

      NextBoot.version(root) == version or
          elem(ReleaseSource.booted(), 1) == version ->
        {:error,
         "#{version} is what its boot is of: make another permanent, and restart it, first"}

      id = goes_back_to(version) ->
        {:error, "#{version} is where a rollback of #{id} leads"}

      true ->
        :ok
    end
  end

  defp goes_back_to(version) do
    with [%{upgrade: %{course: %{from: {_name, ^version}}}, id: id} | _above] <- Applied.list() do
      id
    else
      _no_upgrade_from_there -> nil
    end
  end

  @doc "Removes the folders of a release that no other release has any of."
  @spec remove(String.t(), facts()) :: :ok | {:error, String.t()}
  def remove(version, facts) do
    with :ok <- may_be_removed(version) do
      root = Release.root()
      folder = Path.join([root, "releases", version])
      libs = libs(folder)
      others = root |> Path.join("releases") |> Folder.folders() |> Enum.reject(&(&1 == folder))
      needed = others |> Enum.flat_map(&libs/1) |> MapSet.new()

      # Nobody knows it any more before it is half gone.
      forget(root, version)
      for {_script, %{^version => own}} <- NextBoot.scripts(root), do: _ = File.rm(own)
      _ = File.rm_rf(folder)
      for one <- libs, one not in needed, do: _ = File.rm_rf(Path.join([root, "lib", one]))

      if File.dir?(folder),
        do: {:error, "cannot remove #{folder}"},
        else: note(:remove_release, version, facts)
    end
  end

  # Of each of its applications the folder.
  defp libs(folder) do
    for file <- Folder.files(folder, ".rel"),
        {:ok, [{:release, _id, _erts, applications}]} <- [:file.consult(file)],
        one <- applications,
        do: "#{elem(one, 0)}-#{elem(one, 1)}"
  end

  defp forget(root, version) do
    change(root, fn entries ->
      Enum.reject(entries, fn {{_name, vsn}, _status} -> vsn == version end)
    end)
  end

  defp note(what, version, facts) do
    release = %{Release.current() | version: version}
    Log.notice("HotPatch: #{what} of #{Release.text(release)} by #{facts.by}", by: facts.by)

    case Journal.add(what, Map.put(facts, :release, release)) do
      :ok -> :ok
      {:error, reason} -> Log.error("HotPatch: the journal cannot be written: #{inspect(reason)}")
    end
  end

  defp written(:ok), do: :ok

  defp written({:error, {path, posix}}),
    do: {:error, "cannot write #{path}: #{:file.format_error(posix)}"}

  # One that the list does not have comes with a status of its own.
  defp known(entries, _root, id, status) do
    if List.keymember?(entries, id, 0), do: entries, else: [{id, status} | entries]
  end

  # The function is given names, versions and statuses, and gives those that there are to be.
  defp change(root, fun) do
    entries = with [] <- handler(root), do: ReleaseFiles.list(root)
    have = Map.new(entries, &{id(&1), &1})

    list =
      for {id, status} <- fun.(for entry <- entries, do: {id(entry), elem(entry, 5)}),
          entry = entry(have[id], root, id, status),
          do: put_elem(entry, 5, status)

    tell(root, list)

    # As the release handler writes it: what is current is so until the next start.
    kept = for entry <- list, do: put_elem(entry, 5, kept(elem(entry, 5)))

    with {:error, {path, posix}} <- ReleaseFiles.put(root, kept) do
      Log.error(
        "HotPatch: #{path} cannot be written (#{:file.format_error(posix)}): OTP's release handler does not know " <>
          "what runs"
      )
    end

    :ok
  end

  defp kept(:current), do: :tmp_current
  defp kept(status), do: status

  # The release handler makes one up, without applications, of what the VM was booted with.
  defp entry(have, root, id, status) when have == nil or elem(have, 4) == [],
    do: ReleaseFiles.entry(root, id, status) || have

  defp entry(have, _root, _id, _status), do: have

  defp id(entry), do: {to_string(elem(entry, 1)), to_string(elem(entry, 2))}

  # What is not known of its state is left alone, and so is one that keeps the releases of another folder.
  defp handler(root) do
    with pid when is_pid(pid) <- Process.whereis(:release_handler),
         {:ok, list} <- releases(:sys.get_state(pid, @within), root) do
      list
    else
      _none_or_of_others -> []
    end
  catch
    :exit, _busy -> []
  end

  defp tell(root, list) do
    with pid when is_pid(pid) <- Process.whereis(:release_handler) do
      :sys.replace_state(
        pid,
        fn state ->
          case releases(state, root) do
            {:ok, _former} -> put_elem(state, 4, list)
            :error -> state
          end
        end,
        @within
      )
    end

    :ok
  catch
    :exit, _busy -> :ok
  end

  # {state, Unpurged, Root, ReleasesDir, Releases, ...}.
  defp releases(state, root) when elem(state, 0) == :state and is_list(elem(state, 4)) do
    list = elem(state, 4)
    folder = state |> elem(3) |> to_string() |> Folder.resolve()

    if folder == Folder.resolve(Path.join(root, "releases")) and
         Enum.all?(list, &match?({:release, _, _, _, _, _}, &1)),
       do: {:ok, list},
       else: :error
  end

  defp releases(_state, _root), do: :error
end
