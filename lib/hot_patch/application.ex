defmodule HotPatch.Application do
  @moduledoc false
  # What runs on every node: one agent.

  use Application

  @impl Application
  def start(_type, _args) do
    :ok = HotPatch.Agent.Boot.run()

    Supervisor.start_link([HotPatch.Agent], strategy: :one_for_one, name: HotPatch.Supervisor)
  end
end
