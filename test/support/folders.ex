defmodule HotPatch.Test.Folders do
  @moduledoc false
  # Folders that a test leaves behind.

  import HotPatch.Test.Until

  @doc """
  Removes a folder when the test has ended. A node that has its data there may be putting something into
  it at that moment, so it is tried until the folder is gone. What points to the folder is to be
  configured after this: it is then taken back before.
  """
  @spec remove_on_exit(Path.t()) :: :ok
  def remove_on_exit(folder) do
    ExUnit.Callbacks.on_exit(fn ->
      until(fn -> match?({:ok, _removed}, File.rm_rf(folder)) end, "#{folder} is removed")
    end)
  end
end
