defmodule HotPatch.Swap.Load do
  @moduledoc false
  # The one step in which all modules of a job become current.

  alias HotPatch.Swap.Casualties
  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.EarlyLoad
  alias HotPatch.Swap.OldCode.Purge
  alias HotPatch.Swap.OldCode.Users
  alias HotPatch.Swap.PreviousCode
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Signal
  alias HotPatch.Swap.SysMessage

  @doc """
  Makes what was prepared current and takes out what is to go. Gives the processes that were
  ended by force, those among them that could not live with the new code. A job that loads nothing
  only has states to convert.
  """
  @spec run(Ready.t(), [Casualties.t()]) :: {:ok, [pid()]} | {:error, :load, String.t()}
  def run(ready, casualties \\ [])
  def run(%Ready{job: %{prepared: nil}}, _casualties), do: {:ok, []}

  def run(%Ready{job: job} = ready, casualties) do
    with {:ok, killed} <- purge(job), do: load(ready, casualties, killed)
  end

  defp load(%Ready{job: job, found: found} = ready, casualties, killed) do
    if ready.load, do: Signal.settle(ready.load, :take)

    # Nothing of what is new runs code when it is loaded here: that is over by now.
    with {:ok, _ready} <- EarlyLoad.added(ready_without_on_load(ready), 0),
         :ok <- :code.finish_loading(job.prepared) do
      for %{kind: :delete, module: module} <- job.changes, do: :code.delete(module)
      ended = Casualties.finish(casualties)
      if job.after_load, do: job.after_load.()
      :ok = nudge(found)
      {:ok, Enum.uniq(killed ++ ended)}
    else
      {:error, reasons} ->
        {:error, :load, "#{EarlyLoad.refused(reasons)}; nothing was changed"}

      {:error, :load, text} ->
        {:error, :load, "#{text}; nothing was changed"}
    end
  end

  @doc """
  Makes the code of before current again, while everybody stands still. What was brought anew is taken
  away by HotPatch.Swap.EarlyLoad.
  """
  @spec back(Ready.t()) :: :ok | {:error, String.t()}
  def back(%Ready{back: nil}), do: {:error, "nothing was prepared for that"}

  def back(%Ready{back: back, found: found}) do
    with {:ok, changes, prepared} <- PreviousCode.prepare(back),
         do: back(changes, prepared, found)
  end

  defp back(changes, prepared, found) do
    modules = for %{md5: md5, module: module} <- changes, md5 != nil, do: module
    old = Enum.filter(modules, &:erlang.check_old_code/1)

    # The new code has made the old one old, and room is for two. Funs of the old one are alive
    # again with it.
    with [] <- Users.of(modules),
         :ok <- Purge.all(old),
         :ok <- :code.finish_loading(prepared) do
      nudge(found)
    else
      [{pid, module, _stack} | _] -> {:error, Description.old_code(module, [pid])}
      {:held, module, pids} -> {:error, Description.old_code(module, pids)}
      {:error, reasons} -> {:error, EarlyLoad.refused(reasons)}
    end
  end

  # Special processes without a change of state stand in their own loop: any system
  # message takes them through system_continue into the code that is current.
  defp nudge(found) do
    for %{kind: :special, pid: pid} <- found.unpaused, do: SysMessage.unanswered(pid, :hot_patch)
    :ok
  end

  defp ready_without_on_load(ready), do: put_in(ready.job.on_load, [])

  @doc """
  Whether the code of a job is current, and not only what came ahead of the rest; or that of changes.
  A load that has begun is over by then, whoever has asked for it and is dead.
  """
  @spec done?(Ready.t() | [Change.t()]) :: boolean()
  def done?(%Ready{job: job, load: load}),
    do: Signal.read(load) == :take and done?(job.changes)

  def done?(changes) do
    # The code server takes one request after the other; newer ones tell what is loaded without
    # being asked.
    _ = :code.delete(:"$hot_patch_no_module")

    Enum.all?(changes, fn
      %{md5: nil, module: module} ->
        :code.is_loaded(module) == false

      %{md5: md5, module: module} ->
        :code.is_loaded(module) != false and :erlang.get_module_info(module, :md5) == md5
    end)
  end

  # Here, and not before: what is purged cannot be given back. Only by force is anybody killed, and
  # only who would keep the new code out.
  defp purge(%{purge: :soft, changes: changes}) do
    with {:held, module, pids} <- Purge.all(old(changes)) do
      text = "loading failed: #{Description.old_code(module, pids)}; nothing was changed"
      {:error, :load, text}
    else
      :ok -> {:ok, []}
    end
  end

  defp purge(%{purge: :force, changes: changes}) do
    old = old(changes)
    holders = for {pid, _module, _stack} <- Users.of(old), do: pid
    Enum.each(old, &:code.purge/1)
    {:ok, Enum.uniq(holders)}
  end

  defp old(changes), do: Enum.filter(Change.replaced(changes), &:erlang.check_old_code/1)
end
