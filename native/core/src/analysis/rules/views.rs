//! Assigns that the new code of views, components and channels uses, and sessions of before do not have.

use std::collections::BTreeSet;

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::Role;
use crate::analysis::state;
use crate::analysis::system::System;
use crate::analysis::text;
use crate::analysis::version::Version;

/// Asked by templates for each assign that they show, by its name, whether it has changed.
const ASKED: (&str, &[&str]) =
    ("Elixir.Phoenix.LiveView.Engine", &["changed_assign?", "nested_changed_assign?"]);
const NAME: u64 = 1;

/// By which assigns are made.
const MAKERS: [&str; 3] =
    ["Elixir.Phoenix.Component", "Elixir.Phoenix.LiveView", "Elixir.Phoenix.Socket"];

/// Where they stand in a socket.
const ASSIGNS: &str = "assigns";

/// Are called for sessions that begin, and not for those of before.
const BEGIN: [&str; 2] = ["mount", "join"];

/// Modules of the library name atoms of its own, which are no assigns.
const LIBRARY: &str = "Elixir.Phoenix.";

/// Which LiveView makes by itself.
const OF_THE_LIBRARY: [&str; 7] =
    ["flash", "id", "inner_block", "inner_content", "live_action", "myself", "socket"];

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    system.changes.iter().filter_map(|change| one(change, system)).collect()
}

fn one<'s>(change: &Change<'s>, system: &System<'s>) -> Option<Finding> {
    let (old, new) = change.both()?;
    let component = new.is(Role::LiveComponent);
    let session = new.is(Role::LiveView) || new.is(Role::Channel);
    let converted = session && state::conversion(change, system).is_called();
    if converted || !(component || session) {
        return None;
    }
    let before = used(old);
    let mut missing = used(new);
    missing.retain(|name| {
        !before.contains(name)
            && !OF_THE_LIBRARY.contains(name)
            && !mentions(old, name)
            && !made_elsewhere(name, change, system)
    });
    let items: Vec<String> = missing.into_iter().map(str::to_owned).collect();
    let names: Vec<String> = items.iter().map(|name| format!("@{name}")).collect();
    let whose = if component { "components" } else { "sessions" };
    let what = format!(
        "uses {}, which the version before does not name: {whose} that are there do not have it",
        text::list(&names)
    );
    (!items.is_empty()).then(|| finding(Kind::AssignNotThere, change.name, items, &what))
}

/// What templates show, and what functions read from `socket.assigns` that they have not put there themselves.
fn used<'v>(version: &'v Version<'_>) -> BTreeSet<&'v str> {
    let Some(all) = version.functions() else {
        return BTreeSet::new();
    };
    let shown = all.iter().flat_map(|one| all.given(one, ASKED, NAME));
    let read = all.iter().filter(|one| !BEGIN.contains(&all.name(one))).flat_map(|one| {
        let mut read = all.read_below(one, ASSIGNS);
        for maker in MAKERS {
            for made in all.given(one, (maker, &["assign", "assign_new"]), NAME) {
                read.remove(made);
            }
        }
        read
    });
    shown.chain(read).collect()
}

fn mentions(version: &Version<'_>, atom: &str) -> bool {
    version.functions().is_none_or(|all| all.iter().any(|one| all.mentions(one, atom)))
}

/// Whether another module may have made an assign of this name: a hook that is called when a view
/// mounts, or the view that gives it to its components.
fn made_elsewhere<'s>(name: &str, change: &Change<'s>, system: &System<'s>) -> bool {
    let makes = |version: &Version<'s>| {
        !version.name().starts_with(LIBRARY)
            && MAKERS.iter().any(|maker| version.called().contains(maker))
            && mentions(version, name)
    };
    let others = system.changes.iter().filter(|other| other.name != change.name);
    let after = others.filter_map(|other| other.new.as_ref());
    system.outside.values().chain(after).any(makes)
}
