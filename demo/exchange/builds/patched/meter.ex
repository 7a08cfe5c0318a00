defmodule Exchange.Meter do
  @moduledoc """
  Adds up the seconds talked on this node, in a receive loop written by hand.

  Nobody can ask such a loop to convert its state. It enters new code by itself, at the latest
  within a second, because it calls itself by its full name; and it gets along with the state
  of its other build because it touches only the keys it knows.

  State in this build: also `:longest`, the most seconds added at once; absent at first after a
  patch, kept but not counted on after a rollback.
  """

  @vsn 2

  @tick 1_000

  @spec child_spec([]) :: Supervisor.child_spec()
  def child_spec([]), do: %{id: __MODULE__, start: {__MODULE__, :start_link, []}}

  @spec start_link() :: {:ok, pid()} | {:error, term()}
  def start_link, do: :proc_lib.start_link(__MODULE__, :init, [self()])

  @doc "Counts seconds; does not wait."
  @spec add(non_neg_integer()) :: :ok
  def add(seconds) do
    send(__MODULE__, {:add, seconds})
    :ok
  end

  @doc "The seconds counted so far."
  @spec seconds() :: non_neg_integer()
  def seconds, do: ask(:seconds)

  @doc "The most seconds added at once."
  @spec longest() :: non_neg_integer()
  def longest, do: ask(:longest)

  @doc false
  @spec init(pid()) :: no_return()
  def init(parent) do
    Process.register(self(), __MODULE__)
    :proc_lib.init_ack(parent, {:ok, self()})
    loop(%{seconds: 0})
  end

  @doc false
  @spec loop(map()) :: no_return()
  def loop(state) do
    receive do
      {:add, seconds} ->
        state = Map.update!(state, :seconds, &(&1 + seconds))
        __MODULE__.loop(Map.update(state, :longest, seconds, &max(&1, seconds)))

      {:ask, asker, reference, :seconds} ->
        send(asker, {reference, state.seconds})
        __MODULE__.loop(state)

      {:ask, asker, reference, :longest} ->
        send(asker, {reference, Map.get(state, :longest, 0)})
        __MODULE__.loop(state)
    after
      @tick -> __MODULE__.loop(state)
    end
  end

  defp ask(question) do
    monitor = Process.monitor(__MODULE__)
    send(__MODULE__, {:ask, self(), monitor, question})

    receive do
      {^monitor, answer} ->
        Process.demonitor(monitor, [:flush])
        answer

      {:DOWN, ^monitor, :process, _meter, reason} ->
        exit({reason, {__MODULE__, :ask, [question]}})
    after
      5_000 -> exit({:timeout, {__MODULE__, :ask, [question]}})
    end
  end
end
