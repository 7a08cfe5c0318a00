defmodule HotPatch.Cluster.Attach.Bootstrap do
  @moduledoc false
  # The first module that comes to a node that is attached, and the last that leaves it. What
  # it does it does there, in one process to its end: should the node that asked for it be
  # lost meanwhile, nothing is left half done.
  #
  # Calls nothing but OTP: before, and after, there may be no Elixir on that node.

  @typedoc "What is carried, and how the application is to start. `alone` is loaded by itself."
  @type cargo :: %{
          modules: [{module(), charlist(), binary()}],
          alone: [{module(), charlist(), binary()}],
          spec: {:application, atom(), keyword()},
          settings: [{atom(), term()}]
        }

  @typedoc "The process that gives the memory back; its end is the end of it all."
  @type sweeper :: pid()

  # Who attaches or detaches here has this name: one at a time.
  @name :hot_patch_attach

  # Somebody may be in code that is to go for a moment only.
  @attempts 20
  @again_after 50

  # As many as HotPatch.Swap.OldCode.Purge asks.
  @asked_at_once 64

  @doc "Loads what was carried here and starts it; if that fails, nothing of it is left."
  @spec enter(cargo()) :: :ok | {:error, term(), sweeper()} | {:error, :busy}
  def enter(cargo), do: alone(fn -> enter_alone(cargo) end)

  @doc "Removes what was brought here before and has died."
  @spec tidy() :: {:ok, sweeper()} | {:error, :busy}
  def tidy do
    alone(fn ->
      case :application.get_env(:hot_patch, :attached) do
        {:ok, %{modules: modules}} -> {:ok, leave(modules)}
        :undefined -> {:error, :busy}
      end
    end)
  end

  @doc "Ends HotPatch here, unless that would lose something; gives what it has left to tell."
  @spec quit(HotPatch.NodeAgent.Detachment.options()) ::
          {:ok, HotPatch.NodeAgent.Detachment.left(), sweeper()} | {:error, term()}
  def quit(options), do: alone(fn -> quit_alone(options) end)

  # What is called here has returned, and so is out of use, before its module goes.
  defp quit_alone(options) do
    case HotPatch.NodeAgent.Detachment.run(options) do
      {:ok, modules, left} -> {:ok, left, leave(modules)}
      {:error, reason} -> {:error, reason}
    end
  end

  defp alone(fun) do
    case take_name() do
      true ->
        result = fun.()
        :erlang.unregister(@name)
        result

      false ->
        {:error, :busy}
    end
  end

  defp take_name do
    :erlang.register(@name, self())
  catch
    :error, :badarg -> false
  end

  defp enter_alone(%{modules: modules, alone: alone} = cargo) do
    names = :lists.map(fn {module, _file, _bytes} -> module end, alone ++ modules)

    case {:application.get_key(:hot_patch, :vsn), :lists.filter(&:erlang.module_loaded/1, names)} do
      {:undefined, []} -> bring(cargo, names)
      # Nobody's application: only what was just brought goes again.
      {:undefined, there} -> {:error, {:loaded, there}, start_sweep([], [])}
      # Somebody else was first.
      _ -> {:error, :busy}
    end
  end

  defp bring(%{modules: modules, alone: alone, spec: spec, settings: settings}, names) do
    with :ok <- taken(modules),
         :ok <- :code.atomic_load(modules),
         :ok <- load_each(alone),
         :ok <- :application.load(spec),
         :ok <- set(settings),
         :ok <- HotPatch.Store.DataDir.take(),
         :ok <- :application.start(:hot_patch) do
      :ok
    else
      {:error, reason} ->
        _ = leave_premises()
        {:error, reason, leave([__MODULE__ | names])}
    end
  end

  # Each by itself, up to the first that the loader refuses: what it says of every one would be
  # hundreds of messages where all come from a newer OTP.
  defp taken([]), do: :ok

  defp taken([module | rest]) do
    with {:ok, _prepared} <- :code.prepare_loading([module]), do: taken(rest)
  end

  # Those that run code when they are loaded.
  defp load_each([]), do: :ok

  defp load_each([{module, file, bytes} | rest]) do
    case :code.load_binary(module, file, bytes) do
      {:module, _module} -> load_each(rest)
      {:error, reason} -> {:error, [{module, reason}]}
    end
  end

  # After the load: what the node's own configuration says counts less.
  defp set(settings) do
    :lists.foreach(fn {key, value} -> :application.set_env(:hot_patch, key, value) end, settings)
  end

  defp leave_premises do
    _ = :application.stop(:hot_patch)

    case :application.get_env(:hot_patch, :attached) do
      {:ok, _attached} -> HotPatch.Store.DataDir.leave()
      :undefined -> :nothing_taken
    end
  end

  # Stops and removes the application, what it has put into the VM's memory, and its modules,
  # this one the last. Then nothing of it is in use; its memory is given back by a process of
  # its own, for that takes a pass over all processes for each module.
  @spec leave([module()]) :: pid()
  defp leave(modules) do
    _ = :application.stop(:hot_patch)
    _ = :application.unload(:hot_patch)
    others = :lists.delete(__MODULE__, modules)
    :lists.foreach(&:code.delete/1, others)
    start_sweep(modules, others ++ shadows())
  end

  defp start_sweep(modules, out_of_use),
    do: :erlang.spawn(__MODULE__, :sweep, [self(), modules, out_of_use])

  @doc false
  # Softly: what a process still runs stays, out of use.
  @spec sweep(pid(), [module()], [module()]) :: boolean()
  def sweep(starter, modules, out_of_use) do
    monitor = :erlang.monitor(:process, starter)

    receive do
      {:DOWN, ^monitor, :process, ^starter, _reason} -> :ok
    end

    alone? = take_name()
    limit = wider(:erlang.system_info(:outstanding_system_requests_limit))
    purge(out_of_use, @attempts)
    _ = :erlang.system_flag(:outstanding_system_requests_limit, limit)
    last(alone?, modules)
  end

  # Nothing here is run any more when the purge begins.
  defp last(true, modules) do
    forget(modules)
    _ = :code.delete(__MODULE__)
    :erts_code_purger.soft_purge(__MODULE__)
  end

  # Somebody attaches the node again already, with the same keys and the same first module.
  defp last(false, _modules), do: false

  # On a busy node each process answers when it gets to run: see HotPatch.Swap.OldCode.Purge.
  defp wider(limit) when limit < @asked_at_once,
    do: :erlang.system_flag(:outstanding_system_requests_limit, @asked_at_once)

  defp wider(limit), do: limit

  # Terms under a key that is one of the modules or begins with one, and what OTP's logger notes
  # of modules that log: nobody runs them any more, and when it has answered it is not behind.
  defp forget(modules) do
    _ = :logger.unset_module_level([])

    :lists.foreach(
      fn {key, _term} ->
        case :lists.member(owner(key), modules) do
          true -> :persistent_term.erase(key)
          false -> false
        end
      end,
      :persistent_term.get()
    )
  end

  defp owner({:logger_config, module}), do: module
  defp owner(key) when is_tuple(key) and tuple_size(key) > 0, do: :erlang.element(1, key)
  defp owner(key), do: key

  # Copies of patched modules under other names, out of use but still in memory.
  defp shadows do
    :lists.filter(
      fn module -> :lists.suffix(~c"@hot_patch", :erlang.atom_to_list(module)) end,
      :erlang.loaded()
    )
  end

  defp purge(modules, attempts) do
    case :lists.filter(&held?/1, modules) do
      [_ | _] = held when attempts > 1 ->
        receive do
        after
          @again_after -> purge(held, attempts - 1)
        end

      _none_or_too_long ->
        :ok
    end
  end

  # Past the code server, which would answer nobody else meanwhile.
  defp held?(module) do
    :erlang.check_old_code(module) and not :erts_code_purger.soft_purge(module)
  end
end
