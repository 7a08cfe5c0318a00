//! What can be found in a change, by name.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// To be looked at before the change is applied.
    Warning,
    /// Something will break, as far as can be seen: a patch is not built with it unless it is
    /// accepted by name.
    Danger,
}

impl Severity {
    /// Every severity.
    pub const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Danger];

    /// Its name in `snake_case`.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Danger => "danger",
        }
    }
}

macro_rules! kinds {
    ($($variant:ident, $severity:ident, $name:literal, $what:literal, $next:literal;)+) => {
        /// What was found. The name is stable: it crosses to Erlang as an atom, and findings are
        /// accepted by it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $what] #[doc = ""] #[doc = $next] $variant,)+
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)+];

            /// Its name in `snake_case`.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)+ }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Kind::$variant => Severity::$severity,)+ }
            }

            /// What it means, as a sentence.
            pub fn what(self) -> &'static str {
                match self { $(Kind::$variant => $what,)+ }
            }

            /// What to do about it, as a sentence.
            pub fn next_step(self) -> &'static str {
                match self { $(Kind::$variant => $next,)+ }
            }
        }
    };
}

kinds! {
    // Calls.
    ExportRemovedButCalled, Danger, "export_removed_but_called",
        "A function is no longer offered, and modules outside the change call it.",
        "Keep the function, or put the modules that call it into the patch.";
    ModuleDeletedButCalled, Danger, "module_deleted_but_called",
        "A module goes, and modules that stay call it.",
        "Keep the module, or put the modules that call it into the patch.";
    MissingFunctionCalled, Danger, "missing_function_called",
        "A changed module calls a function that its module does not have after the change.",
        "Put the module that has the function into the patch, or correct the call.";
    UnknownModuleCalled, Warning, "unknown_module_called",
        "A changed module calls a module that nothing called before and that is not known here.",
        "Put the module into the patch, unless every node has it already.";
    Cycle, Info, "cycle",
        "Modules of the change call each other in a circle: none can come before the others.",
        "Nothing where all become current in one step; one by one, calls between them may fail.";

    // State.
    StructChangedWithoutCodeChange, Danger, "struct_changed_without_code_change",
        "The fields of a struct that is the state of processes have changed, and no code_change converts it.",
        "Write a code_change for the former struct, and one for {:down, vsn}.";
    StateChangedWithoutCodeChange, Danger, "state_changed_without_code_change",
        "The state that init makes has another form, and no code_change converts it.",
        "Write a code_change for the former state, and one for {:down, vsn}.";
    NoWayBack, Warning, "no_way_back",
        "The code_change that converts the state to another form shows no clause for {:down, vsn}.",
        "Write one, or know that a rollback cannot convert the state back.";
    StructChangedInState, Warning, "struct_changed_in_state",
        "The fields of a struct have changed, and modules with processes of their own work with it.",
        "See whether their states hold such structs; if so, convert them in a code_change.";
    StructLiteralOutdated, Danger, "struct_literal_outdated",
        "Modules outside the change make a struct as it was when they were compiled, with its former fields.",
        "Put these modules, compiled again, into the patch.";
    StructFieldRemovedButUsed, Danger, "struct_field_removed_but_used",
        "A field of a struct has gone, and functions outside the change work with it.",
        "Keep the field, or put the modules that use it into the patch.";
    StructDefaultChanged, Info, "struct_default_changed",
        "The default of a struct's field has changed; structs that exist keep theirs, and modules outside the change make it as before.",
        "Put modules that make the struct, compiled again, into the patch if they are to have the new default.";
    StateNotSeen, Info, "state_not_seen",
        "What the state of the module's processes looks like does not show in its code, and its code_change is absent or as before.",
        "Compare the states yourself.";
    VsnUnchanged, Warning, "vsn_unchanged",
        "The code has changed and its vsn has not: code_change cannot tell the versions apart.",
        "Give the module another @vsn, or none.";

    AssignNotThere, Warning, "assign_not_there",
        "A view, component or channel uses an assign that nothing of the version before names: sessions that are there do not have it, and rendering, or what reads it, fails in them.",
        "Convert the socket of a view or channel in a code_change; a component, whose state is in the view's process, has none: let it read the assign as assigns[:name].";

    // Several nodes.
    TwoStepsBetweenNodes, Info, "two_steps_between_nodes",
        "Functions that processes hand their new states to change with them, and the change calls other nodes.",
        "Build it with --split: two archives, first the functions that take both states, on all nodes, then the processes; or apply it to all nodes at once.";

    // Kinds of modules.
    RoleChanged, Danger, "role_changed",
        "The module is another kind of process than before; those that run are of the former kind.",
        "Give the new kind another name, or restart the processes.";
    CallbackModeChanged, Warning, "callback_mode_changed",
        "The callback mode of a gen_statem has changed.",
        "See that its code_change gives a state of the new mode; a rollback, which cannot change the mode of a process that runs, is refused while such processes are alive, unless it is forced.";
    StateFunctionGone, Danger, "state_function_gone",
        "A gen_statem has no function any more for a state that its processes may be in: they end with their next event.",
        "Keep the function, or lead the state to another one in a code_change.";
    StartFunctionGone, Danger, "start_function_gone",
        "A function that starts processes is no longer offered: a supervisor that has it in a child specification cannot start such a child again, and ends with it.",
        "Keep the function, or put the supervisor whose init makes the new specification into the patch.";
    SupervisorInitChanged, Warning, "supervisor_init_changed",
        "The init of a supervisor has changed: it takes over the new child specifications, and running children stay as they are.",
        "Start children that are new, and stop those that go, by hand; children whose specification changed have it from their next restart.";
    ApplicationStartChanged, Warning, "application_start_changed",
        "The start of an application has changed, and does not run again before the application is restarted.",
        "Do by hand what it would do, or restart the application.";
    NifModule, Warning, "nif_module",
        "The module loads a native library, which may refuse to be loaded again.",
        "Apply it with on_load: :load if the library has an upgrade callback, or restart the nodes.";
    OnLoad, Warning, "on_load",
        "The module runs code when it is loaded, so it cannot become current together with the others.",
        "Apply it with on_load: :load, or restart the nodes.";
    CallbackMissing, Warning, "callback_missing",
        "A behaviour wants a callback that a module with this behaviour does not have.",
        "Write the callback, or make it optional.";

    // Compile time.
    MacroChanged, Warning, "macro_changed",
        "A macro has changed; modules that were compiled with it keep what it made of them.",
        "Put the modules that use it, compiled again, into the patch.";
    ProtocolNotConsolidated, Danger, "protocol_not_consolidated",
        "The protocol that runs is consolidated, and the one of the change is not.",
        "Take the protocol from the folder of consolidated protocols of the build.";
    ImplementationNotConsolidated, Danger, "implementation_not_consolidated",
        "An implementation is new, and its protocol, consolidated without it, is not in the change.",
        "Put the protocol, consolidated with the implementation, into the patch.";
    ImplementationDeleted, Danger, "implementation_deleted",
        "An implementation goes, and its protocol, consolidated with it, is not in the change.",
        "Put the protocol, consolidated without the implementation, into the patch.";

    // What was read.
    ModuleUnreadable, Danger, "module_unreadable",
        "A file is no module that can be loaded.",
        "Build it again.";
    ModuleUnchanged, Info, "module_unchanged",
        "The module is the one that runs already.",
        "Leave it out.";
    RunningUnreadable, Warning, "running_unreadable",
        "A file of the system before the change is no module that can be read, so nothing is known of what it calls and of its states.",
        "See whether the file is what runs; the findings are those of the other modules.";
    AnalysisIncomplete, Warning, "analysis_incomplete",
        "The modules are so large, or so many, that some were not looked at.",
        "Compare fewer at once, and look at those that are named by yourself.";
    CodeNotCompared, Warning, "code_not_compared",
        "The module has instructions that are unknown here, so its functions were not compared.",
        "Use a HotPatch that knows the OTP by which the module was compiled.";
}

impl Kind {
    /// Whether it says that a state changes its form, or that this cannot be told.
    pub fn is_of_state(self) -> bool {
        matches!(
            self,
            Kind::StructChangedWithoutCodeChange
                | Kind::StateChangedWithoutCodeChange
                | Kind::StructChangedInState
                | Kind::StateNotSeen
                | Kind::RoleChanged
                | Kind::CodeNotCompared
                | Kind::ModuleUnreadable
                | Kind::RunningUnreadable
                | Kind::AnalysisIncomplete
        )
    }
}

/// Something found in a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// The module it is about.
    pub module: String,
    /// What in particular, each as a word: functions, fields, modules.
    pub items: Vec<String>,
    /// What was found, in full sentences.
    pub message: String,
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }
}
