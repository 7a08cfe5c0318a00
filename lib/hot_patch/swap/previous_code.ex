defmodule HotPatch.Swap.PreviousCode do
  @moduledoc false
  # The code that runs before a swap, read while there is time, so that it can become current again at once. The
  # loader prepares it only when it is needed, which is a fraction of a millisecond for a module; and it takes it,
  # as it is the very code that this VM runs, by its digest.

  alias HotPatch.Swap.Change

  @typedoc "Changes that lead back, and the code of before; or why there is no way back."
  @type t :: {[Change.t()], [{module(), charlist(), binary()}]} | {:none, String.t()}

  @doc """
  Reads the way back from changes that are not made yet. The code is taken from the
  node's files: those of what runs, as its digest tells.
  """
  @spec read([Change.t()]) :: t()
  def read(changes) do
    with {:ok, modules} <- code(Change.replaced(changes)),
         do: {Enum.map(changes, &back/1), modules}
  end

  @doc "The way back, ready to become current; or why there is none."
  @spec prepare(t()) :: {:ok, [Change.t()], prepared :: term()} | {:error, String.t()}
  def prepare({:none, why}), do: {:error, why}

  def prepare({changes, modules}) do
    case :code.prepare_loading(modules) do
      {:ok, prepared} -> {:ok, changes, prepared}
      {:error, reasons} -> {:error, "its former code cannot be prepared: #{inspect(reasons)}"}
    end
  end

  @doc "File and code of a module as it runs now."
  @spec code_of(module()) :: {:ok, charlist(), binary()} | :unknown
  def code_of(module) do
    with {^module, bytes, file} <- :code.get_object_code(module),
         true <- :code.module_md5(bytes) == :erlang.get_module_info(module, :md5) do
      {:ok, file, bytes}
    else
      _ -> :unknown
    end
  end

  defp code(modules) do
    Enum.reduce_while(modules, {:ok, []}, fn module, {:ok, done} ->
      case code_of(module) do
        {:ok, file, bytes} -> {:cont, {:ok, [{module, file, bytes} | done]}}
        :unknown -> {:halt, {:none, "the former code of #{inspect(module)} is in no file"}}
      end
    end)
  end

  defp back(%Change{kind: :add} = change),
    do: %{change | kind: :delete, md5: nil, direction: :down, old_vsn: {:down, nil}}

  # The exports are those of the code that will know the way down.
  defp back(%Change{module: module, old_vsn: vsn} = change) do
    md5 = :erlang.get_module_info(module, :md5)
    %{change | direction: :down, md5: md5, old_vsn: {:down, vsn}}
  end
end
