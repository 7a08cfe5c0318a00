defmodule HotPatch.Rehearsal.Outcome do
  @moduledoc """
  How a rehearsal, or a part of one, has ended: `:ok`, `:incomplete` or `:failed`, as `HotPatch.Rehearsal` has
  it.
  """

  @type t :: :ok | :incomplete | :failed

  # From the worst to the best.
  @outcomes [:failed, :incomplete, :ok]

  @doc """
  The worst of some outcomes.

      iex> HotPatch.Rehearsal.Outcome.combine([:ok, :failed, :incomplete])
      :failed
      iex> HotPatch.Rehearsal.Outcome.combine([])
      :ok
  """
  @spec combine([t()]) :: t()
  def combine(outcomes), do: Enum.find(@outcomes, :ok, &(&1 in outcomes))
end
