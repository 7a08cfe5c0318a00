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
      description: "Hot patches for running Erlang and Elixir clusters"
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
end
