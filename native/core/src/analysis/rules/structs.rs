//! Structs whose fields change, and who works with them.

use std::collections::BTreeSet;

use super::finding;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::Role;
use crate::analysis::state::{self, Fields};
use crate::analysis::system::{System, Version};
use crate::analysis::text;
use crate::beam::functions::{Function, Functions};

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for change in &system.changes {
        let Some((old, new)) = change.both() else { continue };
        let Some((old, new)) = state::fields(old).zip(state::fields(new)) else { continue };
        if old != new {
            found.extend(Struct { name: change.name, old, new }.findings(system));
        }
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

/// A struct that changes.
struct Struct<'s> {
    name: &'s str,
    old: Fields,
    new: Fields,
}

impl Struct<'_> {
    fn findings(&self, system: &System<'_>) -> Vec<Finding> {
        let fields = difference(&self.old, &self.new);
        if fields.is_empty() {
            return self.defaults().into_iter().collect();
        }
        let users: Vec<(&Version<'_>, bool)> =
            system.outside.values().map(|one| (one, true)).collect();
        let within = system.changes.iter().filter(|change| change.name != self.name);
        let within = within.filter_map(|change| Some((change.new.as_ref()?, false)));
        let mut literals = BTreeSet::new();
        let mut using = BTreeSet::new();
        let mut holding = BTreeSet::new();
        for (version, outside) in users.into_iter().chain(within) {
            let used = self.used_by(version);
            if outside {
                literals.extend(used.literals);
                using.extend(used.fields);
            }
            let processes = [Role::Server, Role::Statem, Role::Event, Role::Special];
            if used.at_all && processes.iter().any(|role| version.is(*role)) {
                holding.insert(text::module(version.name()));
            }
        }
        let shown = fields.join(", ");
        let make = |kind, items: BTreeSet<String>, what: &str| {
            let items: Vec<String> = items.into_iter().collect();
            let what = format!(
                "has other fields in its struct ({shown}), {}",
                what.replace("{}", &text::list(&items))
            );
            (!items.is_empty()).then(|| finding(kind, self.name, items, &what))
        };
        [
            make(Kind::StructLiteralOutdated, literals, "and {} makes it with those it had"),
            make(Kind::StructFieldRemovedButUsed, using, "and {} works with what is gone"),
            make(
                Kind::StructChangedInState,
                holding,
                "and processes of {} may hold it in their state",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn defaults(&self) -> Option<Finding> {
        let changed =
            self.new.iter().filter(|(field, default)| self.old.get(*field) != Some(default));
        let fields: Vec<String> = changed.map(|(field, _)| field.clone()).collect();
        let what = format!("has other defaults for {} of its struct", text::list(&fields));
        (!fields.is_empty()).then(|| finding(Kind::StructDefaultChanged, self.name, fields, &what))
    }

    /// What a module does with the struct.
    fn used_by(&self, version: &Version<'_>) -> Used {
        let mut used = Used::default();
        // A literal struct has its name in no table: what is read is every module that could
        // have one, and that is only one that knows structs or was compiled with this.
        if !version.has_atom("__struct__") && !version.has_literals() {
            return used;
        }
        let Some(functions) = version.functions() else { return used };
        for function in functions.iter() {
            self.used_in(version, functions, function, &mut used);
        }
        used
    }

    fn used_in(
        &self,
        version: &Version<'_>,
        functions: &Functions<'_>,
        function: &Function,
        used: &mut Used,
    ) {
        let mut literal =
            functions.maps(function).filter(|map| map.structure.as_deref() == Some(self.name));
        let named = functions.names(function, self.name) && functions.names(function, "__struct__");
        let first = literal.next();
        if first.is_none() && !named {
            return;
        }
        used.at_all = true;
        let whole = |map: &crate::etf::MapForm| {
            let keys: BTreeSet<&str> = map.fields.iter().map(|(key, _)| key.as_str()).collect();
            let complete = self.old.keys().all(|field| keys.contains(field.as_str()));
            let current = self.new.keys().all(|field| keys.contains(field.as_str()));
            // A map to match with may have any of the fields; one that was made has all.
            complete && (!current || keys.len() != self.new.len() + 1)
        };
        if first.into_iter().chain(literal).any(whole) || self.made_in(functions, function) {
            used.literals.insert(text::qualified(version.name(), &function.name, function.arity));
        }
        let keys = functions.keys(function);
        for field in self.old.keys().filter(|field| !self.new.contains_key(*field)) {
            if keys.contains(field.as_str()) {
                used.fields.insert(text::qualified(version.name(), &function.name, function.arity));
            }
        }
    }

    /// Whether the function, which knows the struct, makes it of parts: with all its former fields.
    fn made_in(&self, functions: &Functions<'_>, function: &Function) -> bool {
        let keys = functions.keys(function);
        self.old.keys().all(|field| keys.contains(field.as_str()))
            && !self.new.keys().all(|field| keys.contains(field.as_str()))
    }
}

#[derive(Default)]
struct Used {
    at_all: bool,
    /// Functions that make it as it was.
    literals: BTreeSet<String>,
    /// Functions that work with fields that are gone.
    fields: BTreeSet<String>,
}
