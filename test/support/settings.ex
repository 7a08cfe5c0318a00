defmodule HotPatch.Test.Settings do
  @moduledoc false
  # What is configured for HotPatch, changed for one test.

  import ExUnit.Callbacks

  @doc "Sets an option until the test ends."
  @spec configure(atom(), term()) :: :ok
  def configure(option, value) do
    before = Application.fetch_env(:hot_patch, option)
    Application.put_env(:hot_patch, option, value)

    on_exit(fn ->
      case before do
        {:ok, value} -> Application.put_env(:hot_patch, option, value)
        :error -> Application.delete_env(:hot_patch, option)
      end
    end)
  end
end
