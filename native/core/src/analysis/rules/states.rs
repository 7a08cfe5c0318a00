//! States that change their form while nothing converts them.

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::Role;
use crate::analysis::state::{self, Conversion};
use crate::analysis::system::System;
use crate::analysis::text;

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let replaced = system.changes.iter().filter(|change| change.both().is_some());
    let with_states = replaced.filter(|change| {
        [Role::Server, Role::Statem, Role::Event, Role::Special].iter().any(|role| change.is(*role))
    });
    with_states.flat_map(|change| one(change, system)).collect()
}

fn one<'s>(change: &Change<'s>, system: &System<'s>) -> Vec<Finding> {
    let conversion = state::conversion(change, system);
    let by = if system.down { &change.old } else { &change.new };
    let way_back = by.as_ref().is_some_and(|by| state::knows_way_back(by, system));
    let converts = conversion == Conversion::Touched && (way_back || !system.down);
    let form = if converts { None } else { form(change, conversion, system.down) };
    let lost = no_way_back(change, conversion).filter(|_| !system.down && !way_back);
    form.into_iter().chain(vsn(change, conversion)).chain(lost).collect()
}

fn form(change: &Change<'_>, conversion: Conversion, down: bool) -> Option<Finding> {
    let (old, new) = change.both()?;
    let code_change = match (conversion, down) {
        (Conversion::Absent, _) => "it has no code_change",
        (Conversion::Keeps, _) => "its code_change leaves the state as it is",
        (_, false) => "its code_change, which is called, is as it was before",
        (_, true) => "its code_change, which is called, does not show that it knows {:down, vsn}",
    };
    let own = own_fields(change);
    match (state::differs(change), own.is_empty()) {
        (Some(true), _) => {
            let (before, after) = (state::forms(old), state::forms(new));
            let shown = |forms: &std::collections::BTreeSet<String>| {
                forms.iter().cloned().collect::<Vec<_>>().join(" or ")
            };
            let what = format!(
                "makes the state {} instead of {}, and {code_change}",
                shown(after),
                shown(before)
            );
            let of_structs = |form: &String| form.starts_with('%') && !form.starts_with("%{");
            let kind = if before.iter().chain(after).any(of_structs) {
                Kind::StructChangedWithoutCodeChange
            } else {
                Kind::StateChangedWithoutCodeChange
            };
            Some(finding(kind, change.name, vec![shown(before), shown(after)], &what))
        }
        (None, false) => {
            let what =
                format!("has other fields in its struct ({}), and {code_change}", own.join(", "));
            Some(finding(Kind::StructChangedWithoutCodeChange, change.name, own, &what))
        }
        (None, true) => {
            let what =
                format!("does not show what its processes' state looks like, and {code_change}");
            Some(finding(Kind::StateNotSeen, change.name, Vec::new(), &what))
        }
        (Some(false), _) => None,
    }
}

/// The fields that its own struct has got or lost, with a sign.
fn own_fields(change: &Change<'_>) -> Vec<String> {
    let fields = change.both().and_then(|(old, new)| state::fields(old).zip(state::fields(new)));
    fields.map(|(old, new)| super::structs::difference(&old, &new)).unwrap_or_default()
}

/// A state that is converted can be taken back only by a `code_change` that knows of it.
fn no_way_back(change: &Change<'_>, conversion: Conversion) -> Option<Finding> {
    change.both()?;
    let moved = conversion == Conversion::Touched && state::differs(change) == Some(true);
    let what = "converts the state to another form, and does not show that it converts it back";
    let items = vec!["{:down, vsn}".to_owned()];
    moved.then(|| finding(Kind::NoWayBack, change.name, items, what))
}

/// Without another vsn a `code_change` cannot know what it is given.
fn vsn(change: &Change<'_>, conversion: Conversion) -> Option<Finding> {
    let (old, new) = change.both()?;
    let vsn = new.parsed.module.vsn.as_deref()?;
    let same = old.parsed.module.vsn.as_deref() == Some(vsn);
    let what = format!(
        "has another code and the same vsn, and {}'s code_change goes by it",
        text::module(change.name)
    );
    (same && conversion == Conversion::Touched)
        .then(|| finding(Kind::VsnUnchanged, change.name, Vec::new(), &what))
}
