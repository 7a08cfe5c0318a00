defmodule HotPatch.Host.ReleaseListing do
  @moduledoc false
  # Which releases there are on this node, and what is known of each. OTP's release handler knows best, and
  # does not run everywhere; what it has written, `RELEASES`, comes next; `mix release` writes no such
  # file, and then there is what lies on disk and which of it the next start boots.

  alias HotPatch.Host.NextBoot
  alias HotPatch.Host.ReleaseSource
  alias HotPatch.Host.UpgradedRelease
  alias HotPatch.Release
  alias HotPatch.Support.FileName
  alias HotPatch.Support.Folder

  @type status :: :unpacked | :current | :permanent | :old

  @typedoc "A release; of what is nil nobody here knows."
  @type entry :: %{
          name: String.t(),
          version: String.t(),
          status: status() | nil,
          running?: boolean(),
          boots?: boolean() | nil,
          note: String.t() | nil
        }

  @typep source :: :release_handler | :file | :nobody

  # Boot scripts that release tools add for themselves.
  @not_the_system ~w(start_clean no_dot_erlang)

  @statuses [:unpacked, :current, :permanent, :old]

  @doc "All releases of this node, the one that runs first; none where it runs without a release."
  @spec list() :: [entry()]
  def list do
    case ReleaseSource.booted() do
      nil -> []
      booted -> entries(UpgradedRelease.get() || ReleaseSource.installed() || booted, folder())
    end
  end

  defp entries(running, folder) do
    {source, known} = known(folder)
    boots = boots(folder)
    ids = [running | Enum.map(known, &elem(&1, 0)) ++ on_disk(folder)]

    for {_name, version} = id <- Enum.uniq(ids) do
      about = %{running?: id == running, boots?: boots && boots == version}
      entry(id, List.keyfind(known, id, 0), source, about)
    end
  end

  @doc false
  # What is known of one, given what the source says of it.
  @spec entry(ReleaseSource.id(), {ReleaseSource.id(), atom()} | nil, source(), map()) :: entry()
  def entry({name, version}, said, source, about) do
    status = status(said && elem(said, 1), source, about)
    note = note(status, said, source, about)
    Map.merge(about, %{name: name, version: version, status: status, note: note})
  end

  # What the release handler writes while it installs. Where it has not come back since, a restart has
  # taken another release.
  defp status(:tmp_current, _source, about),
    do: if(about.running?, do: :current, else: :unpacked)

  # Of its file it sets that right when it starts.
  defp status(:current, :file, %{running?: false}), do: :unpacked
  defp status(said, _source, _about) when said in @statuses, do: said
  defp status(_said, :release_handler, _about), do: nil
  defp status(_said, _source, %{boots?: true}), do: :permanent
  defp status(_said, _source, %{running?: true}), do: :current
  defp status(_said, _source, _about), do: nil

  defp note(nil, nil, :release_handler, _about),
    do: "it lies on disk, and release_handler does not know it (release_handler:set_unpacked/2)"

  defp note(nil, _said, :file, _about), do: "it lies on disk, and RELEASES does not name it"

  defp note(nil, _said, :nobody, _about),
    do: "whether it has run before is written nowhere: this system has no RELEASES"

  defp note(:permanent, said, _source, %{boots?: false}) when said != nil,
    do: "it counts as permanent, and start_erl.data names another for the next start"

  defp note(status, said, _source, %{boots?: true}) when said != nil and status != :permanent,
    do: "it does not count as permanent, and start_erl.data names it for the next start"

  defp note(_status, _said, _source, _about), do: nil

  @spec known(Path.t() | nil) :: {source(), [{ReleaseSource.id(), atom()}]}
  defp known(folder) do
    with :error <- if(handled?(folder), do: ReleaseSource.listed(), else: :error),
         :error <- written(folder) do
      {:nobody, []}
    else
      {:ok, listed} ->
        {:release_handler, for({name, vsn, _libs, status} <- listed, do: {id(name, vsn), status})}

      {:written, releases} ->
        {:file, releases}
    end
  end

  # Of a release without an ERTS of its own, whose root is another folder than OTP's, the handler knows nothing where
  # nobody has told it: it lists what lies beside the host's OTP then.
  defp handled?(nil), do: true

  defp handled?(folder) do
    folder == named() or Folder.resolve(folder) == Folder.resolve(below(otp()))
  end

  defp otp, do: FileName.to_binary(:code.root_dir())

  # A list of {release, Name, Vsn, ErtsVsn, Libs, Status}.
  defp written(nil), do: :error

  defp written(folder) do
    case :file.consult(Path.join(folder, "RELEASES")) do
      {:ok, [[_ | _] = list]} ->
        {:written,
         for({:release, name, vsn, _erts, _libs, status} <- list, do: {id(name, vsn), status})}

      _none_or_damaged ->
        :error
    end
  end

  defp id(name, vsn), do: {to_string(name), to_string(vsn)}

  defp boots(nil), do: nil
  defp boots(folder), do: NextBoot.version(Path.dirname(folder))

  defp on_disk(nil), do: []

  # A .rel file is called by the release, and where release_handler has unpacked it by the version too.
  defp on_disk(folder) do
    for place <- Folder.folders(folder),
        version = Path.basename(place),
        file <- Folder.files(place, ".rel"),
        name = file |> Path.basename(".rel") |> String.replace_suffix("-" <> version, ""),
        name not in @not_the_system,
        do: {name, version}
  end

  # As the release handler finds it, but for the last.
  defp folder, do: named() || below(Release.root())

  defp named do
    case Application.fetch_env(:sasl, :releases_dir) do
      {:ok, [_ | _] = folder} -> FileName.to_binary(folder)
      _unset -> FileName.from_environment("RELDIR")
    end
  end

  defp below(nil), do: nil
  defp below(root), do: Path.join(root, "releases")
end
