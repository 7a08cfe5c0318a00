defmodule HotPatch.NodeAgent.InstructionRunner.Children do
  @moduledoc false
  # The children of supervisors whose callback module has changed. The supervisor itself takes over
  # the specs of the new init; it starts none that are new and stops none that are gone. Those whose
  # children are all alike have no specs to compare: they are left alone.
  #
  # A child that works for a module which goes with the same change cannot wait for that: it is stopped
  # before the pause, while its code is there, and started again if the change is taken back.

  alias HotPatch.Support.Isolated
  alias HotPatch.Swap
  alias HotPatch.Swap.Conversion

  @typedoc "The children that each supervisor had, and which of them its init named: others have been added since."
  @type ids :: %{pid() => %{there: [term()], named: [term()]}}
  @type known :: %{module() => ids()}
  @typedoc "A child that was stopped, by its supervisor and its id."
  @type child :: {supervisor :: pid(), id :: term()}

  # Milliseconds that a supervisor may take to name its children where nothing depends on it.
  @answer_within 1_000

  # Milliseconds that the start of one child may take: less than the step, so that the answer names the child.
  @start_within 8_000

  @doc "The children that the supervisors of a module have now."
  @spec known(module()) :: ids()
  def known(module) do
    for pid <- Swap.supervisors(module), into: %{} do
      there = for {id, _pid, _type, _modules} <- :supervisor.which_children(pid), do: id
      {pid, %{there: there, named: named(pid, module, there)}}
    end
  end

  # Where that cannot be told all of them are taken for its own.
  defp named(pid, module, there) do
    case specs(pid, module) do
      {:ok, specs} -> for spec <- specs, do: spec.id
      :alike -> there
    end
  catch
    _kind, _reason -> there
  end

  @doc "The children of a module's supervisors that work for one of the modules that go."
  @spec leaving(module(), [module()]) :: [child()]
  def leaving(_module, []), do: []

  def leaving(module, gone) do
    users = gone |> Enum.flat_map(&Swap.users/1) |> MapSet.new()

    for supervisor <- Swap.supervisors(module),
        {id, pid, _type, _modules} <- :supervisor.which_children(supervisor),
        # Those that are all alike have no id by which they could be started again.
        id != :undefined and pid in users,
        do: {supervisor, id}
  end

  @doc "Stops a child; its supervisor keeps its spec."
  @spec stop_for_now(child()) :: :ok
  def stop_for_now({supervisor, id}), do: :supervisor.terminate_child(supervisor, id) |> there(id)

  @doc "Starts a child again that was stopped."
  @spec start_again(child()) :: :ok
  def start_again({supervisor, id}),
    do: supervisor |> :supervisor.restart_child(id) |> started(id)

  @doc """
  Those among processes that these modules' supervisors are going to stop because their module goes:
  their children, and what those have started in turn. Changes nothing, and waits for no supervisor
  that is busy.
  """
  @spec about_to_stop([pid()], [module()]) :: [pid()]
  def about_to_stop(_pids, []), do: []

  def about_to_stop(pids, modules) do
    children =
      for module <- modules,
          supervisor <- Swap.supervisors(module),
          {id, pid, _type, _modules} <- children(supervisor),
          id != :undefined and is_pid(pid),
          into: MapSet.new(),
          do: pid

    Enum.filter(pids, fn pid -> Enum.any?([pid | ancestors(pid)], &(&1 in children)) end)
  end

  defp children(supervisor) do
    :gen_server.call(supervisor, :which_children, @answer_within)
  catch
    :exit, _busy_or_gone -> []
  end

  defp ancestors(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         ancestors when is_list(ancestors) <- dictionary[:"$ancestors"] do
      Enum.map(ancestors, &if(is_atom(&1), do: Process.whereis(&1), else: &1))
    else
      _ -> []
    end
  end

  @doc """
  Stops those that the former init named and the new one does not, and starts those that were not there before, and
  those that were stopped before the pause and that it names all the same. Whoever was added otherwise stays.

  A child whose start does not end within so many milliseconds is ended, and that is told: its supervisor does
  nothing else as long as it waits for it, and could not go back either.
  """
  @spec follow(module(), ids(), [child()], pos_integer()) :: :ok
  def follow(module, before, stopped, within \\ @start_within) do
    for pid <- Swap.supervisors(module), {:ok, specs} <- [specs(pid, module)] do
      wanted = for spec <- specs, do: spec.id
      there = for {id, _pid, _type, _modules} <- :supervisor.which_children(pid), do: id
      had = Map.get(before, pid, %{there: there, named: there})
      for id <- there -- wanted, id in had.named, do: stop(pid, id)
      known = had.there -- for({^pid, id} <- stopped, do: id)
      specs |> Enum.reject(&(&1.id in known)) |> Enum.each(&start(pid, &1, within))
    end

    :ok
  end

  # Unlike the supervisor's own, they say what init says now.
  defp specs(pid, module) do
    with {:ok, argument} <- pid |> :sys.get_state() |> Conversion.supervisor_argument(module),
         {:ok, {flags, specs}} <- module.init(argument) do
      if alike?(flags), do: :alike, else: {:ok, Enum.map(specs, &map/1)}
    else
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

  defp there(:ok, _id), do: :ok
  defp there({:error, :not_found}, _id), do: :ok
  defp there({:error, reason}, id), do: exit({id, reason})

  defp start(pid, spec, within) do
    before = links(pid)

    case Isolated.run(fn -> start(pid, spec) end, within) do
      {:ok, :ok} ->
        :ok

      {:died, reason} ->
        exit(reason)

      {:late, _where} ->
        for child <- links(pid) -- before, is_pid(child), do: Process.exit(child, :kill)
        exit({spec.id, {:start_took_too_long, within}})
    end
  end

  # While it starts a child that is the only one that comes.
  defp links(supervisor) do
    case Process.info(supervisor, :links) do
      {:links, links} -> links
      nil -> []
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
