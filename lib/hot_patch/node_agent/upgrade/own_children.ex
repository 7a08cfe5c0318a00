defmodule HotPatch.NodeAgent.Upgrade.OwnChildren do
  @moduledoc false
  # Children that an application lists in its `start/2` itself, `Supervisor.start_link([...], ...)`: their supervisor has no
  # callback module whose `init` an upgrade could ask again, and `start/2` does not run again while the application runs.
  # So what is new among them is not started, and what is gone not stopped: whoever installs the upgrade is to know it.

  alias HotPatch.NodeAgent.LoadedCode
  alias HotPatch.NodeAgent.Upgrade.Course
  alias HotPatch.NodeAgent.Verdict

  # Milliseconds that an application's master may take to say whom it has started.
  @within 1_000

  @doc """
  One line for each application that stays, has such a supervisor, and whose module with `start/2` changes. `restarted`
  are those that are started anew.
  """
  @spec lines(Course.t(), [Verdict.t()], restarted :: [String.t()]) :: [String.t()]
  def lines(course, verdicts, restarted) do
    changing =
      for %{change: :replace} = verdict <- verdicts,
          into: MapSet.new(),
          do: Verdict.module(verdict)

    for %{name: name, former: former, new: new} <- course.applications,
        former != nil and new != nil and name not in restarted,
        {application, _, _} <- List.wrap(started(name)),
        {:ok, {module, _argument}} <- [:application.get_key(application, :mod)],
        Atom.to_string(module) in changing,
        lists_itself?(application),
        do:
          "#{name}: #{inspect(module)}.start/2 lists children itself, and changes: it does not run again, so that those that " <>
            "are new are not started, and those that are gone not stopped. Give their supervisor a module of its own, or build " <>
            "the upgrade with --restart #{name}"
  end

  defp started(name) do
    with {:ok, application} <- LoadedCode.module(name),
         do: List.keyfind(:application.which_applications(@within), application, 0),
         else: (_unknown -> nil)
  catch
    :exit, _busy -> nil
  end

  # A supervisor is told by what it was started with: that of a list is the library's own callback module.
  defp lists_itself?(application) do
    with master when is_pid(master) <- :application_controller.get_master(application),
         {top, _module} when is_pid(top) <- :application_master.get_child(master) do
      :proc_lib.translate_initial_call(top) == {:supervisor, Supervisor.Default, 1}
    else
      _has_no_process -> false
    end
  end
end
