//! Functions that go and that are called by what processes keep: no code calls them by name, so that
//! nothing is missed before a process needs one.

use super::{finding, supervisors};
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::Role;
use crate::analysis::system::System;
use crate::analysis::text;
use crate::analysis::version::Version;

/// Callbacks with three arguments that are no states.
const NO_STATES: [&str; 3] = ["terminate", "code_change", "format_status"];

/// Functions for the states of a `gen_statem`, where each state has one of its own.
pub(super) fn states(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for change in &system.changes {
        let Some((old, new)) = change.both() else { continue };
        let one_each = old.is(Role::Statem) && !old.offers("handle_event", 4);
        if !one_each || !new.is(Role::Statem) {
            continue;
        }
        let gone = change.removed_exports().into_iter();
        let gone = gone.filter(|(name, arity)| *arity == 3 && !NO_STATES.contains(name));
        // A state is named where processes go into it, and by the code_change that leads it elsewhere.
        let gone = gone.filter(|(name, _)| names(old, name) && !leads_on(new, name));
        let gone: Vec<String> = gone.map(|(name, arity)| text::function(name, arity)).collect();
        if !gone.is_empty() {
            let what = format!(
                "no longer has {}: processes that are in such a state end with their next event",
                text::list(&gone)
            );
            found.push(finding(Kind::StateFunctionGone, change.name, gone, &what));
        }
    }
    found
}

fn names(version: &Version<'_>, atom: &str) -> bool {
    version.functions().is_some_and(|functions| {
        functions.iter().any(|function| functions.atoms(function).any(|named| named == atom))
    })
}

fn leads_on(version: &Version<'_>, atom: &str) -> bool {
    version.function("code_change", 4).is_some_and(|(functions, code_change)| {
        let mut reached = functions.reached(code_change).into_iter();
        reached.any(|function| functions.atoms(function).any(|named| named == atom))
    })
}

/// Functions by which supervisors start processes: a supervisor keeps the name and the arguments for
/// as long as it runs, or until it is given another specification.
pub(super) fn starts(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for change in &system.changes {
        let Some((old, _new)) = change.both() else { continue };
        let started =
            old.offers("child_spec", 1) || old.roles.iter().any(|role| role.has_processes());
        if !started || specified_anew(change, system) {
            continue;
        }
        let gone = change.removed_exports().into_iter();
        let gone: Vec<String> = gone
            .filter(|(name, _)| name.starts_with("start"))
            .map(|(name, arity)| text::function(name, arity))
            .collect();
        if !gone.is_empty() {
            let what = format!(
                "no longer offers {}: a supervisor that has it in a child specification cannot start \
                 such a child again, and ends with it",
                text::list(&gone)
            );
            found.push(finding(Kind::StartFunctionGone, change.name, gone, &what));
        }
    }
    found
}

/// Whether a supervisor of the change, which asks its `init` for the specifications anew, names the module.
fn specified_anew(change: &Change<'_>, system: &System<'_>) -> bool {
    let supervisors = system.changes.iter().filter(|other| other.is(Role::Supervisor));
    let mut inits = supervisors.filter_map(|other| other.both().map(|(_old, new)| new));
    inits.any(|new| supervisors::named(new, system).contains(change.name))
}
