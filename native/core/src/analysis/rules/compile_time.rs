//! What modules got from others when they were compiled: macros, and the callbacks they are to
//! have.

use std::collections::BTreeSet;

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::{self, Role};
use crate::analysis::system::System;
use crate::analysis::text;
use crate::analysis::version::Version;
use hot_patch_beam::etf::Outline;

/// Macros that are other than before or go. Who was compiled with them is known only if the
/// request says so; else those are named that call the module.
pub(super) fn macros(system: &System<'_>) -> Vec<Finding> {
    system.changes.iter().filter_map(|change| changed_macros(change, system)).collect()
}

fn changed_macros(change: &Change<'_>, system: &System<'_>) -> Option<Finding> {
    let old = change.old.as_ref()?;
    let macros = role::macros(&old.parsed.module);
    let changed: Vec<String> = macros
        .filter(|(name, arity)| change.touches(name, *arity))
        // The function behind a macro has the caller's environment as its first argument.
        .map(|(name, arity)| {
            text::function(name.trim_start_matches("MACRO-"), arity.saturating_sub(1))
        })
        .collect();
    if changed.is_empty() {
        return None;
    }
    system.effort.work(system.compiled_with.len()).ok()?;
    let told = system.compiled_with.iter().filter(|(_, with)| *with == change.name);
    let told: BTreeSet<&str> = told.map(|(module, _)| *module).collect();
    let outside: Vec<&str> = if system.compiled_with.is_empty() {
        system.callers(change.name).map(Version::name).collect()
    } else {
        told.into_iter().filter(|module| system.outside.contains_key(module)).collect()
    };
    if outside.is_empty() && !system.compiled_with.is_empty() {
        return None;
    }
    let users: Vec<String> = outside.iter().map(|name| text::module(name)).collect();
    let who = match (users.is_empty(), system.compiled_with.is_empty()) {
        (true, _) => "who was compiled with it does not show in the files".to_owned(),
        (false, true) => {
            format!("{} calls the module and may be compiled with it", text::list(&users))
        }
        (false, false) => {
            format!("{} is compiled with the module and not in the change", text::list(&users))
        }
    };
    let what = format!("has other macros ({}), and {who}", text::list(&changed));
    Some(finding(Kind::MacroChanged, change.name, [changed, users].concat(), &what))
}

/// Callbacks that a behaviour wants and a module with that behaviour does not have, where one of
/// both is in the change.
pub(super) fn callbacks(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for version in system.all_now() {
        let behaviours: BTreeSet<&String> = version.parsed.module.behaviours.iter().collect();
        for behaviour in behaviours {
            if !system.effort.goes_on(1) {
                return found;
            }
            let concerned =
                system.change(behaviour).is_some() || system.change(version.name()).is_some();
            let Some(definition) = system.now(behaviour).filter(|_| concerned) else { continue };
            let before =
                system.change(version.name()).map_or(Some(version), |one| one.old.as_ref());
            let missing = missing(definition, version);
            let wanted = system.change(behaviour).map_or(Some(definition), |one| one.old.as_ref());
            // What was missing before is nothing that the change brings.
            let known = wanted.zip(before).map(|(wanted, before)| self::missing(wanted, before));
            let known = known.unwrap_or_default();
            let missing: Vec<String> = missing.difference(&known).cloned().collect();
            if !missing.is_empty() {
                let what = format!(
                    "lacks {}, which {} wants",
                    text::list(&missing),
                    text::module(behaviour)
                );
                found.push(finding(Kind::CallbackMissing, version.name(), missing, &what));
            }
        }
    }
    found
}

fn missing(definition: &Version<'_>, version: &Version<'_>) -> BTreeSet<String> {
    let wanted = required(definition).into_iter();
    let lacking = wanted.filter(|(name, arity)| !version.offers(name, *arity));
    let shown =
        lacking.map(|(name, arity)| text::function(name.trim_start_matches("MACRO-"), arity));
    shown.collect()
}

/// The callbacks a behaviour wants: all but those that are optional.
fn required(definition: &Version<'_>) -> Vec<(String, u8)> {
    if !definition.is(Role::Behaviour) {
        return Vec::new();
    }
    let Some((functions, info)) = definition.function("behaviour_info", 1) else {
        return Vec::new();
    };
    let list = |which: &str| match functions.for_atom(info, which) {
        Some(Outline::Functions(list)) if definition.effort.goes_on(list.len()) => list.as_slice(),
        _ => &[],
    };
    let optional: BTreeSet<&(String, u8)> = list("optional_callbacks").iter().collect();
    list("callbacks").iter().filter(|one| !optional.contains(one)).cloned().collect()
}
