//! What the states of processes look like, and what becomes of them.

use std::collections::BTreeSet;

use super::change::Change;
use super::role::Role;
use super::system::{System, Version};
use super::text;
use crate::etf::Outline;

/// What `code_change` does about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conversion {
    /// There is none.
    Absent,
    /// It is as it was before.
    Untouched,
    /// It is new, or another than before.
    Touched,
}

/// The functions by which modules convert states.
const CONVERTERS: [(&str, u8); 3] =
    [("code_change", 3), ("code_change", 4), ("system_code_change", 4)];

/// What the module's `code_change` does about its change. On the way down it is that of the newer
/// version, which runs, and it has to know of that way.
pub(super) fn conversion(change: &Change<'_>, system: &System<'_>) -> Conversion {
    let by = if system.down { &change.old } else { &change.new };
    let Some(by) = by else { return Conversion::Absent };
    let mut found = Conversion::Absent;
    for (name, arity) in CONVERTERS {
        if by.parsed.module.offers(name, arity) {
            let touched = change.touches(name, arity) || helped(by, name, arity, system);
            let way = !system.down || names_down(by, name, arity);
            let converts = touched && way && !gives_back(by, name, arity);
            found = found.max(if converts { Conversion::Touched } else { Conversion::Untouched });
        }
    }
    found
}

fn gives_back(version: &Version<'_>, name: &str, arity: u8) -> bool {
    let function = version.function(name, arity);
    function.is_some_and(|(functions, function)| functions.gives_back(function))
}

/// Whether a function names the atom by which it is told that a version is older.
fn names_down(version: &Version<'_>, name: &str, arity: u8) -> bool {
    let Some((functions, function)) = version.function(name, arity) else { return false };
    functions.reached(function).iter().any(|one| functions.atoms(one).any(|atom| atom == "down"))
}

/// Whether the module's `code_change` knows the way back.
pub(super) fn knows_way_back(version: &Version<'_>) -> bool {
    CONVERTERS.iter().any(|(name, arity)| names_down(version, name, *arity))
}

/// Whether what a function calls in other modules has changed.
fn helped(version: &Version<'_>, name: &str, arity: u8, system: &System<'_>) -> bool {
    let Some((functions, function)) = version.function(name, arity) else { return false };
    let mut calls = functions.reached(function).into_iter().flat_map(|one| functions.external(one));
    calls.any(|call| {
        let changed = system.change(call.module).filter(|change| change.name != version.name());
        changed.is_some_and(|change| change.touches(call.function, call.arity))
    })
}

/// Whether the state of the module's processes changes, or may: where that does not show, a
/// `code_change` that is as before says that it does not.
pub(super) fn moves(change: &Change<'_>, conversion: Conversion) -> bool {
    conversion == Conversion::Touched
        || differs(change) == Some(true)
        || change.is(Role::Supervisor)
}

/// Whether the form of the state differs, if it shows in both versions.
pub(super) fn differs(change: &Change<'_>) -> Option<bool> {
    let (old, new) = change.both()?;
    let (before, after) = (forms(old), forms(new));
    if before.is_empty() || after.is_empty() { None } else { Some(before != after) }
}

/// The forms of the states that `init` makes, as they are read, such as `{state, _, _}` and
/// `%Call{from, to}`; none where it does not show.
pub(super) fn forms(version: &Version<'_>) -> BTreeSet<String> {
    let state = match version {
        one if one.is(Role::Statem) => 2,
        one if one.is(Role::Server) || one.is(Role::Event) => 1,
        _ => return BTreeSet::new(),
    };
    let Some((functions, init)) = version.function("init", 1) else { return BTreeSet::new() };
    let returned = functions.returns(init);
    let states = returned.iter().filter_map(|outline| match outline {
        Outline::Tuple(elements) if elements.first() == Some(&Outline::Atom("ok".to_owned())) => {
            elements.get(state)
        }
        _ => None,
    });
    states.filter_map(form).collect()
}

fn form(state: &Outline) -> Option<String> {
    match state {
        Outline::Tuple(elements) => {
            let element = |(place, element): (usize, &Outline)| match element {
                Outline::Atom(tag) if place == 0 => tag.clone(),
                _ => "_".to_owned(),
            };
            let elements: Vec<_> = elements.iter().enumerate().map(element).collect();
            Some(format!("{{{}}}", elements.join(", ")))
        }
        Outline::Map(fields) => {
            let structure = fields.iter().find(|(key, _)| key == "__struct__");
            let name = match structure {
                Some((_, Outline::Atom(name))) => text::module(name),
                _ => String::new(),
            };
            let keys =
                fields.iter().map(|(key, _)| key.as_str()).filter(|key| *key != "__struct__");
            Some(format!("%{name}{{{}}}", keys.collect::<Vec<_>>().join(", ")))
        }
        _ => None,
    }
}

/// A struct's fields, each with a digest of its default.
pub(super) type Fields = std::collections::BTreeMap<String, [u8; 32]>;

/// The fields of the struct that a module defines.
pub(super) fn fields(version: &Version<'_>) -> Option<Fields> {
    let (functions, function) = version.function("__struct__", 0)?;
    let mut maps = functions.maps(function);
    let map = maps.find(|map| map.structure.as_deref() == Some(version.name()))?;
    Some(map.fields.iter().filter(|(key, _)| key != "__struct__").cloned().collect())
}
