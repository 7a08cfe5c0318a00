//! Modules that one build has in one application and the other build in another.

use std::collections::BTreeMap;

use crate::names::some;
use crate::pair::{Pair, path};
use crate::request::Request;
use crate::side::{Key, Side};
use crate::system::is_system;

/// A module with its place in the build that runs, and in the repaired one.
struct Move<'s> {
    module: &'s str,
    from: &'s Key,
    to: &'s Key,
}

/// Puts one pair in the place of the two that would take a module away and bring another of the
/// same name. A module that moves to an application that the patch cannot bring stays where it is,
/// with its new code.
pub(crate) fn carry_out<'s>(
    pairs: &mut Vec<Pair<'s>>,
    from: &'s Side,
    to: &'s Side,
    request: &Request,
    notes: &mut Vec<String>,
) {
    let mut told = BTreeMap::<(&str, &str, bool), Vec<&str>>::new();
    for found in moves(from, to) {
        // A file that no pair has is one that no patch would carry, as a protocol that is also
        // there consolidated.
        let carried = pairs.iter().any(|pair| pair.key == found.to);
        let Some(here) = path(found.from, from, request) else { continue };
        let (key, path, moved_from) = match path(found.to, from, request) {
            Some(there) if carried => (found.to, there, Some(here)),
            None if !is_consolidated(found.to, to) => (found.from, here, None),
            _ => continue,
        };
        if let (Some(old), Some(new)) = (application(found.from), application(found.to)) {
            told.entry((old, new, moved_from.is_some())).or_default().push(found.module);
        }
        let (before, after) = (from.files.get(found.from), to.files.get(found.to));
        pairs.retain(|pair| pair.key != found.from && pair.key != found.to);
        pairs.push(Pair { key, path, moved_from, before, after });
    }
    notes.extend(told.into_iter().map(|((old, new, moves), modules)| {
        let modules = some(&modules);
        if moves {
            format!("from {old} to {new} moves {modules}")
        } else {
            format!(
                "from {old} to {new}, a new application that a patch cannot add, moves {modules}: \
                 in the patch it stays in {old}, with its new code"
            )
        }
    }));
}

/// Of a module that a build has twice nobody can say which of them runs.
fn moves<'s>(from: &'s Side, to: &'s Side) -> Vec<Move<'s>> {
    let (old, new) = (places(from), places(to));
    let both = old.into_iter().filter_map(|(module, old)| Some((module, old, new.get(module)?)));
    both.filter_map(|(module, old, new)| match (old.as_slice(), new.as_slice()) {
        ([from], [to]) if from != to => Some(Move { module, from, to }),
        _ => None,
    })
    .collect()
}

/// The modules of applications, each with its files.
fn places(side: &Side) -> BTreeMap<&str, Vec<&Key>> {
    let mut places = BTreeMap::<&str, Vec<&Key>>::new();
    for key in side.files.keys() {
        if let (Some(module), Some(name)) = (key.module(), application(key))
            && !is_system(name)
        {
            places.entry(module).or_default().push(key);
        }
    }
    places
}

fn application(key: &Key) -> Option<&str> {
    match key {
        Key::Of { application, .. } => Some(application),
        Key::Consolidated(_) | Key::Settings(_) | Key::OfRelease(_) => None,
    }
}

fn is_consolidated(key: &Key, side: &Side) -> bool {
    key.module()
        .is_some_and(|module| side.files.contains_key(&Key::Consolidated(format!("{module}.beam"))))
}
