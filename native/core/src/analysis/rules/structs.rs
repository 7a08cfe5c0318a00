//! Structs whose fields change, and who works with them.

use std::collections::{BTreeMap, BTreeSet};

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::state::{self, Fields};
use crate::analysis::system::System;
use crate::analysis::text;
use crate::analysis::version::Version;
use hot_patch_beam::etf::StructForm;
use hot_patch_beam::functions::{Function, Functions};

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let (mut found, mut changed) = (Vec::new(), Changed::new());
    for change in &system.changes {
        let fields = change.both().and_then(|(old, new)| {
            state::fields(old).zip(state::fields(new)).filter(|(old, new)| old != new)
        });
        let Some((old, new)) = fields else { continue };
        let structure = Struct::new(old, new);
        found.extend(structure.defaults(change.name));
        if !structure.difference().is_empty() {
            changed.insert(change.name, structure);
        }
    }
    if changed.is_empty() {
        return found;
    }
    let mut used = BTreeMap::<&str, Used>::new();
    for version in system.outside.values() {
        uses(version, &changed, true, &mut used);
    }
    for version in system.changes.iter().filter_map(|change| change.new.as_ref()) {
        uses(version, &changed, false, &mut used);
    }
    for change in system.changes.iter().filter(|change| changed.contains_key(change.name)) {
        let holding = &mut used.entry(change.name).or_default().holding;
        holding.extend(callers(change, system));
    }
    for (name, used) in used {
        found.extend(changed.get(name).into_iter().flat_map(|one| one.findings(name, &used)));
    }
    found
}

/// The fields that were added, with `+`, and those removed, with `-`.
pub(super) fn difference(old: &Fields, new: &Fields) -> Vec<String> {
    let added =
        new.keys().filter(|field| !old.contains_key(*field)).map(|field| format!("+{field}"));
    let removed =
        old.keys().filter(|field| !new.contains_key(*field)).map(|field| format!("-{field}"));
    added.chain(removed).collect()
}

/// The structs that have other fields, by the modules that define them.
type Changed<'s> = BTreeMap<&'s str, Struct>;

/// A struct that changes.
struct Struct {
    old: Fields,
    new: Fields,
    /// Fields that are gone.
    gone: Vec<String>,
}

impl Struct {
    fn new(old: Fields, new: Fields) -> Self {
        let gone = old.keys().filter(|field| !new.contains_key(*field)).cloned().collect();
        Struct { old, new, gone }
    }

    fn difference(&self) -> Vec<String> {
        difference(&self.old, &self.new)
    }

    fn findings(&self, name: &str, used: &Used) -> Vec<Finding> {
        let shown = self.difference().join(", ");
        let make = |kind, items: &BTreeSet<String>, what: &str| {
            let items: Vec<String> = items.iter().cloned().collect();
            let what = format!(
                "has other fields in its struct ({shown}), {}",
                what.replace("{}", &text::list(&items))
            );
            (!items.is_empty()).then(|| finding(kind, name, items, &what))
        };
        let literals = "and {} makes it with those it had";
        let fields = "and {} works with what is gone";
        let holding = "and processes of {} may hold it in their state";
        let found = [
            make(Kind::StructLiteralOutdated, &used.literals, literals),
            make(Kind::StructFieldRemovedButUsed, &used.fields, fields),
            make(Kind::StructChangedInState, &used.holding, holding),
        ];
        found.into_iter().flatten().collect()
    }

    /// Defaults that change, where the fields are the same.
    fn defaults(&self, name: &str) -> Option<Finding> {
        if !self.difference().is_empty() {
            return None;
        }
        let changed =
            self.new.iter().filter(|(field, default)| self.old.get(*field) != Some(default));
        let fields: Vec<String> = changed.map(|(field, _)| field.clone()).collect();
        let what = format!("has other defaults for {} of its struct", text::list(&fields));
        (!fields.is_empty()).then(|| finding(Kind::StructDefaultChanged, name, fields, &what))
    }

    /// Whether a literal is the struct as it was. One to match with may have any of the fields; one
    /// that was made has all.
    fn is_outdated(&self, form: &StructForm) -> bool {
        let keys: BTreeSet<&str> = form.fields.iter().map(|(key, _)| key.as_str()).collect();
        let complete = self.old.keys().all(|field| keys.contains(field.as_str()));
        let current = self.new.keys().all(|field| keys.contains(field.as_str()));
        complete && (!current || keys.len() != self.new.len() + 1)
    }

    /// Whether the function, which knows the struct, makes it of parts: with all its former fields.
    fn is_made_in(&self, functions: &Functions<'_>, function: &Function) -> bool {
        self.old.keys().all(|field| functions.has_key(function, field))
            && !self.new.keys().all(|field| functions.has_key(function, field))
    }
}

/// Who works with a struct, as is read.
#[derive(Default)]
struct Used {
    /// Functions outside the change that make it as it was.
    literals: BTreeSet<String>,
    /// Functions outside the change that work with fields that are gone.
    fields: BTreeSet<String>,
    /// Modules whose processes may hold it.
    holding: BTreeSet<String>,
}

/// Adds what a module does with the structs that change, its own left aside.
fn uses<'s>(
    version: &Version<'_>,
    changed: &Changed<'s>,
    outside: bool,
    used: &mut BTreeMap<&'s str, Used>,
) {
    // A literal struct has its name in no table: what is read is every module that could have
    // one, and that is only one that knows structs or was compiled with this.
    if !version.has_atom("__struct__") && !version.has_literals() {
        return;
    }
    let Some(functions) = version.functions() else { return };
    let literals = literals(version, functions, changed);
    let has_states = version.holds_states();
    for function in functions.iter() {
        let known = known(functions, function, &literals, changed);
        for (name, outdated) in known.into_iter().filter(|(name, _)| *name != version.name()) {
            let Some(structure) = changed.get(name) else { continue };
            let used = used.entry(name).or_default();
            if has_states {
                used.holding.insert(text::module(version.name()));
            }
            let fields = structure.old.len() + structure.new.len();
            if !outside || !version.effort.goes_on(fields) {
                continue;
            }
            let shown = text::qualified(version.name(), functions.name(function), function.arity);
            if structure.gone.iter().any(|field| functions.has_key(function, field)) {
                used.fields.insert(shown.clone());
            }
            if outdated || structure.is_made_in(functions, function) {
                used.literals.insert(shown);
            }
        }
    }
}

/// The modules with processes that let a module of functions work with its struct for them: so they
/// may hold it and never name it. Of a module with processes of its own others hold no struct.
fn callers<'v>(
    change: &'v Change<'_>,
    system: &'v System<'_>,
) -> impl Iterator<Item = String> + 'v {
    let pure =
        change.latest().is_some_and(|one| !one.roles.iter().any(|role| role.has_processes()));
    let calling = system.all_now().filter(move |one| {
        pure && one.name() != change.name
            && one.holds_states()
            && one.called().contains(change.name)
    });
    calling.map(|one| text::module(one.name()))
}

/// Structs by their names, and whether they are as they were.
type Known<'s> = BTreeMap<&'s str, bool>;

/// For each literal of a module the changed structs in it. A literal may be named by many functions.
fn literals<'s>(
    version: &Version<'_>,
    functions: &Functions<'_>,
    changed: &Changed<'s>,
) -> Vec<Known<'s>> {
    let known = |forms: &[StructForm]| {
        let mut known = Known::new();
        for form in forms {
            let Some((name, structure)) = changed.get_key_value(form.module.as_str()) else {
                continue;
            };
            if !version.effort.goes_on(structure.old.len() + structure.new.len()) {
                break;
            }
            *known.entry(name).or_default() |= structure.is_outdated(form);
        }
        known
    };
    functions.literal_structs().map(known).collect()
}

/// The changed structs that a function knows: it has one in a literal, or names it where it works
/// with structs.
fn known<'s>(
    functions: &Functions<'_>,
    function: &Function,
    literals: &[Known<'s>],
    changed: &Changed<'s>,
) -> Known<'s> {
    let mut known = Known::new();
    for literal in function.literals().filter_map(|place| literals.get(place)) {
        for (name, outdated) in literal {
            *known.entry(name).or_default() |= outdated;
        }
    }
    if functions.names(function, "__struct__") {
        let named = functions.named(function);
        for (name, _) in named.filter_map(|name| changed.get_key_value(name)) {
            known.entry(name).or_default();
        }
    }
    known
}
