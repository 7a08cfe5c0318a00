defmodule HotPatch.Application do
  @moduledoc false
  # What runs on every node: the agent, and what keeps it in agreement with the others.

  use Application

  @impl Application
  def start(_type, _args) do
    :ok = HotPatch.Agent.Boot.run()

    # Progress first: who only listens is not concerned when an agent dies.
    # The console last: whatever becomes of it is its own affair.
    children = [
      HotPatch.Cluster.Progress,
      HotPatch.Agent.Server,
      HotPatch.Cluster.Joiner,
      HotPatch.Console
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: HotPatch.Supervisor)
  end
end
