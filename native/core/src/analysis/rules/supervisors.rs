//! Supervisors whose `init` changes.

use std::collections::BTreeSet;

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::Role;
use crate::analysis::system::System;
use crate::analysis::text;
use crate::analysis::version::Version;

const STRATEGIES: [&str; 4] = ["one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"];

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let supervisors = system.changes.iter().filter(|change| change.is(Role::Supervisor));
    supervisors.filter_map(|change| one(change, system)).collect()
}

fn one(change: &Change<'_>, system: &System<'_>) -> Option<Finding> {
    let (old, new) = change.both()?;
    if !change.touches("init", 1) {
        return None;
    }
    let (before, after) = (named(old, system), named(new, system));
    let added: Vec<String> = after.difference(&before).map(|name| text::module(name)).collect();
    let gone: Vec<String> = before.difference(&after).map(|name| text::module(name)).collect();
    let mut what = "has another init: it takes over the new child specifications, and running \
        children stay as they are"
        .to_owned();
    if !added.is_empty() {
        what += &format!(
            "; it now names {}: a child of it is not started by itself",
            text::list(&added)
        );
    }
    if !gone.is_empty() {
        what +=
            &format!("; it no longer names {}: a child of it goes on running", text::list(&gone));
    }
    let sign = |sign: &str, names: Vec<String>| -> Vec<String> {
        names.into_iter().map(|name| format!("{sign}{name}")).collect()
    };
    let items = [sign("+", added), sign("-", gone)].concat();
    Some(finding(Kind::SupervisorInitChanged, change.name, items, &what))
}

/// Modules and strategies that `init` names, itself or in what it calls.
pub(super) fn named(version: &Version<'_>, system: &System<'_>) -> BTreeSet<String> {
    let Some((functions, init)) = version.function("init", 1) else { return BTreeSet::new() };
    let mut names = BTreeSet::new();
    for function in functions.reached(init) {
        names.extend(functions.atoms(function).map(str::to_owned));
    }
    let is_known = |name: &String| {
        let other = name != version.name();
        let module = system.change(name).is_some() || system.outside.contains_key(name.as_str());
        (other && module) || STRATEGIES.contains(&name.as_str())
    };
    names.retain(is_known);
    names
}
