defmodule HotPatch.Swap.OnLoad do
  @moduledoc false
  # Modules that run code when they are loaded, NIFs among them. The VM cannot make them
  # current together with others, and their on_load may refuse: so they are a step of their
  # own, one by one, before the decision (see HotPatch.Swap.EarlyLoad).
  #
  # An on_load may take for ever, and nobody can say when it ends. Each is loaded by a process of
  # its own, which is not waited for beyond the deadline. Should the module become current after
  # all, later, then that process takes it back: nobody wants it any more.

  alias HotPatch.Support.Cause
  alias HotPatch.Swap.Conversion
  alias HotPatch.Swap.Description
  alias HotPatch.Swap.Discovery.Stacktrace
  alias HotPatch.Swap.OnLoad.Listener
  alias HotPatch.Swap.PhaseTimes

  @typedoc """
  A module with its file's name and new code. `back` is the code that runs now; nil if it is
  not known, or if there is none. `around_back` is called with what loads that back, and gives its
  result: it has what that code looks for then in its place meanwhile.
  """
  @type t :: %{
          required(:module) => module(),
          required(:file) => charlist(),
          required(:bytes) => binary(),
          required(:back) => binary() | nil,
          optional(:around_back) => ((() -> result) -> result)
        }

  @typep result :: :ok | {:error, String.t()}

  @doc "Loads them in order, before a deadline in monotonic milliseconds, up to the first that fails."
  @spec load([t()], integer()) :: :ok | {:error, :on_load, String.t()}
  def load([], _deadline), do: :ok
  def load(steps, deadline), do: PhaseTimes.note(:load, fn -> load_each(steps, deadline) end)

  defp load_each(steps, deadline) do
    Enum.reduce_while(steps, :ok, fn step, :ok ->
      case load_one(step, step.bytes, deadline) do
        :ok ->
          {:cont, :ok}

        {:error, reason} ->
          text =
            "#{inspect(step.module)} runs code when it is loaded, and that failed (#{reason})"

          {:halt, {:error, :on_load, text}}
      end
    end)
  end

  # How long loading back may take: everybody waits for it.
  @back_within 1_000

  @doc "Makes the code that ran before a step current again, if the step's is current."
  @spec back(t()) :: :ok | {:error, String.t()}
  def back(%{module: module} = step) do
    cond do
      not current?(step) -> stop(module)
      step.back == nil -> {:error, "its former code is in no file"}
      not :code.soft_purge(module) -> {:error, "its former code is still in use"}
      true -> load_back(step)
    end
  end

  defp load_back(step) do
    around = Map.get(step, :around_back, & &1.())

    around.(fn ->
      load_one(step, step.back, System.monotonic_time(:millisecond) + @back_within)
    end)
  end

  @doc "Whether the code of a step is what runs."
  @spec current?(t()) :: boolean()
  def current?(%{module: module, bytes: bytes}),
    do: Conversion.current?(%{module: module, md5: :code.module_md5(bytes)})

  @doc "Ends an on_load that is under way: the code that ran before it stays the current one."
  @spec stop(module()) :: :ok
  def stop(module) do
    for pid <- running(module), do: Process.exit(pid, :kill)
    :ok
  end

  defp load_one(%{module: module} = step, bytes, deadline) do
    {loader, monitor} = spawn_monitor(loader(self(), step, bytes))

    receive do
      {^loader, :loaded, result} ->
        send(loader, :wanted)
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, ^loader, reason} ->
        {:error, Cause.of_exit(reason)}
    after
      max(0, deadline - System.monotonic_time(:millisecond)) ->
        where = for pid <- running(module), do: ": " <> Description.process(pid)
        stop(module)
        # It takes back what it may still load.
        send(loader, :not_wanted)
        Process.demonitor(monitor, [:flush])
        {:error, "it did not end in time#{where}"}
    end
  end

  defp loader(engine, step, bytes) do
    fn ->
      monitor = Process.monitor(engine)
      {loaded, cause} = Listener.during(step.module, fn -> load_now(step, bytes) end)
      result = result(loaded, cause)
      send(engine, {self(), :loaded, result})

      receive do
        :wanted -> :ok
        :not_wanted -> if result == :ok, do: back(step)
        {:DOWN, ^monitor, _, _, _} -> if result == :ok, do: back(step)
      end
    end
  end

  defp load_now(step, bytes), do: :code.load_binary(step.module, step.file, bytes)

  defp result({:module, _module}, _cause), do: :ok
  defp result({:error, :on_load_failure}, nil), do: {:error, "on_load did not give ok"}
  defp result({:error, :on_load_failure}, cause), do: {:error, Cause.of_exit(cause)}
  defp result({:error, reason}, _cause), do: {:error, inspect(reason)}

  # The code server runs on_load in a process of its own, which it monitors
  # (code_server.erl, handle_on_load/5). When that dies the load has failed, and the code
  # that ran before is still the current one.
  defp running(module) do
    {:monitors, monitors} = Process.info(Process.whereis(:code_server), :monitors)
    for {:process, pid} <- monitors, Stacktrace.runs?(pid, module), do: pid
  end
end
