defmodule HotPatch.Manifest do
  @moduledoc """
  What the one who built a patch says of it: the entry `hot_patch.json` of the archive.

  The reader has checked that it covers the archive's files exactly, each by its SHA-256. All
  names are text.

    * `:bytes` - the entry itself, which is what a signature covers
    * `:name` - the patch's name
    * `:release` - the release that it is for, or `nil`
    * `:upgrade` - what takes the system to the next version of that release, as `HotPatch.Upgrade`, or `nil`
      of a patch
    * `:built_with` - `otp`, `elixir`, `hot_patch`: versions, or `nil`
    * `:author`, `:text` - who made it, and what for
    * #{Enum.map_join(HotPatch.Options.declared(), ", ", &"`:#{&1.name}`")} - the defaults of the options of `HotPatch.apply/2`
    * `:modules` - by name: `change` (`:add`, `:replace`, or `:any` where the base is not known),
      the versions `replaces` and `brings`
    * `:removed` - files that the patch takes away, with their modules; a module that is among
      `:modules` too moves from there
    * `:load_order` - names of modules
    * `:instructions` - `up` and `down`: instructions as in an `.appup`, as text. They are carried out on every
      node that the patch changes, `down` by its rollback; a plan says in which order, and what of it
      cannot be undone. Beside OTP's there is `{update, Module, {supervisor, children}}`: supervisors
      start new children and stop those that are gone
    * `:config` - changes of applications' environments: `application`, `key`, `value` as text
    * `:follows` - the patch that has to be in force before this one and as long as this one is: its name, and the modules that it brings with
      their versions; or `nil`
    * `:accepted_findings` - what the author has accepted of what was found
  """

  alias HotPatch.Options
  alias HotPatch.Release
  alias HotPatch.Upgrade

  @typedoc "What tells two versions of a module apart; `vsn` is text, as Erlang writes the term."
  @type version :: %{md5: String.t(), vsn: String.t() | nil}
  @type module_entry :: %{
          change: :add | :replace | :any,
          replaces: version() | nil,
          brings: version()
        }
  @type removed :: %{
          path: Path.t(),
          module: %{name: String.t(), replaces: version()} | nil
        }
  @type t :: %__MODULE__{
          unquote_splicing(
            for(%{name: name} <- Options.declared(), do: {name, Options.spec(:build, name)})
          ),
          bytes: binary(),
          name: String.t(),
          release: Release.t() | nil,
          upgrade: Upgrade.t() | nil,
          built_with: %{atom() => String.t() | nil},
          author: String.t() | nil,
          text: String.t() | nil,
          modules: %{String.t() => module_entry()},
          removed: [removed()],
          load_order: [String.t()],
          instructions: %{up: [String.t()], down: [String.t()]},
          config: [%{application: String.t(), key: String.t(), value: String.t()}],
          follows: follows() | nil,
          accepted_findings: [
            %{rule: String.t(), module: String.t() | nil, reason: String.t() | nil}
          ]
        }

  @typedoc "The first of two patches."
  @type follows :: %{name: String.t(), modules: %{String.t() => version()}}

  @typedoc "By option of an apply: what the manifest says, and what was given in its place."
  @type overridden :: %{atom() => %{manifest: term(), given: term()}}

  @enforce_keys [:bytes, :name, :release, :built_with, :modules]
  defstruct [
              :bytes,
              :name,
              :release,
              :built_with,
              :author,
              :text,
              :modules,
              :follows,
              upgrade: nil,
              removed: [],
              load_order: [],
              instructions: %{up: [], down: []},
              config: [],
              accepted_findings: []
            ] ++ for(option <- Options.declared(), do: {option.name, option.default})

  @changes %{"add" => :add, "replace" => :replace, "any" => :any}

  @doc false
  @spec new(%{content: map(), bytes: binary()} | nil) :: t() | nil
  def new(nil), do: nil

  # The schema was checked where the archive was read: every field is there.
  def new(%{content: content, bytes: bytes}) do
    manifest = %__MODULE__{
      bytes: bytes,
      name: content["name"],
      release: release(content["release"]),
      upgrade: Upgrade.new(content["upgrade"]),
      built_with: plain(content["built_with"], [:otp, :elixir, :hot_patch]),
      author: content["author"],
      text: content["text"],
      modules: for(%{"module" => %{} = m} <- content["files"], into: %{}, do: module_entry(m)),
      removed: Enum.map(content["removed"], &removed/1),
      load_order: content["load_order"],
      instructions: plain(content["instructions"], [:up, :down]),
      config: Enum.map(content["config"], &plain(&1, [:application, :key, :value])),
      follows: follows(content["follows"]),
      accepted_findings:
        Enum.map(content["accepted_findings"], &plain(&1, [:rule, :module, :reason]))
    }

    struct!(manifest, Options.declared(content))
  end

  defp release(nil), do: nil
  defp release(%{"name" => name, "version" => vsn}), do: %Release{name: name, version: vsn}

  defp module_entry(module) do
    {module["name"],
     %{
       change: Map.fetch!(@changes, module["change"]),
       replaces: version(module["replaces"]),
       brings: version(module["brings"])
     }}
  end

  defp removed(%{"path" => path, "module" => nil}), do: %{path: path, module: nil}

  defp removed(%{"path" => path, "module" => module}) do
    %{path: path, module: %{name: module["name"], replaces: version(module["replaces"])}}
  end

  defp follows(nil), do: nil

  defp follows(%{"name" => name, "modules" => modules}) do
    %{
      name: name,
      modules: for(one <- modules, into: %{}, do: {one["name"], version(one["version"])})
    }
  end

  defp version(nil), do: nil
  defp version(version), do: plain(version, [:md5, :vsn])

  defp plain(map, keys), do: Map.new(keys, &{&1, map[Atom.to_string(&1)]})

  @doc false
  # The modules that the patch moves from one application to another, with their former files.
  @spec moved(t()) :: %{String.t() => removed()}
  def moved(manifest) do
    for %{module: %{name: name}} = removed <- manifest.removed,
        is_map_key(manifest.modules, name),
        into: %{},
        do: {name, removed}
  end

  @doc "The version to which an upgrade leads; `nil` of a patch."
  @spec to(t()) :: String.t() | nil
  def to(%__MODULE__{upgrade: upgrade}), do: upgrade && upgrade.to

  @doc "Whether a module comes in the very version that it takes the place of, as those of an upgrade may."
  @spec unchanged?(t(), String.t()) :: boolean()
  def unchanged?(manifest, module) do
    case manifest.modules do
      %{^module => %{replaces: version, brings: version}} -> true
      _changed_or_not_there -> false
    end
  end

  @doc "What it says beside the files, in lines for people."
  @spec lines(t()) :: [String.t()]
  def lines(manifest) do
    [
      "manifest: #{manifest.name}#{for_release(manifest.release)}#{by(manifest.author)}",
      text(manifest.text),
      upgrade(manifest),
      Enum.join(
        for(option <- Options.declared(), line = declared(option, manifest), do: line),
        ", "
      ),
      for(removed <- manifest.removed, do: removed_line(removed, moved(manifest))),
      for({way, texts} <- manifest.instructions, text <- texts, do: "#{way}: #{text}"),
      for(c <- manifest.config, do: "sets #{c.application} #{c.key}"),
      follows_line(manifest.follows),
      for(accepted <- accepted(manifest), do: "accepted: #{accepted}")
    ]
    |> List.flatten()
    |> Enum.reject(&(&1 == ""))
  end

  defp upgrade(%{upgrade: nil}), do: []
  defp upgrade(manifest), do: Upgrade.lines(manifest.upgrade, manifest.release.version)

  defp declared(%{type: :boolean, name: name}, manifest),
    do: if(Map.fetch!(manifest, name), do: name)

  defp declared(%{name: name}, manifest), do: "#{name} #{Map.fetch!(manifest, name)}"

  defp removed_line(%{path: path, module: %{name: name}}, moved) when is_map_key(moved, name),
    do: "moves #{String.replace_prefix(name, "Elixir.", "")} from #{path}"

  defp removed_line(%{path: path}, _moved), do: "removes #{path}"

  @doc "What its author has accepted of what was found, as it is written when it is accepted."
  @spec accepted(t() | nil) :: [String.t()]
  def accepted(nil), do: []

  def accepted(manifest) do
    for %{rule: rule, module: module, reason: reason} <- manifest.accepted_findings do
      of = if module, do: ":" <> String.replace_prefix(module, "Elixir.", ""), else: ""
      rule <> of <> if(reason, do: " (#{reason})", else: "")
    end
  end

  defp follows_line(nil), do: []

  defp follows_line(%{name: name, modules: modules}),
    do:
      "comes after #{name} (#{Enum.map_join(modules, ", ", fn {module, _} -> String.replace_prefix(module, "Elixir.", "") end)})"

  defp for_release(nil), do: ""
  defp for_release(release), do: " for #{release}"
  defp by(nil), do: ""
  defp by(author), do: " by #{author}"
  defp text(nil), do: []
  # The author's own words, marked as such: no line of them can pass for one of ours.
  defp text(text), do: for(line <- String.split(text, ["\r\n", "\n"]), do: "| " <> line)

  @doc "What was given in place of what a manifest says, in words."
  @spec overridden_line(overridden()) :: String.t()
  def overridden_line(overridden) do
    Enum.map_join(overridden, ", ", fn {option, said} ->
      "#{option} #{said.given} instead of the manifest's #{said.manifest}"
    end)
  end

  defimpl Inspect do
    def inspect(manifest, _options),
      do: HotPatch.Support.Printable.line("#HotPatch.Manifest<#{manifest.name}>")
  end
end
