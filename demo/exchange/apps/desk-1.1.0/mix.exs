defmodule Desk.V110.MixProject do
  use Mix.Project

  def project do
    [app: :desk, version: "1.1.0", elixir: "~> 1.14", deps: []]
  end

  def application, do: [mod: {Desk.Application, []}, extra_applications: [:logger]]
end
