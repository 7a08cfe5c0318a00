defmodule HotPatch.Test.Hooks do
  @moduledoc false
  # Hooks as a host would write them, good and bad.

  defmodule Telling do
    @moduledoc false
    @behaviour HotPatch.Hook

    @impl HotPatch.Hook
    def before_pause(change), do: tell({:before_pause, change, :running})

    @impl HotPatch.Hook
    def after_load(change), do: tell({:after_load, change, stands_still()})

    @impl HotPatch.Hook
    def after_resume(change), do: tell({:after_resume, change, stands_still()})

    @impl HotPatch.Hook
    def after_write(change), do: tell({:after_write, change, stands_still()})

    defp tell(what), do: send(Application.fetch_env!(:hot_patch_test, :listener), what)

    # Without asking: whoever stands still answers only system messages.
    defp stands_still do
      pid = Application.fetch_env!(:hot_patch_test, :call)
      {:current_function, {module, _function, _arity}} = Process.info(pid, :current_function)
      {:suspended?, module == :sys}
    end
  end

  defmodule Failing do
    @moduledoc false
    @behaviour HotPatch.Hook

    @impl HotPatch.Hook
    def after_load(_change), do: raise("a hook's own trouble")
  end

  defmodule Hanging do
    @moduledoc false
    @behaviour HotPatch.Hook

    @impl HotPatch.Hook
    def before_pause(_change), do: receive(do: (:never -> :ok))
  end
end
