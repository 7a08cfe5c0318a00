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
      deps: [],
      # Of sasl, which only tests call, where it is started.
      elixirc_options: [no_warn_undefined: [:systools, :release_handler]],
      name: "HotPatch",
      description: "Hot patches for running Erlang and Elixir clusters",
      package: package(),
      docs: docs()
    ]
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
      files:
        ~w(lib native/beam native/build native/core native/loader native/nif native/port Cargo.toml Cargo.lock docs) ++
          ~w(mix.exs .formatter.exs README.md CHANGELOG.md CONTRIBUTING.md LICENSE)
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
