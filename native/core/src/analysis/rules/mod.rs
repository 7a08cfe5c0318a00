//! What stands out in a change. Each rule looks at the whole system and adds what it finds.

mod calls;
mod compile_time;
mod entries;
mod protocols;
mod roles;
mod states;
mod structs;
mod supervisors;
mod views;

use super::finding::{Finding, Kind};
use super::graph;
use super::system::System;
use super::text;

/// All that is found.
pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in [
        calls::removed,
        calls::missing,
        calls::unknown,
        cycles,
        roles::all,
        entries::states,
        entries::starts,
        states::all,
        structs::all,
        supervisors::all,
        views::all,
        compile_time::macros,
        compile_time::callbacks,
        protocols::all,
    ] {
        if system.effort.goes_on(1) {
            found.extend(rule(system));
        }
    }
    found
}

/// The modules of the change, each behind those that it calls; those that go come last.
pub(super) fn order(system: &System<'_>) -> Vec<Vec<String>> {
    let (loaded, edges) = calls_within(system);
    let name = |index: usize| loaded.get(index).map(|name| (*name).to_owned());
    let groups = graph::components(&edges);
    let groups = groups.into_iter().map(|group| group.into_iter().filter_map(name).collect());
    let gone = system.changes.iter().filter(|change| change.new.is_none());
    groups.chain(gone.map(|change| vec![change.name.to_owned()])).collect()
}

/// The modules of the change that are there after it, and which of them each calls.
fn calls_within<'s>(system: &System<'s>) -> (Vec<&'s str>, Vec<Vec<usize>>) {
    let loaded: Vec<_> = system.changes.iter().filter_map(|change| change.new.as_ref()).collect();
    let names: Vec<&str> = loaded.iter().map(|version| version.name()).collect();
    let edges = loaded.iter().map(|version| {
        let called = version.called_modules();
        let called = called.into_iter().filter_map(|module| names.binary_search(&module).ok());
        called.filter(|index| names.get(*index) != Some(&version.name())).collect()
    });
    let edges = edges.collect();
    (names, edges)
}

fn cycles(system: &System<'_>) -> Vec<Finding> {
    let (names, edges) = calls_within(system);
    let groups = graph::components(&edges);
    let cycles = groups.into_iter().filter(|group| graph::is_cycle(&edges, group));
    let cycles = cycles.map(|group| {
        let members: Vec<&str> =
            group.iter().filter_map(|index| names.get(*index)).copied().collect();
        let shown: Vec<String> = members.iter().map(|name| text::module(name)).collect();
        Finding {
            kind: Kind::Cycle,
            module: members.first().copied().unwrap_or_default().to_owned(),
            message: format!("{} call each other in a circle.", text::list(&shown)),
            items: members.into_iter().map(str::to_owned).collect(),
        }
    });
    cycles.collect()
}

/// A finding about a module. The message begins with its name and ends with what to do.
fn finding(kind: Kind, module: &str, items: Vec<String>, what: &str) -> Finding {
    let message = format!("{} {what}. {}", text::module(module), kind.next_step());
    Finding { kind, module: module.to_owned(), items, message }
}
