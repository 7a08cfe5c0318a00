defmodule Exchange.Call do
  @moduledoc """
  One call in progress.

  State in this build: a map with the talk time in milliseconds and the zone worked out once.
  A call of vsn 1 (`{id, from, to, seconds, requests}`) is carried over, and back.
  """

  use GenServer, restart: :temporary

  alias Exchange.{Billing, Meter, Numbering, Record, Trunk}

  @vsn 2

  @spec start_link({pos_integer(), Numbering.t(), Numbering.t()}) ::
          GenServer.on_start()
  def start_link({id, _from, _to} = call) do
    GenServer.start_link(__MODULE__, call, name: Exchange.name({:call, id}))
  end

  @impl GenServer
  def init({id, from, to}) do
    state = %{id: id, from: from, to: to, zone: Numbering.zone(to), talked_ms: 0, requests: 0}

    case Trunk.seize(state.zone) do
      :ok -> {:ok, state}
      {:error, :no_line} -> {:stop, :no_line}
    end
  end

  @impl GenServer
  def handle_call(request, _from, state) do
    serve(request, Map.update!(state, :requests, &(&1 + 1)))
  end

  @impl GenServer
  def code_change(1, {id, from, to, seconds, requests}, _extra) do
    {:ok,
     %{
       id: id,
       from: from,
       to: to,
       zone: Numbering.zone(to),
       talked_ms: seconds * 1000,
       requests: requests
     }}
  end

  def code_change({:down, 1}, %{talked_ms: _} = state, _extra) do
    {:ok, {state.id, state.from, state.to, seconds(state), state.requests}}
  end

  defp serve({:talk, more}, state) do
    Meter.add(more)
    state = Map.update!(state, :talked_ms, &(&1 + more * 1000))
    {:reply, info(state), state}
  end

  defp serve(:info, state), do: {:reply, info(state), state}

  defp serve(:charge, state), do: {:reply, Billing.charge(state.to, seconds(state)), state}

  defp serve(:hang_up, state) do
    seconds = seconds(state)
    cents = Billing.charge(state.to, seconds)
    record = %Record{id: state.id, from: state.from, to: state.to, seconds: seconds, cents: cents}
    :ok = :gen_event.notify(Exchange.Events, {:call_ended, record})
    {:stop, :normal, record, state}
  end

  defp info(state) do
    state |> Map.take([:id, :from, :to, :requests]) |> Map.put(:seconds, seconds(state))
  end

  defp seconds(state), do: div(state.talked_ms, 1000)
end
