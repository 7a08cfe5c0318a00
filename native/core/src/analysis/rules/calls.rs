//! Calls that lead nowhere after the change.

use std::collections::{BTreeMap, BTreeSet};

use super::finding;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::system::System;
use crate::analysis::text;
use crate::analysis::version::Version;

/// Functions that go, and modules that go, while modules outside the change call them.
pub(super) fn removed(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for change in &system.changes {
        let gone: BTreeSet<(&str, u8)> = change.removed_exports().into_iter().collect();
        let calling = callers(system, change.name, &gone);
        if change.new.is_none() {
            let callers: BTreeSet<String> = calling.into_values().flatten().collect();
            if !callers.is_empty() {
                let callers: Vec<String> = callers.into_iter().collect();
                let what = format!("goes, and {} calls it", text::list(&callers));
                found.push(finding(Kind::ModuleDeletedButCalled, change.name, callers, &what));
            }
            continue;
        }
        for ((name, arity), calling) in calling {
            let shown = text::function(name, arity);
            let what = format!("no longer offers {shown}, which {} calls", text::list(&calling));
            let items = [vec![shown], calling].concat();
            found.push(finding(Kind::ExportRemovedButCalled, change.name, items, &what));
        }
    }
    found
}

type Callers<'s> = BTreeMap<(&'s str, u8), Vec<String>>;

/// For each of these functions of a module those of modules outside that call it, as they are read.
fn callers<'s>(system: &'s System<'_>, module: &str, of: &BTreeSet<(&str, u8)>) -> Callers<'s> {
    let mut callers = Callers::new();
    if of.is_empty() {
        return callers;
    }
    for version in system.callers(module) {
        let imports = version.parsed.module.imports().filter(|import| import.module == module);
        let imported: BTreeSet<(&str, u8)> = imports
            .map(|import| (import.function, import.arity))
            .filter(|function| of.contains(function))
            .collect();
        if imported.is_empty() {
            continue;
        }
        let Some(functions) = version.functions() else {
            for function in imported {
                callers.entry(function).or_default().push(text::module(version.name()));
            }
            continue;
        };
        for caller in functions.iter() {
            let external = functions.external(caller);
            if !system.effort.goes_on(external.len()) {
                return callers;
            }
            let calls = external.iter().filter(|call| call.module == module);
            let calls = calls.filter_map(|call| imported.get(&(call.function, call.arity)));
            for called in calls.copied().collect::<BTreeSet<_>>() {
                let name = functions.name(caller);
                let shown = text::qualified(version.name(), name, caller.arity);
                callers.entry(called).or_default().push(shown);
            }
        }
    }
    callers
}

/// Functions that a changed module calls and did not call before, and that are not there. Of
/// modules that are not known nothing is said.
pub(super) fn missing(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for change in &system.changes {
        let Some(new) = &change.new else { continue };
        let before = change.old.as_ref().map(imports).unwrap_or_default();
        let mut missing = Vec::new();
        for (module, function, arity) in imports(new) {
            let called = system.now(module);
            let lacks = called.is_some_and(|other| !other.offers(function, arity));
            // What went with the change is missing for those too that called it before.
            let went = system.change(module).is_some_and(|other| {
                other.old.as_ref().is_some_and(|old| old.offers(function, arity))
            });
            let gone = called.is_none() && went;
            let known = before.contains(&(module, function, arity)) && !went;
            if (lacks || gone) && !known {
                missing.push(text::qualified(module, function, arity));
            }
        }
        if !missing.is_empty() {
            let what =
                format!("calls {}, which is not there after the change", text::list(&missing));
            found.push(finding(Kind::MissingFunctionCalled, change.name, missing, &what));
        }
    }
    found
}

/// Modules that a changed module calls and nothing did before, if they are not known: each is a
/// finding of its own, so that who knows more can leave it out.
pub(super) fn unknown(system: &System<'_>) -> Vec<Finding> {
    let before = system.changes.iter().filter_map(|change| change.old.as_ref());
    let before: BTreeSet<&str> =
        before.chain(system.outside.values()).flat_map(Version::called).copied().collect();
    let mut found = Vec::new();
    for new in system.changes.iter().filter_map(|change| change.new.as_ref()) {
        for module in new.called().iter().copied() {
            let is_known = system.now(module).is_some() || system.change(module).is_some();
            // The VM itself has functions of modules that have no file.
            if !is_known && !before.contains(module) && module != "erlang" {
                let shown = text::module(module);
                let what =
                    format!("calls {shown}, which nothing did before and which is not known here");
                let items = vec![module.to_owned()];
                found.push(finding(Kind::UnknownModuleCalled, new.name(), items, &what));
            }
        }
    }
    found
}

fn imports<'s>(version: &Version<'s>) -> BTreeSet<(&'s str, &'s str, u8)> {
    let imports = version.parsed.module.imports();
    let own = version.name();
    let others = imports.filter(|import| import.module != own);
    others.map(|import| (import.module, import.function, import.arity)).collect()
}
