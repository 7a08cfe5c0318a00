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

fn one(change: &Change<'_>, system: &System<'_>) -> Vec<Finding> {
    let conversion = state::conversion(change, system);
    let form = match conversion {
        Conversion::Touched => None,
        _ => form(change, conversion, system.down),
    };
    let way_back = way_back(change, conversion, system);
    form.into_iter().chain(vsn(change, conversion)).chain(way_back).collect()
}

fn form(change: &Change<'_>, conversion: Conversion, down: bool) -> Option<Finding> {
    let (old, new) = change.both()?;
    let code_change = match (conversion, down) {
        (Conversion::Absent, _) => "it has no code_change",
        (_, false) => "its code_change is as it was before or leaves the state as it is",
        (_, true) => "its code_change knows no {:down, vsn}",
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
                shown(&after),
                shown(&before)
            );
            let of_structs = |form: &String| form.starts_with('%') && !form.starts_with("%{");
            let kind = if before.iter().chain(&after).any(of_structs) {
                Kind::StructChangedWithoutCodeChange
            } else {
                Kind::StateChangedWithoutCodeChange
            };
            Some(finding(kind, change.name, vec![shown(&before), shown(&after)], &what))
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
fn way_back(change: &Change<'_>, conversion: Conversion, system: &System<'_>) -> Option<Finding> {
    let (_, new) = change.both()?;
    let moved = conversion == Conversion::Touched && state::differs(change) == Some(true);
    let lost = moved && !system.down && !state::knows_way_back(new);
    let what = "converts the state to another form, and not back";
    lost.then(|| finding(Kind::NoWayBack, change.name, vec!["{:down, vsn}".to_owned()], what))
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
