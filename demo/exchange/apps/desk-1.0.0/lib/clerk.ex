defmodule Desk.Clerk do
  @moduledoc """
  Whom callers ask.

  State in this version: how often that was.
  """

  use GenServer

  @vsn 1

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Asks; answers how often that was done."
  @spec ask() :: pos_integer()
  def ask, do: GenServer.call(__MODULE__, :ask)

  @impl GenServer
  def init([]), do: {:ok, 0}

  @impl GenServer
  def handle_call(:ask, _from, asked), do: {:reply, asked + 1, asked + 1}
end
