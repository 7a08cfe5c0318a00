defmodule HotPatch.Application do
  @moduledoc false
  # What runs on every node: the agent, what keeps it in agreement with the others, and the way
  # to the reader of archives, which comes last: whatever becomes of it, the others stay.

  use Application

  @impl Application
  def start(_type, _args) do
    :ok = HotPatch.Agent.Boot.run()

    children = [
      # First those that are not concerned when an agent dies.
      HotPatch.Cluster.Progress,
      HotPatch.Agent.Inbox,
      HotPatch.Agent.Server,
      HotPatch.Cluster.Joiner,
      HotPatch.Bridge.Supervisor,
      # Whatever becomes of it is its own affair.
      HotPatch.Console
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: HotPatch.Supervisor)
  end

  @impl Application
  def config_change(changed, new, removed) do
    if Keyword.has_key?(changed ++ new, :console) or :console in removed,
      do: HotPatch.Console.reload(),
      else: :ok
  end
end
