defmodule Rates.V010.MixProject do
  use Mix.Project

  def project do
    [
      app: :rates,
      version: "0.1.0",
      elixir: "~> 1.14",
      deps: [{:dialling, path: "../dialling-1.1.0"}]
    ]
  end

  def application, do: [mod: {Rates.Application, []}, extra_applications: [:logger]]
end
