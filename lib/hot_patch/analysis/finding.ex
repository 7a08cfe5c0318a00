defmodule HotPatch.Analysis.Finding do
  @table [
    {:export_removed_but_called, :danger,
     "A function is no longer offered, and modules outside the change call it.",
     "Keep the function, or put the modules that call it into the patch."},
    {:module_deleted_but_called, :danger, "A module goes, and modules that stay call it.",
     "Keep the module, or put the modules that call it into the patch."},
    {:missing_function_called, :danger,
     "A changed module calls a function that its module does not have after the change.",
     "Put the module that has the function into the patch, or correct the call."},
    {:unknown_module_called, :warning,
     "A changed module calls a module that nothing called before and that is not known here.",
     "Put the module into the patch, unless every node has it already."},
    {:cycle, :info,
     "Modules of the change call each other in a circle: none can come before the others.",
     "Nothing where all become current in one step; one by one, calls between them may fail."},
    {:struct_changed_without_code_change, :danger,
     "The fields of a struct that is the state of processes have changed, and no code_change converts it.",
     "Write a code_change for the former struct, and one for {:down, vsn}."},
    {:state_changed_without_code_change, :danger,
     "The state that init makes has another form, and no code_change converts it.",
     "Write a code_change for the former state, and one for {:down, vsn}."},
    {:no_way_back, :warning,
     "The code_change that converts the state to another form shows no clause for {:down, vsn}.",
     "Write one, or know that a rollback cannot convert the state back."},
    {:struct_changed_in_state, :warning,
     "The fields of a struct have changed, and modules with processes of their own work with it.",
     "See whether their states hold such structs; if so, convert them in a code_change."},
    {:struct_literal_outdated, :danger,
     "Modules outside the change make a struct as it was when they were compiled, with its former fields.",
     "Put these modules, compiled again, into the patch."},
    {:struct_field_removed_but_used, :danger,
     "A field of a struct has gone, and functions outside the change work with it.",
     "Keep the field, or put the modules that use it into the patch."},
    {:struct_default_changed, :info,
     "The default of a struct's field has changed; structs that exist keep theirs, and modules outside the change make it as before.",
     "Put modules that make the struct, compiled again, into the patch if they are to have the new default."},
    {:state_not_seen, :info,
     "What the state of the module's processes looks like does not show in its code, and its code_change is absent or as before.",
     "Compare the states yourself."},
    {:vsn_unchanged, :warning,
     "The code has changed and its vsn has not: code_change cannot tell the versions apart.",
     "Give the module another @vsn, or none."},
    {:assign_not_there, :warning,
     "A view, component or channel uses an assign that nothing of the version before names: sessions that are there do not have it, and rendering, or what reads it, fails in them.",
     "Convert the socket of a view or channel in a code_change; a component, whose state is in the view's process, has none: let it read the assign as assigns[:name]."},
    {:two_steps_between_nodes, :info,
     "Functions that processes hand their new states to change with them, and the change calls other nodes.",
     "Build it with --split: two archives, first the functions that take both states, on all nodes, then the processes; or apply it to all nodes at once."},
    {:role_changed, :danger,
     "The module is another kind of process than before; those that run are of the former kind.",
     "Give the new kind another name, or restart the processes."},
    {:callback_mode_changed, :warning, "The callback mode of a gen_statem has changed.",
     "See that its code_change gives a state of the new mode; a rollback, which cannot change the mode of a process that runs, is refused while such processes are alive, unless it is forced."},
    {:state_function_gone, :danger,
     "A gen_statem has no function any more for a state that its processes may be in: they end with their next event.",
     "Keep the function, or lead the state to another one in a code_change."},
    {:start_function_gone, :danger,
     "A function that starts processes is no longer offered: a supervisor that has it in a child specification cannot start such a child again, and ends with it.",
     "Keep the function, or put the supervisor whose init makes the new specification into the patch."},
    {:supervisor_init_changed, :warning,
     "The init of a supervisor has changed: it takes over the new child specifications, and running children stay as they are.",
     "Start children that are new, and stop those that go, by hand; children whose specification changed have it from their next restart."},
    {:application_start_changed, :warning,
     "The start of an application has changed, and does not run again before the application is restarted.",
     "Do by hand what it would do, or restart the application."},
    {:nif_module, :warning,
     "The module loads a native library, which may refuse to be loaded again.",
     "Apply it with on_load: :load if the library has an upgrade callback, or restart the nodes."},
    {:on_load, :warning,
     "The module runs code when it is loaded, so it cannot become current together with the others.",
     "Apply it with on_load: :load, or restart the nodes."},
    {:callback_missing, :warning,
     "A behaviour wants a callback that a module with this behaviour does not have.",
     "Write the callback, or make it optional."},
    {:macro_changed, :warning,
     "A macro has changed; modules that were compiled with it keep what it made of them.",
     "Put the modules that use it, compiled again, into the patch."},
    {:protocol_not_consolidated, :danger,
     "The protocol that runs is consolidated, and the one of the change is not.",
     "Take the protocol from the folder of consolidated protocols of the build."},
    {:implementation_not_consolidated, :danger,
     "An implementation is new, and its protocol, consolidated without it, is not in the change.",
     "Put the protocol, consolidated with the implementation, into the patch."},
    {:implementation_deleted, :danger,
     "An implementation goes, and its protocol, consolidated with it, is not in the change.",
     "Put the protocol, consolidated without the implementation, into the patch."},
    {:module_unreadable, :danger, "A file is no module that can be loaded.", "Build it again."},
    {:module_unchanged, :info, "The module is the one that runs already.", "Leave it out."},
    {:running_unreadable, :warning,
     "A file of the system before the change is no module that can be read, so nothing is known of what it calls and of its states.",
     "See whether the file is what runs; the findings are those of the other modules."},
    {:analysis_incomplete, :warning,
     "The modules are so large, or so many, that some were not looked at.",
     "Compare fewer at once, and look at those that are named by yourself."},
    {:code_not_compared, :warning,
     "The module has instructions that are unknown here, so its functions were not compared.",
     "Use a HotPatch that knows the OTP by which the module was compiled."}
  ]
  @severities [:info, :warning, :danger]

  @moduledoc """
  Something that stands out in a change of modules.

    * `:name` - what, see below; names are stable, and findings are accepted by them
    * `:severity` - `:info`, `:warning`, or `:danger`: something will break, as far as can be seen
    * `:module` - the module it is about, as its name stands in its file
    * `:items` - what in particular: functions, fields, modules
    * `:message` - the same in full sentences
    * `:processes` - in a plan: how many processes of the node work for the module

  ## Names

  | name | severity | what it means | what to do |
  |---|---|---|---|
  #{Enum.map_join(@table, "\n", fn {name, severity, what, next} -> "| `:#{name}` | #{severity} | #{what} | #{next} |" end)}
  """

  @type severity :: :info | :warning | :danger
  @type t :: %__MODULE__{
          name: atom(),
          severity: severity(),
          module: String.t(),
          items: [String.t()],
          message: String.t(),
          processes: non_neg_integer() | nil
        }
  @enforce_keys [:name, :severity, :module, :items, :message]
  defstruct [:name, :severity, :module, :items, :message, :processes]

  @doc "Every name with its severity, what it means, and what to do about it."
  @spec table() :: [{atom(), severity(), String.t(), String.t()}]
  def table, do: @table

  @doc "All severities, the worst last."
  @spec severities() :: [severity()]
  def severities, do: @severities

  @doc """
  Whether it is one of those that somebody has accepted: by name, or by name and module, as
  `"on_load"` and `"on_load:MyApp.Foo"`.
  """
  @spec accepted?(t(), [String.t()]) :: boolean()
  def accepted?(%__MODULE__{name: name, module: module}, accepted) do
    "#{name}" in accepted or "#{name}:#{module}" in accepted or
      "#{name}:#{String.replace_prefix(module, "Elixir.", "")}" in accepted
  end

  defimpl Inspect do
    def inspect(finding, _options) do
      HotPatch.Support.Printable.line(
        "#HotPatch.Analysis.Finding<#{finding.severity} #{finding.name} #{finding.module}>"
      )
    end
  end

  defimpl String.Chars do
    def to_string(finding),
      do:
        HotPatch.Support.Printable.line("#{finding.severity} #{finding.name}: #{finding.message}")
  end
end
