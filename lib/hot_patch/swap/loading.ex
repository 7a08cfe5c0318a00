defmodule HotPatch.Swap.Loading do
  @moduledoc false
  # The one step in which all modules of a job become current.

  alias HotPatch.Swap.Change
  alias HotPatch.Swap.Ready
  alias HotPatch.Swap.Stragglers
  alias HotPatch.Swap.SysMessage

  @doc """
  Makes what was prepared current and takes out what is to go. Gives the processes that a
  purge by force has ended. A job that loads nothing only has states to convert.
  """
  @spec run(Ready.t()) :: {:ok, [pid()]} | {:error, :load, String.t()}
  def run(%Ready{job: %{prepared: nil}}), do: {:ok, []}

  def run(%Ready{job: job, found: found}) do
    killed = purge(job)

    case :code.finish_loading(job.prepared) do
      :ok ->
        for %{kind: :delete, module: module} <- job.changes, do: :code.delete(module)
        if job.after_load, do: job.after_load.()
        # Special processes without a change of state stand in their own loop: any system
        # message takes them through system_continue into the new code.
        for %{kind: :special, pid: pid} <- found.unpaused, do: SysMessage.resume_unanswered(pid)
        {:ok, killed}

      {:error, reasons} ->
        text =
          Enum.map_join(reasons, ", ", fn {module, why} ->
            "#{inspect(module)}: #{inspect(why)}"
          end)

        {:error, :load, "loading failed, nothing was changed: #{text}"}
    end
  end

  @doc """
  Whether the code of these changes is current. It is asked of the code server, so that a
  load which that has begun is over.
  """
  @spec done?([Change.t()]) :: boolean()
  def done?(changes) do
    Enum.all?(changes, fn
      %{md5: nil, module: module} ->
        :code.is_loaded(module) == false

      %{md5: md5, module: module} ->
        :code.is_loaded(module) != false and :erlang.get_module_info(module, :md5) == md5
    end)
  end

  # Only by force is anybody killed, and only who would keep the new code out.
  defp purge(%{purge: :soft}), do: []

  defp purge(%{purge: :force, changes: changes}) do
    old = Enum.filter(Change.replaced(changes), &:erlang.check_old_code/1)
    holders = for straggler <- Stragglers.of(old), do: straggler.pid
    Enum.each(old, &:code.purge/1)
    Enum.uniq(holders)
  end
end
