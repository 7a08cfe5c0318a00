defmodule Exchange.MixProject do
  use Mix.Project

  # A patch is bound to one version of the system, so every build below has this version.
  @version "1.0.0"

  @builds ~w(shipped patched broken)

  def project do
    build = build()

    [
      app: :exchange,
      version: @version,
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(build),
      build_path: "_build/#{build}",
      start_permanent: Mix.env() == :prod,
      deps: [{:hot_patch, path: "../.."}],
      releases: [exchange: [quiet: true]]
    ]
  end

  def application do
    # inets and ssl serve the page of HotPatch.
    [mod: {Exchange.Application, []}, extra_applications: [:logger, :inets, :ssl]]
  end

  defp build do
    build = System.get_env("EXCHANGE_BUILD", "shipped")

    if build not in @builds do
      Mix.raise(
        "EXCHANGE_BUILD is #{inspect(build)}, expected one of: #{Enum.join(@builds, ", ")}"
      )
    end

    build
  end

  # The broken build is the patched one but for its calls.
  defp elixirc_paths("broken") do
    ["lib", "builds/broken"] ++
      (Path.wildcard("builds/patched/*.ex") -- ["builds/patched/call.ex"])
  end

  defp elixirc_paths(build), do: ["lib", "builds/#{build}"]
end
