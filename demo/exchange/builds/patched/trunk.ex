defmodule Exchange.Trunk do
  @moduledoc """
  The lines to one zone: `:open` while a line is free, `:full` otherwise. A line belongs to the
  process that seized it and is free again when that process ends.

  Data in this build: a map that also knows how many lines were ever in use at once. The data
  of vsn 1 (`{capacity, %{monitor => holder}}`) are carried over, and back.
  """

  @behaviour :gen_statem

  alias Exchange.Numbering

  @vsn 2

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

  @doc "The most lines that were in use at once, since this build runs."
  @spec peak(Numbering.zone()) :: non_neg_integer()
  def peak(zone), do: :gen_statem.call(Exchange.name({:trunk, zone}), :peak)

  @impl :gen_statem
  def callback_mode, do: :state_functions

  @impl :gen_statem
  def init(capacity), do: {:ok, :open, %{capacity: capacity, lines: %{}, peak: 0}}

  @impl :gen_statem
  def code_change(1, state, {capacity, lines}, _extra) do
    {:ok, state, %{capacity: capacity, lines: lines, peak: map_size(lines)}}
  end

  def code_change({:down, 1}, state, %{capacity: capacity, lines: lines}, _extra) do
    {:ok, state, {capacity, lines}}
  end

  @doc false
  def open({:call, {holder, _} = from}, :seize, data) do
    lines = Map.put(data.lines, Process.monitor(holder), holder)
    in_use = map_size(lines)
    next = if in_use < data.capacity, do: :open, else: :full
    {:next_state, next, %{data | lines: lines, peak: max(data.peak, in_use)}, {:reply, from, :ok}}
  end

  def open(type, event, data), do: always(type, event, data)

  @doc false
  def full({:call, from}, :seize, _data) do
    {:keep_state_and_data, {:reply, from, {:error, :no_line}}}
  end

  def full(type, event, data), do: always(type, event, data)

  defp always({:call, from}, :lines_in_use, data) do
    {:keep_state_and_data, {:reply, from, map_size(data.lines)}}
  end

  defp always({:call, from}, :peak, data) do
    {:keep_state_and_data, {:reply, from, data.peak}}
  end

  defp always(:info, {:DOWN, monitor, :process, _holder, _reason}, data) do
    {:next_state, :open, %{data | lines: Map.delete(data.lines, monitor)}}
  end
end
