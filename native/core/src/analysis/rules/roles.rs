//! What a module is, where that alone is worth to be told.

use super::finding;
use crate::analysis::change::Change;
use crate::analysis::finding::{Finding, Kind};
use crate::analysis::role::Role;
use crate::analysis::system::System;

pub(super) fn all(system: &System<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for change in &system.changes {
        let Some(new) = &change.new else { continue };
        if new.is(Role::Nif) {
            let what = "loads a native library";
            found.push(finding(Kind::NifModule, change.name, Vec::new(), what));
        } else if new.is(Role::OnLoad) {
            let what = "runs code when it is loaded";
            found.push(finding(Kind::OnLoad, change.name, Vec::new(), what));
        }
        found.extend(role_changed(change));
        found.extend(mode_changed(change));
        found.extend(application(change));
    }
    found
}

/// Another kind of process under the same name.
fn role_changed(change: &Change<'_>) -> Option<Finding> {
    let (old, new) = change.both()?;
    let kinds = |roles: &[Role]| -> Vec<&str> {
        let kinds = roles.iter().filter(|role| role.has_processes());
        kinds.map(|role| role.name()).collect()
    };
    let (before, after) = (kinds(&old.roles), kinds(&new.roles));
    if before.is_empty() || before == after {
        return None;
    }
    let now = if after.is_empty() { "no process".to_owned() } else { after.join(" and ") };
    let what = format!("was {} and is now {now}", before.join(" and "));
    Some(finding(Kind::RoleChanged, change.name, vec![before.join(" "), now], &what))
}

fn mode_changed(change: &Change<'_>) -> Option<Finding> {
    change.both()?;
    let changed = change.is(Role::Statem) && change.touches("callback_mode", 0);
    let items = vec!["callback_mode/0".to_owned()];
    changed.then(|| {
        finding(Kind::CallbackModeChanged, change.name, items, "has another callback_mode/0")
    })
}

fn application(change: &Change<'_>) -> Option<Finding> {
    change.both()?;
    let changed = change.is(Role::Application) && change.touches("start", 2);
    let items = vec!["start/2".to_owned()];
    let what = "has another start/2, which does not run again before the application is restarted";
    changed.then(|| finding(Kind::ApplicationStartChanged, change.name, items, what))
}
