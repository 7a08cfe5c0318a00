//! What differs between two builds.

use hot_patch_beam::Module;

/// A file that a patch brings or takes away. At least one of the two builds has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path, as the build that runs has it.
    pub path: String,
    /// Where the build that runs has the module, if that is another application: it moves from
    /// there.
    pub moved_from: Option<String>,
    /// The file of the build that runs. None if it has no such file, or if there is no such build.
    pub before: Option<Build>,
    /// That of the repaired build.
    pub after: Option<Build>,
    /// Whether nothing was there to compare with.
    pub picked: bool,
    /// Whether the module that comes is the one that runs, of an upgrade, which brings whole folders.
    pub unchanged: bool,
}

/// A file of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// What it holds.
    pub bytes: Vec<u8>,
    /// Whether its owner may run it.
    pub executable: bool,
    /// What it is, if it is a module.
    pub module: Option<Box<Module>>,
}

impl Change {
    /// The name of the module, if it is one.
    pub fn module(&self) -> Option<&str> {
        let build = self.after.as_ref().or(self.before.as_ref())?;
        build.module.as_deref().map(Module::name)
    }
}
