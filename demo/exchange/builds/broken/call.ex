defmodule Exchange.Call do
  @moduledoc """
  One call in progress.

  This build is a bad patch on top of the patched one: it wants to know the country called, and
  its `code_change/3` fails for some calls and succeeds for all others. Nothing of it may stay.
  """

  use GenServer, restart: :temporary

  alias Exchange.{Billing, Meter, Numbering, Record, Trunk}

  @vsn 3

  @countries %{"44" => :britain, "46" => :sweden, "49" => :germany}

  @spec start_link({pos_integer(), Numbering.t(), Numbering.t()}) ::
          GenServer.on_start()
  def start_link({id, _from, _to} = call) do
    GenServer.start_link(__MODULE__, call, name: Exchange.name({:call, id}))
  end

  @impl GenServer
  def init({id, from, to}) do
    state = %{
      id: id,
      from: from,
      to: to,
      zone: Numbering.zone(to),
      country: country(to),
      talked_ms: 0,
      requests: 0
    }

    case Trunk.seize(state.zone) do
      :ok -> {:ok, state}
      {:error, :no_line} -> {:stop, :no_line}
    end
  end

  @impl GenServer
  def handle_call(request, _from, state) do
    serve(request, Map.update!(state, :requests, &(&1 + 1)))
  end

  # The mistake: a call abroad to a country that is not in the list cannot be carried over.
  @impl GenServer
  def code_change(2, state, _extra), do: {:ok, Map.put(state, :country, country(state.to))}

  def code_change({:down, 2}, state, _extra), do: {:ok, Map.delete(state, :country)}

  defp country("00" <> rest), do: Map.fetch!(@countries, String.slice(rest, 0, 2))
  defp country(_), do: :home

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
