defmodule HotPatch.Cluster.Readiness do
  @moduledoc false
  # Whether HotPatch runs on this node: without it nothing is known here of any patch.

  alias HotPatch.Error

  @doc "Nothing, or why it cannot be asked here."
  @spec check() :: :ok | {:error, Error.t()}
  def check do
    if Process.whereis(HotPatch.Supervisor), do: :ok, else: {:error, error()}
  end

  @doc "The error of one who asks where it does not run."
  @spec error() :: Error.t()
  def error do
    Error.new(
      :unmanaged,
      "HotPatch is not started on this node (#{node()}): #{hint(:init.get_status(), System.get_env("RELEASE_COMMAND"))}",
      %{nodes: [node()]}
    )
  end

  @doc false
  # A release's own script says what it was called for.
  @spec hint({atom(), term()}, String.t() | nil) :: String.t()
  def hint(_status, "eval") do
    "eval runs in a VM of its own, which starts nothing and knows no other node; use rpc instead, which " <>
      "runs on the node itself"
  end

  def hint({:starting, _how_far}, _command),
    do: "the system is still starting; ask again when it has"

  def hint({:stopping, _how_far}, _command), do: "the system is about to end"

  def hint(_started, _command),
    do: "call Application.ensure_all_started(:hot_patch), or call it on a node that runs"
end
