defmodule Desk.Supervisor do
  @moduledoc false

  use Supervisor

  @spec start_link() :: Supervisor.on_start()
  def start_link, do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl Supervisor
  def init([]), do: Supervisor.init([Desk.Clerk, Desk.Statistics], strategy: :one_for_one)
end
