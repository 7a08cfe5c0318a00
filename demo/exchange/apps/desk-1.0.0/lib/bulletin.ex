defmodule Desk.Bulletin do
  @moduledoc "What hangs on the wall of the desk; nobody reads it any more."

  use GenServer

  @vsn 1

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @impl GenServer
  def init([]), do: {:ok, []}
end
