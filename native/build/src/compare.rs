//! Finds what differs, file by file, on all processors.

use std::collections::{BTreeMap, BTreeSet};

use crate::changes::Change;
use crate::error::Error;
use crate::moves;
use crate::names::some;
use crate::pair::{Pair, Verdict, path};
use crate::progress::Progress;
use crate::request::Request;
use crate::side::{Key, Side};
use crate::system::is_system;
use hot_patch_beam::ChunkId;
use hot_patch_core::archive;
use hot_patch_core::manifest::Upgrade;
use hot_patch_core::workers;

/// What was found.
#[derive(Debug)]
pub(crate) struct Compared {
    /// By their paths.
    pub(crate) changes: Vec<Change>,
    pub(crate) notes: Vec<String>,
    /// How many files were looked at.
    pub(crate) count: usize,
    /// What more is to be said of an upgrade.
    pub(crate) upgrade: Option<Upgrade>,
    /// Whether that comes by restarts only.
    pub(crate) by_restart: bool,
}

/// Compares two builds.
pub(crate) fn both(
    from: &Side,
    to: &Side,
    request: &Request,
    significant: &[ChunkId],
    progress: &Progress,
) -> Result<Compared, Error> {
    let mut notes = applications(from, to);
    let mut pairs = pairs(from, to, request, &mut notes);
    moves::carry_out(&mut pairs, from, to, request, &mut notes);
    if let Some(modules) = &request.modules {
        choose(&mut pairs, modules)?;
    }
    pairs.retain(|pair| !pair.key.module().is_some_and(|name| request.is_applied(name)));
    progress.begin(pairs.len());
    let take_all = request.all_differences || request.modules.is_some();
    let compare = |_: &mut (), pair: &Pair<'_>| {
        progress.unless_stopped()?;
        let verdict = pair.compare(significant, take_all);
        progress.step();
        verdict
    };
    let workers = workers::processors();
    let ((), verdicts) = workers::in_order(workers, &pairs, || (), || (), compare)?;
    let mut found = Compared {
        changes: Vec::new(),
        notes,
        count: pairs.len(),
        upgrade: None,
        by_restart: false,
    };
    let mut inessential = Vec::new();
    for (verdict, pair) in verdicts.into_iter().zip(&pairs) {
        match verdict {
            Verdict::Same => {}
            Verdict::Inessential => inessential.push(pair.path.as_str()),
            Verdict::Changed(change) => found.changes.push(*change),
            Verdict::Settings => found.notes.push(format!(
                "{} differs: a patch does not carry settings as files, give what is to change as \
                 --config",
                pair.path
            )),
        }
    }
    if !inessential.is_empty() {
        found.notes.push(format!(
            "left out, because only line numbers, debug information or documentation differ: {}",
            some(&inessential)
        ));
    }
    found.changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Takes the modules asked for from one build, with nothing to compare them with.
pub(crate) fn picked(
    to: &Side,
    request: &Request,
    significant: &[ChunkId],
    progress: &Progress,
) -> Result<Compared, Error> {
    let modules = request.modules.as_deref().ok_or(Error::NothingAsked)?;
    let mut notes = Vec::new();
    let mut pairs = pairs(to, to, request, &mut notes);
    choose(&mut pairs, modules)?;
    progress.begin(pairs.len());
    let mut changes = Vec::new();
    for pair in &pairs {
        progress.unless_stopped()?;
        let after = pair.after.map(|content| pair.read(content, significant)).transpose()?;
        let path = pair.path.clone();
        let (picked, unchanged) = (true, false);
        changes.push(Change { path, moved_from: None, before: None, after, picked, unchanged });
        progress.step();
    }
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    notes.push(
        "nothing says which code these modules take the place of (--from), so no node can check \
         that it runs what they were made against"
            .to_owned(),
    );
    Ok(Compared { count: changes.len(), changes, notes, upgrade: None, by_restart: false })
}

/// What the two builds have in applications, in words.
fn applications(from: &Side, to: &Side) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, application) in &from.applications {
        let (old, new) = (application.version.as_deref(), to.version(name));
        match (is_system(name), to.applications.contains_key(name), old == new) {
            (_, true, true) | (true, false, _) => {}
            (true, true, false) => notes.push(format!(
                "{name} changes from {} to {}: system libraries are never patched, they change \
                 with an upgrade",
                old.unwrap_or("?"),
                new.unwrap_or("?")
            )),
            (false, true, false) => notes.push(format!(
                "{name} changes from {} to {}: its modules are patched in place, and nodes go on \
                 calling it {0}",
                old.unwrap_or("?"),
                new.unwrap_or("?")
            )),
            (false, false, _) => {
                notes.push(format!("{name} is not in the repaired build: it is left as it is"));
            }
        }
    }
    for name in to.applications.keys() {
        if !is_system(name) && !from.applications.contains_key(name) {
            notes.push(format!("{name} is a new application: a patch cannot add one, left out"));
        }
    }
    notes
}

/// The files to compare, in the order of their keys.
fn pairs<'s>(
    from: &'s Side,
    to: &'s Side,
    request: &Request,
    notes: &mut Vec<String>,
) -> Vec<Pair<'s>> {
    let has_consolidated = |side: &Side| side.consolidated.is_some();
    let named = from.is_release() || request.release.is_some();
    let umbrella = from.consolidated.as_deref() == Some("consolidated") && !named;
    let protocols = has_consolidated(from) && has_consolidated(to) && !umbrella;
    if has_consolidated(from) != has_consolidated(to) {
        notes.push(
            "only one of the builds has consolidated protocols: those are left out".to_owned(),
        );
    }
    if umbrella {
        notes.push(
            "the consolidated protocols of an umbrella lie in no application's folder, where a \
             patch could put them: those are left out (a release has them elsewhere)"
                .to_owned(),
        );
    }
    let keys: BTreeSet<&Key> = from.files.keys().chain(to.files.keys()).collect();
    let mut pairs = Vec::new();
    let mut of_mac = Vec::new();
    for key in keys {
        let wanted = match key {
            Key::Of { application, below } => {
                is_common(application, from, to)
                    && is_carried(below)
                    && !(protocols && is_consolidated(below, to))
            }
            Key::Consolidated(_) => protocols,
            Key::Settings(_) => request.from.is_some() && from.is_release() && to.is_release(),
            Key::OfRelease(_) => false,
        };
        if let (true, Some(path)) = (wanted, path(key, from, request)) {
            if archive::is_of_mac(&path) {
                of_mac.push(path);
                continue;
            }
            let (before, after) = (from.files.get(key), to.files.get(key));
            pairs.push(Pair { key, path, moved_from: None, before, after });
        }
    }
    if !of_mac.is_empty() {
        let names: Vec<&str> = of_mac.iter().map(String::as_str).collect();
        notes.push(format!("{}: only what the Mac adds to a folder, left out", some(&names)));
    }
    pairs
}

fn is_common(application: &str, from: &Side, to: &Side) -> bool {
    !is_system(application)
        && from.applications.contains_key(application)
        && to.applications.contains_key(application)
}

/// Of `ebin` only modules: the resource file of an application changes with its version.
fn is_carried(below: &str) -> bool {
    below.starts_with("priv/")
        || below.strip_prefix("ebin/").is_some_and(|file| file.ends_with(".beam"))
}

/// Such a module is never loaded from its application's folder.
fn is_consolidated(below: &str, to: &Side) -> bool {
    below
        .strip_prefix("ebin/")
        .is_some_and(|file| to.files.contains_key(&Key::Consolidated(file.to_owned())))
}

/// Keeps only the modules asked for, and says which are not there.
fn choose(pairs: &mut Vec<Pair<'_>>, modules: &[String]) -> Result<(), Error> {
    let mut missing: BTreeMap<String, &String> =
        modules.iter().map(|name| (format!("{name}.beam"), name)).collect();
    // As people write the modules of Elixir.
    let elixir = |file: &str| file.strip_prefix("Elixir.").map(str::to_owned);
    pairs.retain(|pair| {
        let file = pair.path.rsplit('/').next().unwrap_or_default();
        let named = missing.keys().any(|name| name == file)
            || elixir(file).is_some_and(|short| missing.contains_key(&short));
        named && pair.after.is_some()
    });
    for pair in pairs.iter() {
        let file = pair.path.rsplit('/').next().unwrap_or_default();
        missing.remove(file);
        if let Some(short) = elixir(file) {
            missing.remove(&short);
        }
    }
    match missing.into_values().next() {
        None => Ok(()),
        Some(name) => Err(Error::UnknownModule(name.clone())),
    }
}
