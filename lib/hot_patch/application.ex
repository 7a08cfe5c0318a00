defmodule HotPatch.Application do
  @moduledoc false
  # What runs on every node: the agent, and what keeps it in agreement with the others.

  use Application

  @impl Application
  def start(_type, _args) do
    :ok = HotPatch.Agent.Boot.run()

    Supervisor.start_link([HotPatch.Agent.Server, HotPatch.Cluster.Joiner],
      strategy: :rest_for_one,
      name: HotPatch.Supervisor
    )
  end
end
