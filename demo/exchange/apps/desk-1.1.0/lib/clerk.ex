defmodule Desk.Clerk do
  @moduledoc """
  Whom callers ask.

  State in this version: a map. That of 1.0.0, how often somebody has asked, is carried over, and back.
  """

  use GenServer

  @vsn 2

  @spec start_link(term()) :: GenServer.on_start()
  def start_link(_), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc "Asks; answers how often that was done."
  @spec ask() :: pos_integer()
  def ask, do: GenServer.call(__MODULE__, :ask)

  @impl GenServer
  def init([]), do: {:ok, %{asked: 0}}

  @impl GenServer
  def handle_call(:ask, _from, %{asked: asked} = state),
    do: {:reply, asked + 1, %{state | asked: asked + 1}}

  @impl GenServer
  def code_change({:down, 1}, %{asked: asked}, _extra), do: {:ok, asked}
  def code_change(1, asked, _extra), do: {:ok, %{asked: asked}}
end
