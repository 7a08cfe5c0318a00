defmodule Exchange.Trunk do
  @moduledoc """
  The lines to one zone: `:open` while a line is free, `:full` otherwise. A line belongs to the
  process that seized it and is free again when that process ends.

  Data in this build: `{capacity, %{monitor => holder}}`.
  """

  @behaviour :gen_statem

  alias Exchange.Numbering

  @vsn 1

  @spec child_spec(Numbering.zone()) :: Supervisor.child_spec()
  def child_spec(zone), do: %{id: {__MODULE__, zone}, start: {__MODULE__, :start_link, [zone]}}

  @spec start_link(Numbering.zone()) :: :gen_statem.start_ret()
  def start_link(zone) do
    capacity = Application.fetch_env!(:exchange, :lines_per_trunk)
    :gen_statem.start_link(Exchange.name({:trunk, zone}), __MODULE__, capacity, [])
  end

  @doc "Gives the calling process a line."
  @spec seize(Numbering.zone()) :: :ok | {:error, :no_line}
  def seize(zone), do: :gen_statem.call(Exchange.name({:trunk, zone}), :seize)

  @spec lines_in_use(Numbering.zone()) :: non_neg_integer()
  def lines_in_use(zone), do: :gen_statem.call(Exchange.name({:trunk, zone}), :lines_in_use)

  @impl :gen_statem
  def callback_mode, do: :state_functions

  @impl :gen_statem
  def init(capacity), do: {:ok, :open, {capacity, %{}}}

  @doc false
  def open({:call, {holder, _} = from}, :seize, {capacity, lines}) do
    lines = Map.put(lines, Process.monitor(holder), holder)
    next = if map_size(lines) < capacity, do: :open, else: :full
    {:next_state, next, {capacity, lines}, {:reply, from, :ok}}
  end

  def open(type, event, data), do: always(type, event, data)

  @doc false
  def full({:call, from}, :seize, _data) do
    {:keep_state_and_data, {:reply, from, {:error, :no_line}}}
  end

  def full(type, event, data), do: always(type, event, data)

  defp always({:call, from}, :lines_in_use, {_capacity, lines}) do
    {:keep_state_and_data, {:reply, from, map_size(lines)}}
  end

  defp always(:info, {:DOWN, monitor, :process, _holder, _reason}, {capacity, lines}) do
    {:next_state, :open, {capacity, Map.delete(lines, monitor)}}
  end
end
