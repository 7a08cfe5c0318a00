defmodule Bench.Swap.Load do
  # What keeps the machine busy while code changes: processes of the VM, and programs beside it.

  @doc "Starts it; the function that it gives ends it."
  def start(%{hogs: hogs, others: others}) do
    pids = for _ <- 1..hogs//1, do: spawn_link(fn -> spin(0) end)

    ports =
      for _ <- 1..others//1 do
        # It ends with its standard input, should this VM be killed.
        script = "while :; do :; done & read -r _; kill $!"
        Port.open({:spawn_executable, "/bin/sh"}, args: ["-c", script])
      end

    fn ->
      for pid <- pids do
        Process.unlink(pid)
        Process.exit(pid, :kill)
      end

      Enum.each(ports, &Port.close/1)
    end
  end

  defp spin(n), do: spin(n + 1)
end
