defmodule Rates do
  @moduledoc "What a minute costs. The prices are a process's, and read without it."

  use GenServer

  @vsn 1

  @cents_per_minute %{local: 3, national: 10, abroad: 45}

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "The price in cents of a minute to a number."
  @spec cents_per_minute(String.t()) :: pos_integer()
  def cents_per_minute(number),
    do: :ets.lookup_element(__MODULE__, Dialling.zone(number), 2)

  @impl GenServer
  def init([]) do
    table = :ets.new(__MODULE__, [:named_table, read_concurrency: true])
    true = :ets.insert(table, Map.to_list(@cents_per_minute))
    {:ok, table}
  end
end
