defmodule HotPatch.Swap.OldCode.Purge do
  @moduledoc false
  # Takes old code out of the VM.
  #
  # The VM has one process that may do this, one module at a time. It asks every process
  # whether it runs the module, and then another asks every process for the module's
  # literals. Neither can be left out, or done for several modules at once. What can be
  # avoided are two waits:
  #
  # The way through the code server, which answers nobody else until a purge is over.
  #
  # And on a busy node that for a scheduler. The VM asks few processes at a time, twice as
  # many as it has schedulers, and each answers only when it gets to run: a module takes
  # seconds where it could take a fraction of one.

  alias HotPatch.Swap.OldCode.Users

  # How many processes are asked at a time. More is no quicker, and less would do: the
  # answer takes a process a microsecond.
  @asked_at_once 64

  # A process that was in old code for a moment only, by a fun, is no reason to refuse.
  @attempts 3

  @doc """
  Purges the old code of modules, one after the other, up to the first that is in use: what
  comes after it keeps its old code, and with it the funs made by it.
  """
  @spec all([module()]) :: :ok | {:held, module(), [pid()]}
  def all(modules) do
    wide(fn ->
      Enum.reduce_while(modules, :ok, fn module, :ok ->
        case purge(module, @attempts) do
          :ok -> {:cont, :ok}
          {:held, pids} -> {:halt, {:held, module, pids}}
        end
      end)
    end)
  end

  @doc "Purges the old code of those modules of which it is not in use."
  @spec unused([module()]) :: :ok
  def unused(modules), do: wide(fn -> Enum.each(modules, &soft/1) end)

  @doc "Takes the current code of a module out, softly: whoever runs it goes on in it."
  @spec take_out(module()) :: :ok
  def take_out(module) do
    # What it was the first time may be its old code: the VM has room for one.
    :ok = unused([module])
    _ = :code.delete(module)
    :ok
  end

  defp purge(module, attempts) do
    if soft(module) do
      :ok
    else
      case Users.of_one(module) do
        [] when attempts > 1 -> purge(module, attempts - 1)
        pids -> {:held, pids}
      end
    end
  end

  # What the code server calls as well; OTP does not document it.
  defp soft(module) do
    if function_exported?(:erts_code_purger, :soft_purge, 1),
      do: :erts_code_purger.soft_purge(module),
      else: :code.soft_purge(module)
  end

  # Of two that do this at once the first to end sets the limit back; the other goes on
  # more slowly.
  defp wide(fun) do
    if :erlang.system_info(:outstanding_system_requests_limit) < @asked_at_once do
      before = :erlang.system_flag(:outstanding_system_requests_limit, @asked_at_once)

      try do
        fun.()
      after
        if before < @asked_at_once,
          do: :erlang.system_flag(:outstanding_system_requests_limit, before)
      end
    else
      fun.()
    end
  end
end
