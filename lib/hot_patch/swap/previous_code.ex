defmodule HotPatch.Swap.PreviousCode do
  @moduledoc false
  # The code that runs before a swap, prepared so that it can become current again at once.

  alias HotPatch.Swap.Change

  @typedoc "Changes that lead back, and the loader's preparation; or why there is no way back."
  @type t :: {[Change.t()], term()} | {:none, String.t()}

  @doc """
  Prepares the way back from changes that are not made yet. The code is taken from the
  node's files: those of what runs, as its digest tells.
  """
  @spec prepare([Change.t()]) :: t()
  def prepare(changes) do
    with {:ok, modules} <- code(Change.replaced(changes)),
         {:ok, prepared} <- :code.prepare_loading(modules) do
      {Enum.map(changes, &back/1), prepared}
    else
      {:none, _why} = none -> none
      {:error, reasons} -> {:none, "its former code cannot be prepared: #{inspect(reasons)}"}
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
