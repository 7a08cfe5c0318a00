defmodule HotPatch.Swap.KeptState do
  @moduledoc false
  # Keeps the state of a suspended process inside that process, where keeping it costs one
  # word: `replace_state` runs a fun there that puts the very term aside (sys.erl,
  # do_replace_state/3). An event manager's fun is called once for each handler.
  #
  # The answer would carry a copy of the whole state, so it is addressed to a process that
  # is long gone. Messages of one sender keep their order: what follows sees the effect.

  alias HotPatch.Swap.Processes

  @key :"$hot_patch_kept_state"

  @doc "Has a suspended process put its state aside."
  @spec keep(Processes.target()) :: :ok
  def keep(target), do: replace(target.pid, fun(target, :keep))

  @doc "Has it take the kept state again."
  @spec restore(Processes.target()) :: :ok
  def restore(target), do: replace(target.pid, fun(target, :restore))

  @doc "Has it drop the kept state."
  @spec forget(pid()) :: :ok
  def forget(pid), do: replace(pid, &__MODULE__.drop/1)

  # Funs of a module that stays: what is sent is their name, not code.
  defp fun(%{kind: :event_manager}, :keep), do: &__MODULE__.put_handler_aside/1
  defp fun(%{kind: :event_manager}, :restore), do: &__MODULE__.take_handler_again/1
  defp fun(_target, :keep), do: &__MODULE__.put_aside/1
  defp fun(_target, :restore), do: &__MODULE__.take_again/1

  @doc false
  @spec put_aside(state) :: state when state: term()
  def put_aside(state) do
    Process.put(@key, {:whole, state})
    state
  end

  @doc false
  @spec take_again(term()) :: term()
  def take_again(state) do
    case Process.get(@key) do
      {:whole, kept} -> kept
      nil -> state
    end
  end

  @doc false
  @spec put_handler_aside(handler) :: handler when handler: {module(), term(), term()}
  def put_handler_aside({module, id, _state} = handler) do
    Process.put(@key, Map.put(Process.get(@key, %{}), {module, id}, handler))
    handler
  end

  @doc false
  @spec take_handler_again({module(), term(), term()}) :: {module(), term(), term()}
  def take_handler_again({module, id, _state} = handler) do
    Map.get(Process.get(@key, %{}), {module, id}, handler)
  end

  @doc false
  @spec drop(state) :: state when state: term()
  def drop(state) do
    Process.delete(@key)
    state
  end

  defp replace(pid, fun) do
    _ = send(pid, {:system, {gone(), make_ref()}, {:replace_state, fun}})
    :ok
  end

  defp gone do
    case Process.get({__MODULE__, :gone}) do
      nil ->
        {pid, monitor} = spawn_monitor(fn -> :ok end)

        receive do
          {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
        end

        Process.put({__MODULE__, :gone}, pid)
        pid

      pid ->
        pid
    end
  end
end
