defmodule Dialling.V110.MixProject do
  use Mix.Project

  def project do
    [app: :dialling, version: "1.1.0", elixir: "~> 1.14", deps: []]
  end

  def application, do: [extra_applications: [:logger]]
end
