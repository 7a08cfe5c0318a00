//! What could not be read, and so was not compared: it is told, each cause by its own word.

use std::collections::BTreeMap;

use super::finding::{Finding, Kind};
use super::system::System;
use super::text;
use super::version::Version;
use hot_patch_beam::functions::Unread;

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let mut found = unchanged(system);
    let files = [(&system.unread.after, true), (&system.unread.before, false)];
    for (unread, after) in files {
        found.extend(unread.iter().filter_map(|why| finding("", why, after)));
    }
    for change in &system.changes {
        found.extend(change.new.iter().filter_map(|version| one(version, true)));
        found.extend(change.old.iter().filter_map(|version| one(version, false)));
    }
    found.extend(outside(system));
    found.extend(exhausted(system));
    found
}

/// Modules of the change that are not worth reading.
fn unchanged(system: &System<'_>) -> Vec<Finding> {
    let one = |name: &&str| Finding {
        kind: Kind::ModuleUnchanged,
        module: (*name).to_owned(),
        items: Vec::new(),
        message: format!("{} is the module that runs already.", text::module(name)),
    };
    system.unchanged.iter().map(one).collect()
}

fn one(version: &Version<'_>, after: bool) -> Option<Finding> {
    finding(version.name(), version.unread()?, after)
}

/// Of modules outside the change there may be many: one finding for each cause.
fn outside(system: &System<'_>) -> Vec<Finding> {
    let mut by_kind = BTreeMap::<Kind, Finding>::new();
    for found in system.outside.values().filter_map(|version| one(version, false)) {
        let first = by_kind
            .entry(found.kind)
            .or_insert_with(|| Finding { module: String::new(), ..found.clone() });
        first.items.push(found.module);
        if first.items.len() == 2 {
            first.message += " So it is with others outside the change.";
        }
    }
    by_kind.into_values().collect()
}

/// About a file of the change, or one of the system before it.
fn finding(module: &str, why: &Unread, after: bool) -> Option<Finding> {
    let kind = match (why, after) {
        (Unread::Damaged(_), true) => Kind::ModuleUnreadable,
        (Unread::Damaged(_), false) => Kind::RunningUnreadable,
        (Unread::Newer { .. }, _) => Kind::CodeNotCompared,
        // Told once, for all.
        (Unread::Exhausted, _) => return None,
    };
    let shown = text::module(module);
    let message = match (why, module, after) {
        (Unread::Damaged(damage), "", true) => damage.to_string(),
        (Unread::Damaged(damage), "", false) => format!("Before the change: {damage}"),
        (Unread::Damaged(damage), _, true) => format!("{shown}: {damage}"),
        (Unread::Damaged(damage), _, false) => format!("{shown} before the change: {damage}"),
        (_, "", _) => {
            format!("A module {why}: its functions were not compared. {}", kind.next_step())
        }
        _ => format!("{shown} {why}: its functions were not compared. {}", kind.next_step()),
    };
    Some(Finding { kind, module: module.to_owned(), items: Vec::new(), message })
}

/// What was left out because a limit was reached.
fn exhausted(system: &System<'_>) -> Option<Finding> {
    if !system.effort.is_exhausted() {
        return None;
    }
    let versions = system.changes.iter().flat_map(|change| change.old.iter().chain(&change.new));
    let left_out = versions
        .chain(system.outside.values())
        .filter(|version| version.unread() == Some(&Unread::Exhausted));
    let mut items: Vec<String> = left_out.map(|version| version.name().to_owned()).collect();
    items.dedup();
    let shown: Vec<String> = items.iter().map(|name| text::module(name)).collect();
    let what = if shown.is_empty() { "some modules".to_owned() } else { text::list(&shown) };
    let kind = Kind::AnalysisIncomplete;
    let message =
        format!("The limits of an analysis left no room for {what}. {}", kind.next_step());
    Some(Finding { kind, module: String::new(), items, message })
}
