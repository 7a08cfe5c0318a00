defmodule HotPatch.Swap.OnLoad do
  @moduledoc false
  # Modules that run code when they are loaded, NIFs among them. The VM cannot make them
  # current together with others, and their on_load may refuse: so they are a step of their
  # own, one by one, before the decision. If one refuses, those before it are loaded back and
  # the swap ends there.

  alias HotPatch.Swap.Describe
  alias HotPatch.Swap.Phases

  @typedoc """
  A module with its file's name and new code. `back` is the code that runs now; nil if it is
  not known, or if there is none. `before_back` is called before any of it is loaded back, for what
  that code looks for then.
  """
  @type t :: %{
          required(:module) => module(),
          required(:file) => charlist(),
          required(:bytes) => binary(),
          required(:back) => binary() | nil,
          optional(:before_back) => (() -> term())
        }

  @doc "Loads them in order, before a deadline in monotonic milliseconds; all or none."
  @spec load([t()], integer()) :: :ok | {:error, :on_load, String.t()}
  def load([], _deadline), do: :ok
  def load(steps, deadline), do: Phases.note(:load, fn -> load(steps, deadline, []) end)

  defp load([], _deadline, _done), do: :ok

  defp load([step | rest], deadline, done) do
    case load_one(step, step.bytes, deadline) do
      :ok ->
        load(rest, deadline, [step | done])

      {:error, reason} ->
        {:error, :on_load,
         "#{inspect(step.module)} runs code when it is loaded, and that failed (#{reason})#{left(back(done))}"}
    end
  end

  @doc "Makes the code that ran before current again; gives the modules where that failed."
  @spec back([t()]) :: [{module(), String.t()}]
  def back(steps) do
    for %{before_back: fun} <- steps, do: fun.()

    Enum.flat_map(steps, fn step ->
      case back_one(step) do
        :ok -> []
        {:error, reason} -> [{step.module, reason}]
      end
    end)
  end

  @doc "What `back/1` could not do, as the end of a sentence."
  @spec left([{module(), String.t()}]) :: String.t()
  def left([]), do: ""

  def left(failures) do
    "; the new code of " <>
      Enum.map_join(failures, ", ", fn {module, reason} -> "#{inspect(module)} (#{reason})" end) <>
      " could not be taken back and stays: restart the node"
  end

  # How long loading back may take: everybody waits for it.
  @back_within 1_000

  defp back_one(%{module: module, back: nil}) do
    _ = :code.delete(module)
    if :erlang.module_loaded(module), do: {:error, "its former code is not known"}, else: :ok
  end

  defp back_one(%{module: module} = step) do
    if :code.soft_purge(module) do
      load_one(step, step.back, System.monotonic_time(:millisecond) + @back_within)
    else
      {:error, "its former code is still in use"}
    end
  end

  # An on_load may never end, and load_binary waits for it.
  defp load_one(%{module: module, file: file}, bytes, deadline) do
    {pid, monitor} = spawn_monitor(__MODULE__, :load_now, [module, file, bytes])

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:loaded, {:module, ^module}}} -> :ok
      {:DOWN, ^monitor, :process, ^pid, {:loaded, {:error, reason}}} -> {:error, inspect(reason)}
      {:DOWN, ^monitor, :process, ^pid, reason} -> {:error, inspect(reason)}
    after
      max(0, deadline - System.monotonic_time(:millisecond)) ->
        stopped = stop(module)
        Process.exit(pid, :kill)
        Process.demonitor(monitor, [:flush])
        {:error, "it did not end in time#{stopped}"}
    end
  end

  @doc false
  # Its end is its result.
  @spec load_now(module(), charlist(), binary()) :: no_return()
  def load_now(module, file, bytes), do: exit({:loaded, :code.load_binary(module, file, bytes)})

  # The code server runs on_load in a process of its own, which it monitors
  # (code_server.erl, handle_on_load/5). When that dies the load has failed, and the code
  # that ran before is still the current one.
  defp stop(module) do
    {:monitors, monitors} = Process.info(Process.whereis(:code_server), :monitors)

    for {:process, pid} <- monitors, runs?(pid, module), reduce: "" do
      _ ->
        text = ": #{Describe.process(pid)}"
        Process.exit(pid, :kill)
        text
    end
  end

  defp runs?(pid, module) do
    case Process.info(pid, :current_stacktrace) do
      {:current_stacktrace, stack} -> Enum.any?(stack, &(elem(&1, 0) == module))
      nil -> false
    end
  end
end
