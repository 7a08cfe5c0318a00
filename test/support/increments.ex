defmodule HotPatch.Test.Increments do
  @moduledoc false
  # What OS processes do that share a lock: they count in a file.

  alias HotPatch.Store
  alias HotPatch.Store.Lock
  alias HotPatch.Store.Log

  @doc "Adds one under the lock, so many times; each is noted in a log once it is done."
  @spec run(Path.t(), Path.t(), pos_integer()) :: :ok
  def run(folder, log, times) do
    for n <- 1..times do
      {:ok, :ok} = Lock.with_lock(Path.join(folder, "lock"), 60_000, fn -> increment(folder) end)
      :ok = Log.append(log, n)
    end

    :ok
  end

  @doc "Takes the lock, says so by a file, and keeps it."
  @spec hold(Path.t()) :: no_return()
  def hold(folder) do
    Lock.with_lock(Path.join(folder, "lock"), 60_000, fn ->
      File.write!(Path.join(folder, "held"), "")
      receive(do: (:never -> :ok))
    end)
  end

  @doc "What was counted."
  @spec count(Path.t()) :: non_neg_integer()
  def count(folder) do
    case File.read(Path.join(folder, "count")) do
      {:ok, digits} -> String.to_integer(digits)
      {:error, :enoent} -> 0
    end
  end

  # Whole or not at all, so that one who is killed leaves a count.
  defp increment(folder), do: Store.write(Path.join(folder, "count"), "#{count(folder) + 1}")
end
