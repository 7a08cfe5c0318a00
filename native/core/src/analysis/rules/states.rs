//! States that change their form while nothing converts them.

use std::collections::BTreeSet;

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::state::{self, Conversion};
use crate::analysis::system::{Side, System};
use crate::analysis::text;
use crate::analysis::version::Version;

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let replaced = system.changes.iter().filter(|change| change.both().is_some());
    let with_states = replaced.filter(|change| change.latest().is_some_and(Version::has_states));
    // What sessions of Phoenix have they get by many ways, and nothing of it shows in one place.
    let hosted = |one: &Version<'_>| one.roles.iter().any(|role| role.is_hosted());
    let reaching = system.reaching().filter(|one| one.has_states() && !hosted(one));
    let outside = reaching.filter_map(|version| outside(version, system));
    with_states.flat_map(|change| one(change, system)).chain(outside).collect()
}

/// A module that stays as it is, and whose processes would begin with another state because of what
/// it calls in modules that change: nothing converts the states of those that run.
fn outside<'s>(version: &Version<'s>, system: &System<'s>) -> Option<Finding> {
    let [before, after] =
        [Side::Before, Side::After].map(|side| state::forms(version, side, system));
    if before == after && !before.is_empty() {
        return None;
    }
    let makers = state::changed_makers(version, system);
    if before.is_empty() || after.is_empty() {
        let makers: Vec<String> = makers.into_iter().collect();
        let what = format!(
            "stays as it is, and so do its processes' states; what these look like does not show in \
             its code, and {} changes, which it calls where it makes them",
            text::list(&makers)
        );
        return (!makers.is_empty())
            .then(|| finding(Kind::StateNotSeen, version.name(), makers, &what));
    }
    let what = format!(
        "stays as it is, so no code_change is called, and by what its init calls in modules that \
         change it makes the state {} instead of {}: put it into the patch, with another vsn",
        shown(after),
        shown(before)
    );
    let items = vec![shown(before), shown(after)];
    Some(finding(changed(before, after), version.name(), items, &what))
}

type Forms = BTreeSet<String>;

fn shown(forms: &Forms) -> String {
    forms.iter().map(String::as_str).collect::<Vec<_>>().join(" or ")
}

/// The kind of a finding about states that had other forms before.
fn changed(before: &Forms, after: &Forms) -> Kind {
    let of_struct = |form: &String| form.starts_with('%') && !form.starts_with("%{");
    if before.iter().chain(after).any(of_struct) {
        Kind::StructChangedWithoutCodeChange
    } else {
        Kind::StateChangedWithoutCodeChange
    }
}

fn one<'s>(change: &Change<'s>, system: &System<'s>) -> Vec<Finding> {
    let conversion = state::conversion(change, system);
    let by = if system.down { &change.old } else { &change.new };
    let way_back = by.as_ref().is_some_and(|by| state::knows_way_back(by, system));
    let converts = conversion == Conversion::Touched && (way_back || !system.down);
    let form = if converts { None } else { form(change, conversion, system) };
    let lost = no_way_back(change, conversion, system).filter(|_| !system.down && !way_back);
    form.into_iter().chain(vsn(change, conversion)).chain(lost).collect()
}

fn form<'s>(change: &Change<'s>, conversion: Conversion, system: &System<'s>) -> Option<Finding> {
    let (old, new) = change.both()?;
    // What their assigns are is looked at by a rule of its own.
    if new.roles.iter().any(|role| role.is_hosted()) {
        return None;
    }
    let code_change = match (conversion, system.down) {
        (Conversion::Absent, _) => "it has no code_change",
        (Conversion::Keeps, _) => "its code_change leaves the state as it is",
        (_, false) => "its code_change, which is called, is as it was before",
        (_, true) => "its code_change, which is called, does not show that it knows {:down, vsn}",
    };
    let own = own_fields(change);
    match (state::differs(change, system), own.is_empty()) {
        (Some(true), _) => {
            let before = state::forms(old, Side::Before, system);
            let after = state::forms(new, Side::After, system);
            let what = format!(
                "makes the state {} instead of {}, and {code_change}",
                shown(after),
                shown(before)
            );
            Some(finding(
                changed(before, after),
                change.name,
                vec![shown(before), shown(after)],
                &what,
            ))
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
fn no_way_back<'s>(
    change: &Change<'s>,
    conversion: Conversion,
    system: &System<'s>,
) -> Option<Finding> {
    change.both()?;
    let moved = conversion == Conversion::Touched && state::differs(change, system) == Some(true);
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
