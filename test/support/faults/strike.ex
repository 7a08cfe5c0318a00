defmodule HotPatch.Test.Faults.Strike do
  @moduledoc false
  # What an armed step can have happen besides the end of its node; runs on the node.

  alias HotPatch.Cluster.Progress

  @doc "Ends whoever carries operations out, wherever that is, and nothing else."
  @spec coordinator() :: :ok
  def coordinator do
    for pid <- coordinators(), do: Process.exit(pid, :kill)
    :ok
  end

  # Those of whom this node was told. Whoever is asked may be a coordinator itself: it ends here.
  defp coordinators, do: Map.keys(:sys.get_state(Progress).running)

  @doc "Calls a function in a new process again and again; body of a process."
  @spec call_often(module(), atom()) :: no_return()
  def call_often(module, function) do
    # What goes wrong is logged where the group leader is.
    Process.group_leader(self(), Process.whereis(:init))
    _ = :erlang.spawn(module, function, [])

    receive do
    after
      20 -> call_often(module, function)
    end
  end

  @doc "Stops this node from running, all of it, for so many milliseconds."
  @spec suspend(pos_integer()) :: :ok
  def suspend(milliseconds) do
    pid = System.pid()
    seconds = milliseconds / 1_000
    # Whoever lets it go on must be no part of it.
    script =
      "setsid sh -c 'kill -STOP #{pid}; sleep #{seconds}; kill -CONT #{pid}' >/dev/null 2>&1 &"

    _ = :os.cmd(String.to_charlist(script))
    :ok
  end

  @doc "Makes the folder of intents one that cannot be written to, for so many milliseconds."
  @spec unwritable(pos_integer()) :: :ok
  def unwritable(milliseconds) do
    folder = Path.join(HotPatch.Store.directory(), "staged")
    away = folder <> ".away"
    :ok = File.rename(folder, away)
    :ok = File.write(folder, "in the way")

    spawn(fn ->
      receive do
      after
        milliseconds ->
          :ok = File.rm(folder)
          :ok = File.rename(away, folder)
      end
    end)

    :ok
  end

  @doc "Tells a process which files are staged below a folder, and who may read them."
  @spec staged(pid(), Path.t()) :: :ok
  def staged(test, folder) do
    staged =
      for {path, %File.Stat{type: :regular, mode: mode}} <- HotPatch.Support.Folder.tree(folder),
          path =~ "hot_patch-",
          do: {path, Bitwise.band(mode, 0o7777)}

    send(test, {:staged, staged})
    :ok
  end
end
