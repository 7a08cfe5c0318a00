defmodule Desk.Statistics do
  @moduledoc "Since when this version serves."

  use GenServer

  @vsn 1

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "For how many seconds."
  @spec serves_for() :: non_neg_integer()
  def serves_for, do: GenServer.call(__MODULE__, :serves_for)

  @impl GenServer
  def init([]), do: {:ok, System.monotonic_time(:second)}

  @impl GenServer
  def handle_call(:serves_for, _from, since),
    do: {:reply, System.monotonic_time(:second) - since, since}
end
