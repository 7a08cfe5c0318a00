defmodule Desk.V100.MixProject do
  use Mix.Project

  def project do
    [app: :desk, version: "1.0.0", elixir: "~> 1.14", deps: []]
  end

  def application, do: [mod: {Desk.Application, []}, extra_applications: [:logger]]
end
