//! The instructions of OTP's release handler, as they stand in `.appup` files.
//!
//! | what | by |
//! |---|---|
//! | [`Appup`], [`Instruction`] | a type for every form that `systools` accepts at this level |
//! | `Display` | Erlang text, the shortest form of each |
//! | [`Appup::parse`], [`Instruction::parse`] | the way back, within bounds |
//! | [`read`] | one encoded term of many texts, for those who carry them out |
//!
//! This is syntax alone. What makes instructions of a change is in
//! [`analysis`](crate::analysis::Builds).

mod parse;
mod reader;
mod reply;
mod value;
mod write;

use serde::{Deserialize, Serialize};

pub use parse::ParseError;
pub use reader::SyntaxError;
pub use reply::{read, with_term};
pub use value::Value;

/// An `.appup` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appup {
    /// The version of the application that it belongs to.
    pub version: String,
    /// What leads from other versions to this one.
    pub up: Vec<Script>,
    /// What leads from this one to others.
    pub down: Vec<Script>,
}

/// The instructions for a version, or for all that a regular expression matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Which version.
    pub version: Version,
    /// What is to be done.
    pub instructions: Vec<Instruction>,
}

/// Another version of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// This one: a string in the file.
    Exactly(String),
    /// Those that a regular expression matches: a binary in the file.
    Matching(String),
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Processes of the module are suspended while its code changes.
    Update(Update),
    /// The module is loaded, and nobody is suspended.
    LoadModule(LoadModule),
    /// The module is new.
    AddModule {
        /// Its name.
        module: String,
        /// The modules of the script that it needs.
        dependencies: Vec<String>,
    },
    /// The module goes.
    DeleteModule {
        /// Its name.
        module: String,
        /// The modules of the script that it needs.
        dependencies: Vec<String>,
    },
    /// The application is new, and is started.
    AddApplication {
        /// Its name.
        application: String,
        /// How it is started.
        start: Start,
    },
    /// The application is stopped and goes.
    RemoveApplication(String),
    /// The application is stopped, changed and started.
    RestartApplication(String),
    /// A function is called.
    Apply {
        /// Its module.
        module: String,
        /// Its name.
        function: String,
        /// Its arguments.
        arguments: Vec<Value>,
    },
    /// The VM is restarted with the new runtime system before all else.
    RestartNewEmulator,
    /// The VM is restarted after all else.
    RestartEmulator,
}

/// `update`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// The module is the callback module of supervisors: `{update, Module, supervisor}`.
    Supervisor(String),
    /// The same, and children that are new are started, those that are gone stopped: an extension
    /// of HotPatch, `{update, Module, {supervisor, children}}`, which `systools` does not know.
    Children(String),
    /// It is that of other processes.
    Processes(Processes),
}

/// `update` of processes that are no supervisors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processes {
    /// The callback module.
    pub module: String,
    /// Whether states change, and what `code_change` is given.
    pub change: Change,
    /// When states are converted on the way down.
    pub kind: ModuleType,
    /// How long a process may take to stand still.
    pub timeout: Timeout,
    /// What happens to processes that still run old code.
    pub purge: Purges,
    /// The modules of the script that it needs.
    pub dependencies: Vec<String>,
}

/// `load_module`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadModule {
    /// The module.
    pub module: String,
    /// What happens to processes that still run old code.
    pub purge: Purges,
    /// The modules of the script that it needs.
    pub dependencies: Vec<String>,
}

/// Whether states change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// They do not: `code_change` is not called.
    #[default]
    Soft,
    /// `code_change` is called with this as its last argument.
    Advanced(Value),
}

/// When states are converted on the way down: before the older code is loaded, or after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModuleType {
    /// Before, by the newer code.
    #[default]
    Dynamic,
    /// After, by the older code.
    Static,
}

/// How long a process may take to stand still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeout {
    /// As long as `sys:suspend` gives it.
    #[default]
    Default,
    /// For ever.
    Infinity,
    /// So many milliseconds; not 0.
    Milliseconds(u32),
}

/// What happens to processes that still run old code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purge {
    /// They are killed.
    #[default]
    Brutal,
    /// The step fails, or is done later, if there are any.
    Soft,
}

/// Before the new code is loaded and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purges {
    /// Before.
    pub pre: Purge,
    /// After.
    pub post: Purge,
}

/// How an application is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The node ends with it.
    #[default]
    Permanent,
    /// The node ends with it, if that is abnormal.
    Transient,
    /// The node goes on without it.
    Temporary,
    /// It is loaded and not started.
    Load,
    /// Its code alone is loaded.
    None,
}
