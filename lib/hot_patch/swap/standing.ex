defmodule HotPatch.Swap.Standing do
  @moduledoc false
  # How a process stands still for a swap: inside one function that it runs over its state, by
  # way of `replace_state` (sys.erl, do_replace_state/3), and that returns when the swap is
  # over. Until then it handles no message but those of the swap: to convert its state, and
  # either to take the new one or to go on as before.
  #
  # Against suspending it and replacing its state by system messages, it takes half the
  # messages, the converted state is a variable, and whoever was suspended by somebody else
  # before stays so. And no process depends on others to be let go: it looks from time to
  # time whether the engine lives, and if not, goes on in the version that is current.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.SysMessage

  # Milliseconds. The guard lets go at once of whom it sees standing; this is for the others.
  @look_every 1_000

  @doc """
  The message that has a process stand still, the same for all: many are to be sent, and soon.
  Who gets it answers `{{ref, pid}, :still}` when it does.
  """
  @spec request(reference()) :: SysMessage.t()
  def request(ref) do
    engine = self()
    SysMessage.to_run(&still(&1, engine, ref))
  end

  @doc "Has a process that stands still convert its state; it tells as the conversion says."
  @spec convert(pid(), reference(), Conversion.t()) :: :ok
  def convert(pid, ref, conversion), do: order(pid, ref, {:convert, conversion})

  @doc "Lets a process go on, with the state that it has converted, or with that which it had."
  @spec let_go(pid(), reference(), :take | :drop) :: :ok
  def let_go(pid, ref, order), do: order(pid, ref, order)

  @doc "Whether a process stands still in this way."
  @spec standing?(pid()) :: boolean()
  def standing?(pid),
    do: Process.info(pid, :current_function) == {:current_function, {__MODULE__, :wait, 5}}

  defp order(pid, ref, order) do
    _ = send(pid, {ref, order})
    :ok
  end

  # It may have been busy until the swap was over.
  defp still(state, engine, ref) do
    if Process.alive?(engine) do
      send(engine, {{ref, self()}, :still})
      wait(state, state, nil, engine, ref)
    else
      state
    end
  end

  @doc false
  @spec wait(state, state, Conversion.t() | nil, pid(), reference()) :: state when state: term()
  def wait(state, new, conversion, engine, ref) do
    receive do
      {^ref, {:convert, conversion}} ->
        wait(state, Conversion.converted(state, conversion), conversion, engine, ref)

      {^ref, :take} ->
        new

      {^ref, :drop} ->
        state
    after
      @look_every ->
        cond do
          Process.alive?(engine) -> wait(state, new, conversion, engine, ref)
          conversion != nil and Conversion.current?(conversion) -> new
          true -> state
        end
    end
  end
end
