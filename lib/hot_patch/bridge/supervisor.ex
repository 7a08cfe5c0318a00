defmodule HotPatch.Bridge.Supervisor do
  @moduledoc false
  # Keeps the bridge's troubles to itself: however often its process ends, this one does not, so
  # that the agent beside it is left alone. To start the process again costs nothing: it starts
  # its program for the next request, not before.

  use Supervisor

  alias HotPatch.Bridge.Port.Server

  @doc false
  @spec start_link(term()) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl Supervisor
  def init([]) do
    Supervisor.init([{Server, name: Server}],
      strategy: :one_for_one,
      max_restarts: 1_000_000,
      max_seconds: 1
    )
  end
end
