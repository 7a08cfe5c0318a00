defmodule Notices do
  @moduledoc "Letters to subscribers, which are not written any more from 1.1.0 on."

  use GenServer

  @vsn 1

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "The head of a letter."
  @spec head(String.t()) :: String.t()
  def head(number), do: GenServer.call(__MODULE__, {:head, number})

  @impl GenServer
  def init([]), do: {:ok, []}

  @impl GenServer
  def handle_call({:head, number}, _from, state),
    do: {:reply, "To #{Dialling.written(number)}", state}
end
