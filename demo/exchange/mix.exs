defmodule Exchange.MixProject do
  use Mix.Project

  # A patch is bound to one version of the system, so every build that repairs it has this version; the next
  # version of the release is reached by an upgrade.
  @version "1.0.0"
  @next "1.1.0"

  @builds ~w(shipped patched broken next)

  def project do
    build = build()

    [
      app: :exchange,
      version: if(build == "next", do: @next, else: @version),
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(build),
      build_path: "_build/#{build}",
      start_permanent: Mix.env() == :prod,
      deps: [{:hot_patch, path: "../.."} | apps(build)],
      releases: [exchange: [quiet: true] ++ settings(build)]
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

  # The other applications of the release: one is upgraded with it, one is a library, one goes and one comes.
  defp apps("next") do
    [
      {:dialling, path: "apps/dialling-1.1.0"},
      {:desk, path: "apps/desk-1.1.0"},
      {:rates, path: "apps/rates-0.1.0"}
    ]
  end

  defp apps(_build) do
    [
      {:dialling, path: "apps/dialling-1.0.0"},
      {:desk, path: "apps/desk-1.0.0"},
      {:notices, path: "apps/notices-0.3.0"}
    ]
  end

  defp settings("next"), do: [runtime_config_path: "config/runtime_next.exs"]
  defp settings(_build), do: []

  # The broken build is the patched one but for its calls, the next one but for its prices.
  defp elixirc_paths("broken"), do: ["lib", "builds/broken" | patched_but(~w(call))]
  defp elixirc_paths("next"), do: ["lib", "builds/next" | patched_but(~w(billing tariff))]
  defp elixirc_paths(build), do: ["lib", "builds/#{build}"]

  defp patched_but(names),
    do:
      Path.wildcard("builds/patched/*.ex") -- for(name <- names, do: "builds/patched/#{name}.ex")
end
