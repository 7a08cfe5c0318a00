//! What becomes of one module.

use std::collections::{BTreeMap, BTreeSet};

use super::role::Role;
use super::state::{self, Conversion};
use super::system::{System, Version};
use super::text;
use crate::beam::functions::Digest;

/// What is done with a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// It is new.
    Add,
    /// It takes the place of another version.
    Replace,
    /// It goes.
    Delete,
}

/// Whether processes have to stand still for a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pause {
    /// No process has it as its callback module, or none has a state that it would convert.
    None,
    /// Its processes are suspended while their state is converted.
    State,
    /// Its processes are supervisors: suspended while they take over their new init.
    Supervisor,
}

/// Functions of a module by what becomes of them, each as name and arity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// They are new.
    pub added: Vec<String>,
    /// They go.
    pub removed: Vec<String>,
    /// Their code is another.
    pub changed: Vec<String>,
}

/// What becomes of one module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleChange {
    /// Its name.
    pub module: String,
    /// What is done.
    pub operation: Operation,
    /// What it is to the system, after the change if it is there then.
    pub roles: Vec<Role>,
    /// Its functions; `None` if they could not be compared.
    pub functions: Option<Functions>,
    /// Functions it offers that it did not.
    pub exports_added: Vec<String>,
    /// Functions it no longer offers.
    pub exports_removed: Vec<String>,
    /// Modules of the change that it calls.
    pub calls: Vec<String>,
    /// Modules outside the change that call it.
    pub callers: Vec<String>,
    /// What its `code_change` does about the change.
    pub code_change: Conversion,
    /// Whether its processes' state changes, or may.
    pub state_moves: bool,
    /// For whom processes have to stand still.
    pub pause: Pause,
    /// Why so, in a clause.
    pub why: &'static str,
}

/// A module before and after.
pub(super) struct Change<'s> {
    pub(super) name: &'s str,
    pub(super) old: Option<Version<'s>>,
    pub(super) new: Option<Version<'s>>,
}

impl<'s> Change<'s> {
    /// Both versions of a module that is replaced.
    pub(super) fn both(&self) -> Option<(&Version<'s>, &Version<'s>)> {
        self.old.as_ref().zip(self.new.as_ref())
    }

    /// The version after the change, or the last there was.
    pub(super) fn latest(&self) -> Option<&Version<'s>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Whether it is, before or after, of a kind.
    pub(super) fn is(&self, role: Role) -> bool {
        self.latest().is_some_and(|version| version.is(role))
    }

    /// Exports that only the first version has.
    pub(super) fn removed_exports(&self) -> Vec<(&'s str, u8)> {
        exports(self.old.as_ref()).difference(&exports(self.new.as_ref())).copied().collect()
    }

    /// Whether a function, or one that it reaches in the module, is another than before.
    pub(super) fn touches(&self, name: &str, arity: u8) -> bool {
        let digest = |version: &Option<Version<'s>>| {
            version.as_ref().and_then(|version| version.functions()?.deep_digest(name, arity))
        };
        digest(&self.old) != digest(&self.new)
    }

    pub(super) fn describe(&self, system: &System<'s>) -> ModuleChange {
        let operation = match (&self.old, &self.new) {
            (None, _) => Operation::Add,
            (Some(_), Some(_)) => Operation::Replace,
            (Some(_), None) => Operation::Delete,
        };
        let code_change = state::conversion(self, system);
        let (pause, why) = self.pause(operation, code_change);
        let named = |functions: Vec<(&str, u8)>| {
            functions.into_iter().map(|(name, arity)| text::function(name, arity)).collect()
        };
        let added: Vec<_> =
            exports(self.new.as_ref()).difference(&exports(self.old.as_ref())).copied().collect();
        ModuleChange {
            module: self.name.to_owned(),
            operation,
            roles: self.latest().map(|version| version.roles.clone()).unwrap_or_default(),
            functions: self.functions(),
            exports_added: named(added),
            exports_removed: named(self.removed_exports()),
            calls: self.calls(system),
            callers: self.callers(system),
            code_change,
            state_moves: pause != Pause::None && state::moves(self, code_change),
            pause,
            why,
        }
    }

    fn pause(&self, operation: Operation, code_change: Conversion) -> (Pause, &'static str) {
        let processes = self
            .latest()
            .is_some_and(|version| version.roles.iter().any(|role| role.has_processes()));
        match operation {
            Operation::Add => (Pause::None, "it is new: no process runs it"),
            Operation::Delete => (Pause::None, "it goes: nothing is converted"),
            Operation::Replace if self.is(Role::Supervisor) => {
                (Pause::Supervisor, "its supervisors take over their new init")
            }
            Operation::Replace if !processes => {
                (Pause::None, "no process has it as its callback module")
            }
            Operation::Replace if code_change == Conversion::Absent => {
                (Pause::None, "it has no code_change: processes keep their state")
            }
            Operation::Replace => (Pause::State, "its processes' state goes through code_change"),
        }
    }

    /// Which functions differ. Funs and the like count as the function in which they stand.
    fn functions(&self) -> Option<Functions> {
        let old = digests(self.old.as_ref())?;
        let new = digests(self.new.as_ref())?;
        let names = |all: &BTreeSet<(Named, BTreeSet<Digest>)>| -> BTreeSet<Named> {
            all.iter().map(|(named, _)| named.clone()).collect()
        };
        let (had, has) = (names(&old), names(&new));
        let text = |named: &Named| text::function(&named.0, named.1);
        let changed: BTreeSet<Named> = names(&new.difference(&old).cloned().collect());
        Some(Functions {
            added: has.difference(&had).map(text).collect(),
            removed: had.difference(&has).map(text).collect(),
            changed: changed.intersection(&had).map(text).collect(),
        })
    }

    fn calls(&self, system: &System<'s>) -> Vec<String> {
        let Some(new) = &self.new else { return Vec::new() };
        let others = system.changes.iter().filter(|other| other.name != self.name);
        let there = others.filter(|other| other.new.is_some());
        let called = there.filter(|other| new.calls(other.name));
        called.map(|other| other.name.to_owned()).collect()
    }

    fn callers(&self, system: &System<'s>) -> Vec<String> {
        let calling = system.outside.values().filter(|version| version.calls(self.name));
        calling.map(|version| version.name().to_owned()).collect()
    }
}

type Named = (String, u8);

/// What the compiler makes of what else is in the module.
const MADE: [&str; 2] = ["module_info", "__info__"];

/// Each function with the digests of itself and of what stands in it; none of no module.
fn digests(version: Option<&Version<'_>>) -> Option<BTreeSet<(Named, BTreeSet<Digest>)>> {
    let Some(version) = version else { return Some(BTreeSet::new()) };
    let mut all = BTreeMap::<Named, BTreeSet<Digest>>::new();
    for function in version.functions()?.iter() {
        let named = owner(&function.name, function.arity);
        if !MADE.contains(&named.0.as_str()) {
            all.entry(named).or_default().insert(function.digest);
        }
    }
    Some(all.into_iter().collect())
}

/// The function in which one stands: `-f/1-fun-0-` is of `f/1`.
fn owner(name: &str, arity: u8) -> Named {
    let outer = || {
        let inside = name.strip_prefix('-')?;
        let end = MARKS.iter().filter_map(|mark| inside.find(mark)).min()?;
        let (name, arity) = inside.get(..end)?.rsplit_once('/')?;
        Some((name.to_owned(), arity.parse().ok()?))
    };
    outer().unwrap_or_else(|| (name.to_owned(), arity))
}

/// What the compiler puts behind the name of a function for what stands in it.
const MARKS: [&str; 7] = ["-fun-", "-lc$", "-lbc$", "-mc$", "-lists^", "-after$", "-anonymous-"];

fn exports<'s>(version: Option<&Version<'s>>) -> BTreeSet<(&'s str, u8)> {
    let exports = version.into_iter().flat_map(|version| version.parsed.module.exports());
    exports.map(|export| (export.function, export.arity)).collect()
}
