defmodule HotPatch.Swap.Replay.Tap do
  @moduledoc false
  # Hears what processes receive, by the VM's own tracing. From OTP 27 on in a session of its own; before,
  # a process can be traced by one only, and one that is traced already is left alone.
  #
  # It ends with the process that hears.

  @type t :: :only_one | {:session, term()}

  @doc "Opens one; the calling process hears."
  @spec open() :: t()
  def open do
    if Code.ensure_loaded?(:trace) and function_exported?(:trace, :session_create, 3),
      do: {:session, trace(:session_create, [:hot_patch_replay, self(), []])},
      else: :only_one
  end

  @doc "Begins to hear what a process receives: `{:trace, pid, :receive, message}`."
  @spec on(t(), pid()) :: :ok | :gone | :traced
  def on({:session, session}, pid) do
    if trace(:process, [session, pid, true, [:receive]]) == 1, do: :ok, else: :gone
  rescue
    ArgumentError -> :gone
  end

  def on(:only_one, pid) do
    case :erlang.trace_info(pid, :tracer) do
      {:tracer, []} ->
        if :erlang.trace(pid, true, [:receive, {:tracer, self()}]) == 1, do: :ok, else: :gone

      :undefined ->
        :gone

      _somebody ->
        :traced
    end
  rescue
    # Dead, or somebody was quicker.
    ArgumentError -> if(Process.alive?(pid), do: :traced, else: :gone)
  end

  @doc "Ends to hear of a process."
  @spec off(t(), pid()) :: :ok
  def off({:session, session}, pid) do
    _ = trace(:process, [session, pid, false, [:receive]])
    :ok
  rescue
    ArgumentError -> :ok
  end

  def off(:only_one, pid) do
    _ = :erlang.trace(pid, false, [:receive])
    :ok
  rescue
    ArgumentError -> :ok
  end

  @doc "Closes it."
  @spec close(t()) :: :ok
  def close({:session, session}) do
    _ = trace(:session_destroy, [session])
    :ok
  end

  def close(:only_one), do: :ok

  # There is no such module before OTP 27.
  defp trace(function, arguments), do: apply(:trace, function, arguments)
end
