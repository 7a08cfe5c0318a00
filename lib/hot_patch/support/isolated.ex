defmodule HotPatch.Support.Isolated do
  @moduledoc false
  # Runs what may fail, or take for ever, in a process of its own: whoever asks gets a value or the
  # cause, is linked to nothing, and waits no longer than it wants to.

  @doc """
  What a function gives, if it does so within so many milliseconds. One that is late is killed;
  `look` is called with its process just before.
  """
  @spec run((() -> result), timeout(), (pid() -> seen)) ::
          {:ok, result} | {:died, reason :: term()} | {:late, seen}
        when result: term(), seen: term()
  def run(fun, within, look \\ fn _pid -> nil end) do
    caller = self()
    ref = make_ref()
    {pid, monitor} = spawn_monitor(fn -> send(caller, {ref, fun.()}) end)

    receive do
      {^ref, result} ->
        Process.demonitor(monitor, [:flush])
        {:ok, result}

      {:DOWN, ^monitor, :process, ^pid, reason} ->
        {:died, reason}
    after
      within ->
        Process.demonitor(monitor, [:flush])
        seen = look.(pid)
        Process.exit(pid, :kill)
        at_last(ref, seen)
    end
  end

  # It may have come just now.
  defp at_last(ref, seen) do
    receive do
      {^ref, result} -> {:ok, result}
    after
      0 -> {:late, seen}
    end
  end
end
