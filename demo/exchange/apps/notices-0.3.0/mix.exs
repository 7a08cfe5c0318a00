defmodule Notices.V030.MixProject do
  use Mix.Project

  def project do
    [
      app: :notices,
      version: "0.3.0",
      elixir: "~> 1.14",
      deps: [{:dialling, path: "../dialling-1.0.0"}]
    ]
  end

  def application, do: [mod: {Notices.Application, []}, extra_applications: [:logger]]
end
