//! Whether a change is better made in two steps, and in which: first the functions that take both the
//! former and the new states, then the processes that hand these to them.
//!
//! On one node all becomes current at one instant, with the processes' states. Between nodes of old and
//! new code it does not: what a process of the new code sends, or has called over there, meets the old.

use std::collections::{BTreeMap, BTreeSet};

use super::describe::ModuleChange;
use super::finding::{Finding, Kind};
use super::system::System;
use super::text;

/// The two steps of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The modules that can come first; none where one step is enough, or where there is no other way.
    pub first: Vec<String>,
    /// Which function makes it so, and whom it calls: `{caller, called}`.
    pub why: Vec<(String, String)>,
    /// Functions that call other nodes.
    pub across: Vec<String>,
    /// Modules that would have to come first, and that call the processes' new code themselves.
    pub tied: Vec<String>,
}

/// Modules by which code calls other nodes, with the functions; none are all of them.
const ACROSS: [(&str, &[&str]); 8] = [
    ("erpc", &[]),
    ("rpc", &[]),
    ("Elixir.Node", &["spawn", "spawn_link", "spawn_monitor"]),
    ("gen_server", &["multi_call", "abcast"]),
    ("Elixir.GenServer", &["multi_call", "abcast"]),
    ("pg", &["get_members"]),
    ("Elixir.Phoenix.PubSub", &["broadcast", "broadcast_from", "direct_broadcast"]),
    ("global", &["send", "whereis_name"]),
];

/// A call from one function of the change to another that is new or other.
struct Edge {
    from: usize,
    to: usize,
    caller: String,
    called: String,
}

/// The two steps. `described` are the changes in the order of the system's.
pub(super) fn steps(system: &System<'_>, described: &[ModuleChange]) -> Steps {
    let changes = &system.changes;
    let edges = edges(system);
    let moves = |index: usize| described.get(index).is_some_and(|one| one.state_moves);
    // All that the processes' new code reaches, by functions that are other than before.
    let starts: Vec<&Edge> =
        edges.iter().filter(|edge| moves(edge.from) && !moves(edge.to)).collect();
    let mut reached: BTreeSet<usize> = BTreeSet::new();
    let mut waiting: Vec<usize> = starts.iter().map(|edge| edge.to).collect();
    while let Some(module) = waiting.pop() {
        if reached.insert(module) {
            let on = edges.iter().filter(|edge| edge.from == module && !moves(edge.to));
            waiting.extend(on.map(|edge| edge.to));
        }
    }
    // One that calls the processes' new code cannot come before it.
    let tied = tied(&edges, &reached, changes.len(), moves);
    let first: BTreeSet<usize> = reached.difference(&tied).copied().collect();
    let name = |index: &usize| changes.get(*index).map(|change| change.name.to_owned());
    let of_first = starts.iter().filter(|edge| first.contains(&edge.to));
    let why: BTreeSet<(String, String)> =
        of_first.map(|edge| (edge.caller.clone(), edge.called.clone())).collect();
    Steps {
        first: first.iter().filter_map(name).collect(),
        why: why.into_iter().collect(),
        across: across(system),
        tied: tied.iter().filter_map(name).collect(),
    }
}

/// Those of `reached` that lead to a module whose processes' states move.
fn tied(
    edges: &[Edge],
    reached: &BTreeSet<usize>,
    count: usize,
    moves: impl Fn(usize) -> bool,
) -> BTreeSet<usize> {
    let mut tied: BTreeSet<usize> = (0..count).filter(|index| moves(*index)).collect();
    loop {
        let more: Vec<usize> = edges
            .iter()
            .filter(|edge| tied.contains(&edge.to) && !tied.contains(&edge.from))
            .map(|edge| edge.from)
            .collect();
        if more.is_empty() {
            return reached.intersection(&tied).copied().collect();
        }
        tied.extend(more);
    }
}

fn edges(system: &System<'_>) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (from, change) in system.changes.iter().enumerate() {
        let Some(new) = &change.new else { continue };
        let Some(functions) = new.functions() else { continue };
        for caller in functions.iter() {
            let external = functions.external(caller);
            if !system.effort.goes_on(external.len()) {
                return edges;
            }
            for call in external.iter().filter(|call| call.module != change.name) {
                let place = system.changes.binary_search_by(|other| other.name.cmp(call.module));
                let Ok(to) = place else { continue };
                let Some(other) = system.changes.get(to) else { continue };
                if other.new.is_some() && other.touches(call.function, call.arity) {
                    edges.push(Edge {
                        from,
                        to,
                        caller: text::qualified(change.name, functions.name(caller), caller.arity),
                        called: text::qualified(other.name, call.function, call.arity),
                    });
                }
            }
        }
    }
    edges
}

/// The functions of the change that call other nodes, as far as that shows.
fn across(system: &System<'_>) -> Vec<String> {
    let known: BTreeMap<&str, &[&str]> = ACROSS.into_iter().collect();
    let is_across = |module: &str, function: &str| {
        known.get(module).is_some_and(|of| of.is_empty() || of.contains(&function))
    };
    let mut found = Vec::new();
    for new in system.changes.iter().filter_map(|change| change.new.as_ref()) {
        if !new.parsed.module.imports().any(|call| is_across(call.module, call.function)) {
            continue;
        }
        let Some(functions) = new.functions() else { continue };
        for caller in functions.iter() {
            let external = functions.external(caller);
            if !system.effort.goes_on(external.len()) {
                return found;
            }
            if external.iter().any(|call| is_across(call.module, call.function)) {
                found.push(text::qualified(new.name(), functions.name(caller), caller.arity));
            }
        }
    }
    found
}

/// Advice where two steps are possible, and nodes may meet that are not at the same one.
pub(super) fn advice(steps: &Steps) -> Option<Finding> {
    let (caller, called) = steps.why.first()?;
    let across = steps.across.first()?;
    let module = steps.first.first()?.clone();
    let kind = Kind::TwoStepsBetweenNodes;
    let message = format!(
        "{across} calls other nodes, and {caller}, whose processes get another state, calls {called}, which \
         changes with it: as long as nodes of the old and of the new code meet, as with a canary, one may be given \
         what it does not know. {}",
        kind.next_step()
    );
    let items = steps.first.clone();
    Some(Finding { kind, module, items, message })
}
