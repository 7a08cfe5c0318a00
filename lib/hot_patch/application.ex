defmodule HotPatch.Application do
  @moduledoc false
  # What runs on every node: one agent, and the supervisor of the operations that this
  # node coordinates.

  use Application

  @impl Application
  def start(_type, _args) do
    :ok = HotPatch.Agent.Boot.load_added()

    children = [
      {Task.Supervisor, name: HotPatch.Operations},
      HotPatch.Agent
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: HotPatch.Supervisor)
  end
end
