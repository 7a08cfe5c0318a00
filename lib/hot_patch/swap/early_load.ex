defmodule HotPatch.Swap.EarlyLoad do
  @moduledoc false
  # What becomes current ahead of the one step in which all other modules do.
  #
  # Modules that are new here come before the conversions are tried, because what is tried may
  # call them by a name that no copy of a module can replace: the init of a supervisor asks its
  # new child's module for the child spec. A module that nobody runs yet harms nobody; the
  # exceptions are left out: an implementation of a protocol (a protocol that is not consolidated
  # would dispatch to it at once), and they become current with the rest. If nothing is to be
  # tried, new modules become current immediately before the rest.
  #
  # Modules that run code when they are loaded come one by one: the new ones with the other new
  # modules, those that replace others after all conversions have gone well.
  #
  # `back/1` takes all of it away again. It looks at what runs, so it can be called at any time, by
  # whoever ends the swap, more than once.

  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Job
  alias HotPatch.Swap.OldCode.Purge
  alias HotPatch.Swap.OnLoad
  alias HotPatch.Swap.PhaseTimes
  alias HotPatch.Swap.Ready

  @typedoc "New modules, prepared so that they can become current together."
  @type added :: {[module()], prepared :: term()}

  @doc "Makes the new modules current, unless they are."
  @spec added(Ready.t(), integer()) :: {:ok, Ready.t()} | {:error, atom(), String.t()}
  def added(%Ready{ahead?: true} = ready, _deadline), do: {:ok, ready}

  def added(%Ready{job: job} = ready, deadline) do
    {new, _others} = steps(job)

    with :ok <- finish(job.added),
         :ok <- OnLoad.load(waiting(new), deadline),
         do: {:ok, %{ready | ahead?: true}}
  end

  @doc "Makes the modules current that run code when they are loaded, but for those that are."
  @spec on_load(Ready.t(), integer()) :: :ok | {:error, :on_load, String.t()}
  def on_load(%Ready{job: job}, deadline), do: OnLoad.load(waiting(job.on_load), deadline)

  defp waiting(steps), do: Enum.reject(steps, &OnLoad.current?/1)

  defp finish(nil), do: :ok

  defp finish({_modules, prepared}) do
    PhaseTimes.note(:load, fn ->
      case :code.finish_loading(prepared) do
        :ok -> :ok
        {:error, reasons} -> {:error, :load, refused(reasons)}
      end
    end)
  end

  @doc "Why the loader has refused what was prepared."
  @spec refused([{module(), term()}]) :: String.t()
  def refused(reasons) do
    list =
      Enum.map_join(reasons, ", ", fn {module, why} -> "#{inspect(module)}: #{inspect(why)}" end)

    "loading failed: #{list}"
  end

  # Those of new modules, and those of modules that replace others.
  defp steps(job) do
    new = for %{kind: :add, module: module} <- job.changes, do: module
    Enum.split_with(job.on_load, &(&1.module in new))
  end

  @doc "A failure, with all taken back that is current; the text says what could not be."
  @spec back(Ready.t(), {:error, atom(), String.t()}) :: {:error, atom(), String.t()}
  def back(%Ready{job: job}, {:error, reason, text}),
    do: {:error, reason, text <> left(back(job))}

  @doc "Takes back what is current of it; gives the modules where that failed, and why."
  @spec back(Job.t()) :: [{module(), String.t()}]
  def back(%Job{} = job) do
    {new, others} = steps(job)
    Enum.each(new, &OnLoad.stop(&1.module))

    replaced =
      for step <- Enum.reverse(others),
          {:error, why} <- [OnLoad.back(step)],
          do: {step.module, why}

    replaced ++
      for(
        change <- gone_again(job),
        {:error, why} <- [take_away(change)],
        do: {change.module, why}
      )
  end

  defp gone_again(%{added: added, changes: changes, on_load: on_load}) do
    together = if added, do: elem(added, 0), else: []
    ours = together ++ Enum.map(on_load, & &1.module)
    for %{kind: :add} = change <- changes, change.module in ours, do: change
  end

  # Only what this swap has brought: another version was loaded by somebody else.
  defp take_away(change) do
    if Conversion.current?(change) do
      :ok = Purge.take_out(change.module)
      if Conversion.current?(change), do: {:error, "it cannot be deleted"}, else: :ok
    else
      :ok
    end
  end

  @doc "What could not be taken back, as the end of a sentence."
  @spec left([{module(), String.t()}]) :: String.t()
  def left([]), do: ""

  def left(failures) do
    "; the new code of " <>
      Enum.map_join(failures, ", ", fn {module, reason} -> "#{inspect(module)} (#{reason})" end) <>
      " could not be taken back and stays: restart the node"
  end
end
