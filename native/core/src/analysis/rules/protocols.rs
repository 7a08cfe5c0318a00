//! Protocols and their implementations: a consolidated protocol knows only those implementations
//! that were there when it was consolidated.

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::Role;
use crate::analysis::system::System;
use crate::analysis::text;
use crate::analysis::version::Version;
use hot_patch_beam::etf::{self, Limits, Term};

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let changes = system.changes.iter();
    changes
        .filter_map(|change| protocol(change).or_else(|| implementation(change, system)))
        .collect()
}

fn protocol(change: &Change<'_>) -> Option<Finding> {
    let (old, new) = change.both()?;
    let lost = is_consolidated(old) && new.is(Role::Protocol) && !is_consolidated(new);
    let what = "is consolidated as it runs, and is not in the change";
    lost.then(|| finding(Kind::ProtocolNotConsolidated, change.name, Vec::new(), what))
}

fn implementation(change: &Change<'_>, system: &System<'_>) -> Option<Finding> {
    let (kind, version) = match (&change.old, &change.new) {
        (None, Some(new)) => (Kind::ImplementationNotConsolidated, new),
        (Some(old), None) => (Kind::ImplementationDeleted, old),
        _ => return None,
    };
    let protocol = protocol_of(version)?;
    if !is_consolidated(system.outside.get(protocol.as_str())?) {
        return None;
    }
    let protocol = text::module(&protocol);
    let what = match kind {
        Kind::ImplementationDeleted => {
            format!("goes, and {protocol}, which leads to it, stays as it is")
        }
        _ => format!("is new, and {protocol}, consolidated without it, never leads to it"),
    };
    Some(finding(kind, change.name, vec![protocol], &what))
}

/// The protocol of an implementation, by its attribute `__impl__`.
fn protocol_of(version: &Version<'_>) -> Option<String> {
    const LIMITS: Limits = Limits { depth: 128, terms: 200_000 };
    if !version.is(Role::Implementation) {
        return None;
    }
    let attributes = etf::decode(&version.parsed.module.attributes, LIMITS).ok()?;
    let implementation = property(&attributes, "__impl__")?;
    property(implementation, "protocol")?.as_atom().map(str::to_owned)
}

fn property<'t>(list: &'t Term<'_>, key: &str) -> Option<&'t Term<'t>> {
    let mut properties = list.as_list()?.iter().filter_map(Term::as_property);
    properties.find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// One that is not names the atom `not_consolidated` where it is asked for its implementations.
fn is_consolidated(version: &Version<'_>) -> bool {
    version.is(Role::Protocol)
        && version
            .function("__protocol__", 1)
            .is_some_and(|(functions, function)| !functions.names(function, "not_consolidated"))
}
