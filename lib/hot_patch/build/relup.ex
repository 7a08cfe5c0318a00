defmodule HotPatch.Build.Relup do
  @moduledoc """
  Makes a `relup` from two releases, for those who upgrade with OTP's `release_handler`; see
  `mix hot_patch.relup`. `IO.puts/1` shows what it does, application by application.

    * `:name`, `:from`, `:to` - the release and its two versions
    * `:appups` - of each application in two versions, `{name, from, to}`, the instructions `:up` and `:down`,
      and of both in `:origins` where they are from: `:own` (the `.appup` of its authors), `:analysis` or `:restart`
    * `:added`, `:removed` - applications that are started or stopped, as `{name, version}`
    * `:protocols` - protocols that get another set of implementations
    * `:findings` - what stands out, up and down, see `HotPatch.Analysis.Finding`
    * `:notes` - what release_handler does not do with these releases, in words
    * `:relup` - the term of the file
    * `:written` - the files that were written
  """

  alias HotPatch.Analysis
  alias HotPatch.Analysis.Finding
  alias HotPatch.Bridge
  alias HotPatch.Build.Appup
  alias HotPatch.Build.Protocols
  alias HotPatch.Build.ReleaseFolder
  alias HotPatch.Build.Systools
  alias HotPatch.Error
  alias HotPatch.Host.SystemLibrary
  alias HotPatch.Options
  alias HotPatch.Support.Printable
  alias HotPatch.Support.Table

  @typedoc "The options of `run/1`."
  @type options :: unquote(Options.spec(:relup))

  @type t :: %__MODULE__{
          name: String.t(),
          from: String.t(),
          to: String.t(),
          appups: [map()],
          added: [{String.t(), String.t()}],
          removed: [{String.t(), String.t()}],
          protocols: [String.t()],
          findings: %{up: [Finding.t()], down: [Finding.t()]},
          notes: [String.t()],
          relup: tuple(),
          written: [Path.t()]
        }
  @enforce_keys [
    :name,
    :from,
    :to,
    :appups,
    :added,
    :removed,
    :protocols,
    :findings,
    :notes,
    :relup,
    :written
  ]
  defstruct @enforce_keys

  @doc """
  Makes the relup and writes it, unless one of the two ways holds something of severity `:danger` that nobody
  has accepted by name.

  ## Options

  #{Options.docs(:relup)}

  ## Errors

    * `HotPatch.Error` with `:build`, `:invalid_option`, `:file`
    * `HotPatch.Error` with `:dangerous`: `details.findings` are those that nobody has accepted

  ## Examples

      iex> {:error, error} = HotPatch.Build.Relup.run(from: "/nowhere", to: "/nowhere")
      iex> {error.reason, error.message =~ "/nowhere is no release"}
      {:build, true}
  """
  @spec run(options()) :: {:ok, t()} | {:error, Error.t()}
  def run(options) do
    with {:ok, options} <- Options.validate(:relup, options),
         :ok <- Bridge.check(),
         :ok <- Systools.available(),
         {:ok, from} <- ReleaseFolder.read(options.from),
         {:ok, to} <- ReleaseFolder.read(options.to),
         :ok <- comparable(from, to),
         :ok <- known(options.restart, from, to),
         :ok <- same_where_the_version_is(from, to),
         {:ok, appups} <- appups(from, to, options.restart),
         {:ok, findings} <- findings(from, to),
         :ok <- accepted(findings, appups, from, to, options.accept),
         {:ok, protocols, carried} <- Protocols.carry(from, to, appups),
         {:ok, relup, warnings} <- Systools.relup(from, to, Enum.map(carried, &text/1)),
         {:ok, written} <- write(relup, appups, from, to, options.out) do
      {:ok,
       %__MODULE__{
         name: to.name,
         from: from.version,
         to: to.version,
         appups: Enum.map(appups, &Map.from_struct/1),
         added: only(to, from),
         removed: only(from, to),
         protocols: protocols,
         findings: findings,
         notes: notes(to) ++ warnings,
         relup: relup,
         written: written
       }}
    end
  end

  defp comparable(from, to) do
    cond do
      from.name != to.name ->
        error(
          "one is a release of #{from.name} and the other of #{to.name}: give two of one system"
        )

      from.version == to.version ->
        error(
          "both are #{ReleaseFolder.text(to)}: what repairs one version is a patch (mix hot_patch.build)"
        )

      from.erts != to.erts ->
        error(
          "#{ReleaseFolder.text(from)} runs on ERTS #{from.erts} and #{ReleaseFolder.text(to)} on ERTS #{to.erts}: " <>
            "another runtime system cannot come live. Build both on the same Erlang/OTP, or restart the nodes " <>
            "into the new release"
        )

      true ->
        Enum.find_value([from, to], :ok, &without_sasl/1)
    end
  end

  defp without_sasl(release) do
    if not Enum.any?(release.applications, &(&1.name == "sasl")) do
      error(
        "#{ReleaseFolder.text(release)} has no sasl, which release_handler is part of: " <>
          "put :sasl into extra_applications"
      )
    end
  end

  defp known(names, from, to) do
    case names -- for({one, _other} <- pairs(from, to), do: one.name) do
      [] ->
        :ok

      [name | _] ->
        error(
          "--restart #{name}: there is no application of this name that is in both releases with another version"
        )
    end
  end

  # Release_handler changes nothing of an application whose version is the same.
  defp same_where_the_version_is(from, to) do
    different =
      for one <- from.applications,
          other <- to.applications,
          {one.name, one.version} == {other.name, other.version},
          one.ebin != other.ebin,
          modules = differing(one.ebin, other.ebin),
          modules != [],
          do: "#{one.name} #{one.version} (#{Enum.join(Enum.take(modules, 3), ", ")})"

    case different do
      [] ->
        :ok

      names ->
        error(
          "not the same in both releases, though the version is: #{Enum.join(names, "; ")}. " <>
            "release_handler changes nothing of an application whose version stays: raise it"
        )
    end
  end

  defp differing(one, other) do
    [before, later] = Enum.map([one, other], &ReleaseFolder.modules/1)
    names = Map.keys(Map.merge(before, later))
    for name <- Enum.sort(names), differ?(before[name], later[name]), do: name
  end

  defp differ?(nil, _later), do: true
  defp differ?(_before, nil), do: true
  defp differ?(before, later), do: Protocols.md5(before) != Protocols.md5(later)

  defp pairs(from, to) do
    for one <- from.applications,
        other <- to.applications,
        one.name == other.name and one.version != other.version,
        do: {one, other}
  end

  defp text(appup), do: {appup.application, appup.to, Appup.text(appup)}

  defp only(one, other) do
    names = Enum.map(other.applications, & &1.name)

    for %{name: name, version: version} <- one.applications,
        name not in names,
        do: {name, version}
  end

  defp appups(from, to, restart) do
    Enum.reduce_while(pairs(from, to), {:ok, []}, fn {one, other}, {:ok, before} ->
      case Appup.make(one, other, other.name in restart) do
        {:ok, appup} -> {:cont, {:ok, before ++ [appup]}}
        error -> {:halt, error}
      end
    end)
  end

  defp findings(from, to) do
    [before, later] = for release <- [from, to], do: all_modules(release)

    with {:ok, up} <- Analysis.run(before, later, deleted: :rest),
         {:ok, down} <- Analysis.run(later, before, deleted: :rest, direction: :down),
         do: {:ok, %{up: told(up), down: told(down)}}
  end

  # Of protocols those that run: they name the implementations that they have.
  defp all_modules(release) do
    own =
      for application <- release.applications,
          not SystemLibrary.application?(application.name),
          file <- ReleaseFolder.modules(application.ebin),
          into: %{},
          do: file

    consolidated = Map.take(ReleaseFolder.protocols(release), Map.keys(own))
    own |> Map.merge(consolidated) |> Map.values() |> Enum.map(&File.read!/1)
  end

  # Most modules of a release are the same in the next.
  defp told(analysis), do: Enum.reject(analysis.findings, &(&1.name == :module_unchanged))

  # What the authors of an appup have written, and a restart, is theirs to answer for.
  defp accepted(findings, appups, from, to, accepted) do
    all = findings.up ++ findings.down

    refused =
      for direction <- [:up, :down],
          ours = ours(direction, appups, from, to),
          finding <- findings[direction],
          finding.severity == :danger,
          MapSet.member?(ours, finding.module),
          not Finding.accepted?(finding, accepted),
          do: finding

    case Enum.find(accepted, fn name -> not Enum.any?(all, &Finding.accepted?(&1, [name])) end) do
      nil when refused == [] -> :ok
      nil -> dangerous(Enum.uniq(refused))
      name -> error("--accept #{name}: nothing of that name is found; leave it out")
    end
  end

  # The modules whose instructions the analysis makes.
  defp ours(direction, appups, from, to) do
    for appup <- appups,
        appup.origins[direction] == :analysis,
        {one, other} <- pairs(from, to),
        one.name == appup.application,
        ebin <- [one.ebin, other.ebin],
        name <- Map.keys(ReleaseFolder.modules(ebin)),
        into: MapSet.new(),
        do: name
  end

  defp dangerous(findings) do
    names = findings |> Enum.map(& &1.name) |> Enum.uniq()

    text =
      Enum.map_join(findings, " ", &"#{&1.name}: #{&1.message}") <>
        " Nothing was written because of that. Mend it, write an .appup for these applications, " <>
        "have them restarted (--restart APP), or write it all the same: " <>
        Enum.map_join(names, " ", &"--accept #{&1}")

    {:error, Error.new(:dangerous, "relup: " <> text, %{findings: findings})}
  end

  # What is not the relup's: release_handler takes the configuration from the file alone.
  defp notes(to) do
    if File.exists?(Path.join(to.folder, "runtime.exs")),
      do: [
        "runtime.exs and other config providers do not run when release_handler installs a release: it takes " <>
          "releases/#{to.version}/sys.config as it is. Have it computed there before, as Castle does"
      ],
      else: []
  end

  defp write(relup, appups, from, to, out) do
    relup_file = Path.join(out || to.folder, "relup")

    own =
      for appup <- appups,
          not appup.own?,
          application = Enum.find(to.applications, &(&1.name == appup.application)),
          do: {out_file(application, out), Appup.text(appup)}

    text = [
      "%% coding: utf-8\n",
      :unicode.characters_to_binary(:io_lib.format("~tp.~n", [relup]))
    ]

    with :ok <- no_other_way(relup_file, from),
         do: written(own ++ [{relup_file, text}])
  end

  defp out_file(application, nil), do: Appup.file(application)
  defp out_file(application, out), do: Path.join(out, Path.basename(Appup.file(application)))

  # A relup may lead from several versions; what was made for the others is not thrown away.
  defp no_other_way(file, from) do
    with {:ok, [{_vsn, ups, downs}]} when is_list(ups) and is_list(downs) <- :file.consult(file),
         [version | _] <-
           for({vsn, _, _} <- ups ++ downs, to_string(vsn) != from.version, do: vsn) do
      error(
        "#{file} is there already, and has the way from #{version} too: move it away, or give --out FOLDER"
      )
    else
      _none_or_of_this_version -> :ok
    end
  end

  defp written(files) do
    Enum.reduce_while(files, {:ok, []}, fn {path, text}, {:ok, before} ->
      with :ok <- File.mkdir_p(Path.dirname(path)), :ok <- File.write(path, text) do
        {:cont, {:ok, before ++ [path]}}
      else
        {:error, posix} ->
          why = :file.format_error(posix)
          {:halt, {:error, Error.new(:file, "relup: cannot write #{path}: #{why}")}}
      end
    end)
  end

  defp error(text), do: {:error, Error.new(:build, "relup: " <> text)}

  @doc false
  @spec to_text(t()) :: iodata()
  def to_text(relup) do
    [
      line("#{relup.name} #{relup.from} to #{relup.to}, and back"),
      for(appup <- relup.appups, do: application(appup)),
      for({name, vsn} <- relup.added, do: ["\n", line("#{name} #{vsn}: new, is started")]),
      for({name, vsn} <- relup.removed, do: ["\n", line("#{name} #{vsn}: goes, is stopped")]),
      protocols(relup.protocols),
      for(
        direction <- [:up, :down],
        found = relup.findings[direction],
        found != [],
        do: table(direction, found)
      ),
      "\n",
      for(note <- relup.notes, do: line("note: " <> note)),
      for(path <- relup.written, do: line("wrote " <> path))
    ]
  end

  # One line whatever the names in it are.
  defp line(text), do: [Printable.line(text), "\n"]

  defp application(%{origins: origins} = appup) do
    [
      ["\n", line("#{appup.application} #{appup.from} to #{appup.to}")],
      for direction <- [:up, :down] do
        [
          "  #{direction}, #{origin(origins[direction])}\n",
          instructions(Map.fetch!(appup, direction))
        ]
      end
    ]
  end

  defp origin(:own), do: "by its own appup"
  defp origin(:analysis), do: "by the analysis"
  defp origin(:restart), do: "by a restart of the application"

  defp instructions([]), do: "    nothing\n"

  defp instructions(list) do
    for instruction <- list,
        do: ["    ", line(to_string(:io_lib.format("~0tp", [instruction])))]
  end

  defp protocols([]), do: []

  defp protocols(names) do
    names = Enum.map_join(names, ", ", &String.replace_prefix(&1, "Elixir.", ""))

    [
      ["\n", line("protocols with other implementations: " <> names)],
      "  they look their implementations up at run time, and are slower, until the next start of the node\n"
    ]
  end

  defp table(direction, findings) do
    rows = for one <- findings, do: ["#{one.severity}", "#{one.name}: #{one.message}"]
    ["\n", Table.render(["severity", "what was found, #{direction}"], rows)]
  end

  defimpl String.Chars do
    def to_string(relup), do: relup |> HotPatch.Build.Relup.to_text() |> Printable.lines()
  end

  defimpl Inspect do
    def inspect(relup, _options) do
      Printable.line("#HotPatch.Build.Relup<#{relup.name} #{relup.from} to #{relup.to}>")
    end
  end
end
