defmodule HotPatch.Hook do
  @moduledoc """
  What a host application wants to do when its code changes: tell web clients to reload,
  stop taking new work, refresh a cache.

      config :hot_patch, hooks: [MyApp.PatchHook]

  Every callback is optional and runs on each node, in a process of its own that is given
  200 milliseconds; what it raises, and that it was late, is logged and changes nothing.

    * `before_pause/1` - before the first process is suspended
    * `after_load/1` - the new code is current, those concerned still stand still
    * `after_resume/1` - everybody goes on
    * `after_write/1` - the files are changed too: memory and disk are as the patch, or its rollback, wants them
    * `before_restart/1` - the node is about to be restarted into another release (`restart: :rolling`): stop taking new
      work and let go of what there is. It is given `config :hot_patch, drain_timeout: 30_000` instead; `modules` is empty

  `modules` are those that change, `files` the paths of all files in the patch. One without
  modules has no pause: `after_load` is left out. They are not called when a patch is refused; the last three do not
  follow where the change was taken back.

  What HotPatch does by itself for LiveViews and static files is such a hook: `HotPatch.LiveView`.
  """

  alias HotPatch.Host.Config
  alias HotPatch.Support.Cause

  require HotPatch.Support.Log, as: Log

  @type change :: %{patch: String.t(), modules: [module()], files: [String.t()]}
  @type moment :: :before_pause | :after_load | :after_resume | :after_write | :before_restart

  @callback before_pause(change()) :: term()
  @callback after_load(change()) :: term()
  @callback after_resume(change()) :: term()
  @callback after_write(change()) :: term()
  @callback before_restart(change()) :: term()
  @optional_callbacks before_pause: 1,
                      after_load: 1,
                      after_resume: 1,
                      after_write: 1,
                      before_restart: 1

  @within 200

  @doc false
  @spec run(moment(), change(), own :: [module()]) :: :ok
  def run(moment, change, own \\ []) do
    within = within(moment)

    for hook <- Config.current().hooks ++ own,
        Code.ensure_loaded?(hook) and function_exported?(hook, moment, 1) do
      {pid, monitor} = spawn_monitor(hook, moment, [change])

      receive do
        {:DOWN, ^monitor, :process, ^pid, :normal} ->
          :ok

        {:DOWN, ^monitor, :process, ^pid, reason} ->
          log(hook, moment, "failed: #{Cause.of_exit(reason)}")
      after
        within ->
          Process.demonitor(monitor, [:flush])
          log(hook, moment, "is not waited for any longer")
      end
    end

    :ok
  end

  defp within(:before_restart), do: Config.current().drain_timeout
  defp within(_moment), do: @within

  defp log(hook, moment, what) do
    Log.warning("HotPatch: the hook #{inspect(hook)}.#{moment}/1 #{what}", hook: hook)
  end
end
