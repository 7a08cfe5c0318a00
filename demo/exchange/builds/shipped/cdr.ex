defmodule Exchange.Cdr do
  @moduledoc """
  Keeps the books: an event handler that counts the calls that ended, what they cost, and
  remembers the last few.

  State in this build: `{ended, cents, last}`.
  """

  @behaviour :gen_event

  alias Exchange.{Printable, Record}

  @vsn 1

  @remembered 10

  @doc "How many calls ended, and what they cost together."
  @spec totals() :: {ended :: non_neg_integer(), cents :: non_neg_integer()}
  def totals, do: :gen_event.call(Exchange.Events, __MODULE__, :totals)

  @doc "The last calls as lines of a bill, the latest first."
  @spec lines() :: [String.t()]
  def lines do
    Exchange.Events |> :gen_event.call(__MODULE__, :last) |> Enum.map(&Printable.line/1)
  end

  @impl :gen_event
  def init([]), do: {:ok, {0, 0, []}}

  @impl :gen_event
  def handle_event({:call_ended, %Record{} = record}, {ended, cents, last}) do
    {:ok, {ended + 1, cents + record.cents, Enum.take([record | last], @remembered)}}
  end

  @impl :gen_event
  def handle_call(:totals, {ended, cents, _last} = state), do: {:ok, {ended, cents}, state}
  def handle_call(:last, {_ended, _cents, last} = state), do: {:ok, last, state}
end
