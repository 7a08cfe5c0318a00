defmodule HotPatch.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :hot_patch,
      version: @version,
      elixir: "~> 1.14",
      start_permanent: Mix.env() == :prod,
      elixirc_paths: elixirc_paths(Mix.env()),
      # The Rust compiler task is part of this project, so it can only run once
      # the Elixir sources are compiled.
      compilers: Mix.compilers() ++ [:hot_patch_native],
      deps: deps(),
      # Of sasl, which only tests call, where it is started.
      elixirc_options: [no_warn_undefined: [:systools, :release_handler]],
      name: "HotPatch",
      description: "Hot patches for running Erlang and Elixir clusters",
      package: package(),
      docs: docs()
    ]
  end

  # Optional, as Mix has it: a host that has one of them has it compiled and started before us, in a version that
  # fits, and who has none needs none. They are left out where Mix has no Hex to ask, and where this project stands
  # alone (it is nobody's dependency) and they are neither fetched nor asked for: so it is built where no
  # registry of packages can be reached. `HOT_PATCH_OPTIONAL_DEPS=1 mix deps.get` and `mix hex.build` ask for them.
  # Nothing is compiled otherwise for want of one: see HotPatch.Console.Plug and HotPatch.Telemetry.
  defp deps do
    for {name, requirement} <- [plug: "~> 1.14", telemetry: "~> 1.0"],
        asked_for?() or
          (Code.ensure_loaded?(Hex) and (Mix.Project.get() != nil or fetched?(name))),
        do: {name, requirement, optional: true}
  end

  defp fetched?(name), do: File.dir?("deps/#{name}")

  defp asked_for? do
    System.get_env("HOT_PATCH_OPTIONAL_DEPS", "") not in ["", "0", "false"] or
      Enum.any?(System.argv(), &String.starts_with?(&1, "hex."))
  end

  def application do
    [
      # The console's own server, where the host brings it along. EEx is needed to compile only.
      extra_applications: [
        :logger,
        :crypto,
        :public_key,
        inets: :optional,
        ssl: :optional,
        eex: :optional
      ],
      mod: {HotPatch.Application, []}
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # The native library is built where the package is compiled, from all crates of the workspace.
  defp package do
    [
      licenses: ["Apache-2.0"],
      # No address is public yet; whoever publishes it adds `source_url` above, too.
      links: %{},
      # What script/package has made, see CONTRIBUTING.md.
      files:
        ~w(lib native/beam native/build native/core native/loader native/nif native/port Cargo.toml Cargo.lock docs) ++
          ~w(mix.exs .formatter.exs README.md CHANGELOG.md CONTRIBUTING.md LICENSE) ++
          Path.wildcard("checksum-HotPatch.Native.exs")
    ]
  end

  # Built by script/matrix docs, with Debian's ex_doc.
  defp docs do
    maintainers = ~w(docs/architecture.md docs/protocol.md CONTRIBUTING.md)
    pages = Enum.sort(Path.wildcard("docs/*.md")) -- maintainers
    maintainers = Enum.filter(maintainers, &File.exists?/1)

    [
      main: "readme",
      formatters: ["html"],
      assets: %{"docs/images" => "images", "docs/assets" => "assets"},
      extras: ["README.md"] ++ pages ++ maintainers ++ ["CHANGELOG.md", "LICENSE"],
      # They name modules that are not for users; that these exist is tested.
      skip_undefined_reference_warnings_on: maintainers,
      groups_for_extras: ["For operators": pages, "For maintainers": maintainers],
      # The first that matches counts; HotPatch and HotPatch.Host.Config stand before all groups.
      groups_for_modules: [
        Patches: [~r/^HotPatch\.(Patch|Manifest|Signature|Build|Composition|Analysis|Release)\b/],
        Results:
          [~r/^HotPatch\.(Answers|Cancellation|Drift|Error|JournalEntry|NodeInfo|Plan)\b/] ++
            [~r/^HotPatch\.(Proving|Refusal|Rehearsal|Report|Status|Straggler|Watch)\b/],
        "The host's own": [~r/^HotPatch\.(Bridge|Event|Hook|Telemetry)\b/],
        "The page": [~r/^HotPatch\.Console\b/]
      ]
    ]
  end
end
