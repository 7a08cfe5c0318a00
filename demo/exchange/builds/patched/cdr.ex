defmodule Exchange.Cdr do
  @moduledoc """
  Keeps the books: an event handler that counts the calls that ended, what they cost, and
  remembers the last few.

  State in this build: a map that also knows how many of the remembered calls were given away.
  The state of vsn 1 (`{ended, cents, last}`) is carried over, and back.
  """

  @behaviour :gen_event

  alias Exchange.{Printable, Record}

  @vsn 2

  @remembered 10

  @doc "How many calls ended, and what they cost together."
  @spec totals() :: {ended :: non_neg_integer(), cents :: non_neg_integer()}
  def totals, do: :gen_event.call(Exchange.Events, __MODULE__, :totals)

  @doc "The last calls as lines of a bill, the latest first."
  @spec lines() :: [String.t()]
  def lines do
    Exchange.Events |> :gen_event.call(__MODULE__, :last) |> Enum.map(&Printable.line/1)
  end

  @doc "How many of the last calls were talked on and yet cost nothing."
  @spec given_away() :: non_neg_integer()
  def given_away, do: :gen_event.call(Exchange.Events, __MODULE__, :given_away)

  @impl :gen_event
  def init([]), do: {:ok, state(0, 0, [])}

  @impl :gen_event
  def handle_event({:call_ended, %Record{} = record}, state) do
    last = Enum.take([record | state.last], @remembered)
    {:ok, state(state.ended + 1, state.cents + record.cents, last)}
  end

  @impl :gen_event
  def handle_call(:totals, state), do: {:ok, {state.ended, state.cents}, state}
  def handle_call(:last, state), do: {:ok, state.last, state}
  def handle_call(:given_away, state), do: {:ok, state.given_away, state}

  @impl :gen_event
  def code_change(1, {ended, cents, last}, _extra), do: {:ok, state(ended, cents, last)}

  def code_change({:down, 1}, %{ended: ended, cents: cents, last: last}, _extra) do
    {:ok, {ended, cents, last}}
  end

  defp state(ended, cents, last) do
    given_away = Enum.count(last, &(&1.seconds > 0 and &1.cents == 0))
    %{ended: ended, cents: cents, last: last, given_away: given_away}
  end
end
