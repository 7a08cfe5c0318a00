defmodule HotPatch.Application do
  @moduledoc false
  # What runs on every node.
  #
  #     HotPatch.Supervisor (one_for_one)
  #       each under a HotPatch.Support.BackoffSupervisor of its own:
  #       Cluster.Progress      tells people how far operations are
  #       Bridge.OSProcess      the reader of archives
  #       LoaderVM              tries modules where nobody serves
  #       NodeAgent.Inbox       pieces of patches that coordinators have sent
  #       NodeAgent.FileDigests digests of files that have not changed since
  #       NodeAgent.Server      who holds this node
  #       Cluster.Reconciler    keeps this node in agreement with the others
  #       Console               the page
  #
  # None of them takes another along: each finds the others by name, when it needs them. What
  # serves people cannot end what serves patches, and none of them can end the application.

  use Application

  alias HotPatch.Cluster.Progress
  alias HotPatch.Cluster.Reconciler
  alias HotPatch.Host.Config
  alias HotPatch.Support.BackoffSupervisor

  # To start it again costs nothing: its program starts with the next request.
  @bridge [longest: 50]

  # A supervisor of one child cannot fail by itself, only be killed.
  @never_give_up [max_restarts: 1_000_000, max_seconds: 1]

  @impl Application
  def start(_type, _args) do
    :ok = Config.load()
    :ok = HotPatch.NodeAgent.Boot.run()
    # Here, in the one process that lives as long as the application.
    :ok = Progress.prepare()
    :ok = HotPatch.NodeAgent.Coordinators.prepare()

    children = [
      {BackoffSupervisor, {Progress, []}},
      {BackoffSupervisor,
       {{HotPatch.Bridge.OSProcess.Server, name: HotPatch.Bridge.OSProcess.Server}, @bridge}},
      {BackoffSupervisor, {HotPatch.LoaderVM, []}},
      {BackoffSupervisor, {HotPatch.NodeAgent.Inbox, []}},
      {BackoffSupervisor, {HotPatch.NodeAgent.FileDigests, []}},
      {BackoffSupervisor, {HotPatch.NodeAgent.Server, []}},
      {BackoffSupervisor, {Reconciler, []}},
      {BackoffSupervisor, {HotPatch.Console, []}}
    ]

    options = [strategy: :one_for_one, name: HotPatch.Supervisor] ++ @never_give_up

    with {:ok, pid} <- Supervisor.start_link(children, options) do
      # Before the applications that depend on this one start.
      :ok = Reconciler.await_first()
      {:ok, pid}
    end
  end

  # A patch, or an upgrade of the release, has changed the environment. Where the data is kept and
  # what patches are bound to stay as they were when the node started.
  @impl Application
  def config_change(changed, new, removed) do
    if Keyword.has_key?(changed ++ new, :console) or :console in removed,
      do: HotPatch.Console.reload(),
      else: Config.reload()
  end

  @impl Application
  def stop(_state), do: Config.forget()
end
