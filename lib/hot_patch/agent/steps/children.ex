defmodule HotPatch.Agent.Steps.Children do
  @moduledoc false
  # The children of supervisors whose callback module has changed. The supervisor itself takes over
  # the specs of the new init; it starts none that are new and stops none that are gone. Those whose
  # children are all alike have no specs to compare: they are left alone.

  alias HotPatch.Swap
  alias HotPatch.Swap.Conversion

  @typedoc "The children that each supervisor had."
  @type ids :: %{pid() => [term()]}
  @type known :: %{module() => ids()}

  @doc "The children that the supervisors of a module have now."
  @spec known(module()) :: ids()
  def known(module) do
    for pid <- Swap.supervisors(module), into: %{} do
      {pid, for({id, _pid, _type, _modules} <- :supervisor.which_children(pid), do: id)}
    end
  end

  @doc "Stops those that the new init does not name, and starts those that were not there before."
  @spec follow(module(), ids()) :: :ok
  def follow(module, before) do
    for pid <- Swap.supervisors(module), {:ok, specs} <- [specs(pid, module)] do
      wanted = for spec <- specs, do: spec.id
      there = for {id, _pid, _type, _modules} <- :supervisor.which_children(pid), do: id
      Enum.each(there -- wanted, &stop(pid, &1))
      known = Map.get(before, pid, there)
      specs |> Enum.reject(&(&1.id in known)) |> Enum.each(&start(pid, &1))
    end

    :ok
  end

  # Unlike the supervisor's own, they say what init says now.
  defp specs(pid, module) do
    case pid |> :sys.get_state() |> Conversion.supervisor_argument(module) |> module.init() do
      {:ok, {flags, specs}} -> if alike?(flags), do: :alike, else: {:ok, Enum.map(specs, &map/1)}
      _other -> :alike
    end
  end

  defp alike?(%{strategy: strategy}), do: strategy == :simple_one_for_one
  defp alike?({strategy, _, _}), do: strategy == :simple_one_for_one
  defp alike?(_default), do: false

  defp map(%{} = spec), do: spec

  defp map({id, start, restart, shutdown, type, modules}) do
    %{id: id, start: start, restart: restart, shutdown: shutdown, type: type, modules: modules}
  end

  defp stop(pid, id) do
    with :ok <- :supervisor.terminate_child(pid, id),
         :ok <- :supervisor.delete_child(pid, id) do
      :ok
    else
      # It went by itself.
      {:error, :not_found} -> :ok
      {:error, reason} -> exit({id, reason})
    end
  end

  defp start(pid, spec) do
    case :supervisor.restart_child(pid, spec.id) do
      # The supervisor has not taken over the specs: nobody stood still.
      {:error, :not_found} -> pid |> :supervisor.start_child(spec) |> started(spec.id)
      result -> started(result, spec.id)
    end
  end

  defp started(result, id) do
    case result do
      {:error, running} when running in [:running, :restarting] -> :ok
      {:error, {:already_started, _pid}} -> :ok
      {:error, reason} -> exit({id, reason})
      _started -> :ok
    end
  end
end
