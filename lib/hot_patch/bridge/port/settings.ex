defmodule HotPatch.Bridge.Port.Settings do
  @moduledoc false
  # What can be configured of the program. It is read when it is needed, so that a change counts
  # from the next request, or the next program, on.

  alias HotPatch.Error

  @timeout 60_000
  # The longest that a timer of the VM is sure to take.
  @longest 0xFFFF_FFFF
  # With less, threads of the program may not start.
  @least_memory 32 * 1024 * 1024
  @most_memory 0xFFFF_FFFF_FFFF_FFFF

  @doc "How many milliseconds a request may take."
  @spec timeout() :: {:ok, pos_integer()} | {:error, Error.t()}
  def timeout do
    case Application.get_env(:hot_patch, :port_timeout, @timeout) do
      ms when ms in 1..@longest -> {:ok, ms}
      other -> invalid(:port_timeout, "milliseconds, from 1 to #{@longest}", other)
    end
  end

  @doc "How many bytes of memory the program may take; `default` if nothing is configured."
  @spec memory(pos_integer()) :: {:ok, pos_integer() | :infinity} | {:error, Error.t()}
  def memory(default) do
    case Application.get_env(:hot_patch, :port_memory, default) do
      :infinity -> {:ok, :infinity}
      bytes when bytes in @least_memory..@most_memory -> {:ok, bytes}
      other -> invalid(:port_memory, ":infinity or bytes, at least #{@least_memory}", other)
    end
  end

  defp invalid(option, wanted, value) do
    message = "config :hot_patch, #{option}: must be #{wanted}, got: #{inspect(value)}"
    {:error, Error.new(:invalid_option, message, %{option: option})}
  end
end
