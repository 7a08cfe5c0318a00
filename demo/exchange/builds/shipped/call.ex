defmodule Exchange.Call do
  @moduledoc """
  One call in progress.

  State in this build: `{id, from, to, seconds, requests}`.
  """

  use GenServer, restart: :temporary

  alias Exchange.{Billing, Meter, Numbering, Record, Trunk}

  @vsn 1

  @spec start_link({pos_integer(), Numbering.t(), Numbering.t()}) ::
          GenServer.on_start()
  def start_link({id, _from, _to} = call) do
    GenServer.start_link(__MODULE__, call, name: Exchange.name({:call, id}))
  end

  @impl GenServer
  def init({id, from, to}) do
    case Trunk.seize(Numbering.zone(to)) do
      :ok -> {:ok, {id, from, to, 0, 0}}
      {:error, :no_line} -> {:stop, :no_line}
    end
  end

  @impl GenServer
  def handle_call({:talk, more}, _from, {id, from, to, seconds, requests}) do
    Meter.add(more)
    state = {id, from, to, seconds + more, requests + 1}
    {:reply, info(state), state}
  end

  def handle_call(:info, _from, {id, from, to, seconds, requests}) do
    state = {id, from, to, seconds, requests + 1}
    {:reply, info(state), state}
  end

  def handle_call(:charge, _from, {id, from, to, seconds, requests}) do
    {:reply, Billing.charge(to, seconds), {id, from, to, seconds, requests + 1}}
  end

  def handle_call(:hang_up, _from, {id, from, to, seconds, _requests} = state) do
    cents = Billing.charge(to, seconds)
    record = %Record{id: id, from: from, to: to, seconds: seconds, cents: cents}
    :ok = :gen_event.notify(Exchange.Events, {:call_ended, record})
    {:stop, :normal, record, state}
  end

  defp info({id, from, to, seconds, requests}) do
    %{id: id, from: from, to: to, seconds: seconds, requests: requests}
  end
end
