//! What becomes of one module.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::role::Role;
use super::state::{self, Conversion};
use super::system::System;
use super::text;
use super::version::Version;
use hot_patch_beam::functions::Digest;

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
    /// No process has it as its callback module, or it converts no state.
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
    /// What is known of its `code_change`.
    pub code_change: Conversion,
    /// Whether its processes' state changes, or may.
    pub state_moves: bool,
    /// For whom processes have to stand still.
    pub pause: Pause,
    /// Why so, in a clause.
    pub why: &'static str,
}

/// What becomes of one module of the change.
pub(super) fn describe<'s>(change: &Change<'s>, system: &System<'s>) -> ModuleChange {
    let operation = match (&change.old, &change.new) {
        (None, _) => Operation::Add,
        (Some(_), Some(_)) => Operation::Replace,
        (Some(_), None) => Operation::Delete,
    };
    let code_change = state::conversion(change, system);
    let (pause, why) = pause(change, operation, code_change);
    let named = |functions: Vec<(&str, u8)>| {
        functions.into_iter().map(|(name, arity)| text::function(name, arity)).collect()
    };
    ModuleChange {
        module: change.name.to_owned(),
        operation,
        roles: change.latest().map(|version| version.roles.clone()).unwrap_or_default(),
        functions: functions(change),
        exports_added: named(change.added_exports()),
        exports_removed: named(change.removed_exports()),
        calls: calls(change, system),
        callers: system.callers(change.name).map(|version| version.name().to_owned()).collect(),
        code_change,
        state_moves: pause != Pause::None && state::moves(change, code_change, system),
        pause,
        why,
    }
}

fn pause(
    change: &Change<'_>,
    operation: Operation,
    code_change: Conversion,
) -> (Pause, &'static str) {
    let processes = change
        .latest()
        .is_some_and(|version| version.roles.iter().any(|role| role.has_processes()));
    match operation {
        Operation::Add => (Pause::None, "it is new: no process runs it"),
        Operation::Delete => (Pause::None, "it goes: nothing is converted"),
        Operation::Replace if change.is(Role::Supervisor) => {
            (Pause::Supervisor, "its supervisors take over their new init")
        }
        Operation::Replace => match (code_change, processes) {
            (Conversion::Absent, false) => {
                (Pause::None, "no process has it as its callback module")
            }
            (Conversion::Absent, true) => {
                (Pause::None, "it has no code_change: processes keep their state")
            }
            (Conversion::Keeps, _) => (
                Pause::None,
                "all its code_change does is to give the state back: processes keep it as it is",
            ),
            (Conversion::Untouched | Conversion::Touched, _) => {
                (Pause::State, "its processes' state goes through code_change")
            }
        },
    }
}

/// Which functions differ. Funs and the like count as the function in which they stand.
fn functions(change: &Change<'_>) -> Option<Functions> {
    let (old, new) = (digests(change.old.as_ref())?, digests(change.new.as_ref())?);
    let text = |(name, arity): &Named| text::function(name, *arity);
    let lacking = |all: &BTreeMap<Named, _>, others: &BTreeMap<Named, _>| -> Vec<String> {
        all.keys().filter(|named| !others.contains_key(*named)).map(text).collect()
    };
    let both = new.iter().filter_map(|(named, is)| Some((named, is, old.get(named)?)));
    Some(Functions {
        added: lacking(&new, &old),
        removed: lacking(&old, &new),
        changed: both.filter(|(_, is, was)| is != was).map(|(named, ..)| text(named)).collect(),
    })
}

/// The modules of the change that the new version calls and that are there after it.
fn calls(change: &Change<'_>, system: &System<'_>) -> Vec<String> {
    let called = change.new.iter().flat_map(|new| new.called());
    let others = called.filter(|name| **name != change.name);
    let there = others.filter(|name| system.change(name).is_some_and(|other| other.new.is_some()));
    there.map(|name| (*name).to_owned()).collect()
}

type Named = (String, u8);

/// What the compiler makes of what else is in the module.
const MADE: [&str; 2] = ["module_info", "__info__"];

/// Each function with the digests of itself and of what stands in it; none of no module.
fn digests(version: Option<&Version<'_>>) -> Option<BTreeMap<Named, BTreeSet<Digest>>> {
    let mut all = BTreeMap::<Named, BTreeSet<Digest>>::new();
    let Some(version) = version else { return Some(all) };
    let functions = version.functions()?;
    for function in functions.iter() {
        let named = owner(functions.name(function), function.arity);
        if !MADE.contains(&named.0.as_str()) {
            all.entry(named).or_default().insert(function.digest);
        }
    }
    Some(all)
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
