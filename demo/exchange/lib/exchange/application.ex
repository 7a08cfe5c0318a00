defmodule Exchange.Application do
  @moduledoc false

  use Application

  @impl Application
  def start(_type, _args) do
    children = [
      {Registry, keys: :unique, name: Exchange.Registry},
      event_manager(),
      Exchange.Meter,
      trunks(),
      {PartitionSupervisor, child_spec: DynamicSupervisor, name: Exchange.Calls}
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: Exchange.Supervisor)
  end

  @doc false
  @spec start_event_manager() :: GenServer.on_start()
  def start_event_manager do
    with {:ok, pid} <- :gen_event.start_link({:local, Exchange.Events}),
         :ok <- :gen_event.add_handler(pid, Exchange.Cdr, []) do
      {:ok, pid}
    end
  end

  defp event_manager do
    %{
      id: Exchange.Events,
      start: {__MODULE__, :start_event_manager, []},
      modules: :dynamic
    }
  end

  defp trunks do
    trunks = for zone <- Exchange.Numbering.zones(), do: {Exchange.Trunk, zone}
    options = [strategy: :one_for_one, name: Exchange.Trunks]

    %{
      id: Exchange.Trunks,
      type: :supervisor,
      start: {Supervisor, :start_link, [trunks, options]}
    }
  end
end
