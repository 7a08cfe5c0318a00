//! The manifest of what was built.

use crate::advice::Advice;
use crate::changes::{Build, Change};
use crate::request::Request;
use crate::side::Side;
use hot_patch_beam::Module;
use hot_patch_beam::digest;
use hot_patch_core::manifest::{
    BuiltWith, Change as Kind, FileEntry, Finding, Hex, Manifest, ModuleEntry, RemovedEntry,
    RemovedModule, SCHEMA, Upgrade, Version,
};

pub(crate) fn manifest(
    request: &Request,
    from: Option<&Side>,
    to: &Side,
    changes: &[Change],
    advice: Advice,
    accepted_findings: Vec<Finding>,
    upgrade: Option<Upgrade>,
) -> Manifest {
    let release = from.and_then(|side| side.facts.release.clone());
    Manifest {
        schema: SCHEMA,
        name: request.name.clone(),
        release: release.or_else(|| request.release.clone()),
        upgrade,
        built_with: built_with(request, to),
        author: request.author.clone(),
        text: request.text.clone(),
        cumulative: request.cumulative,
        transition: request.transition,
        on_load: request.on_load,
        files: changes.iter().filter_map(file).collect(),
        removed: changes.iter().filter_map(removed).collect(),
        load_order: advice.load_order,
        instructions: advice.instructions,
        config: request.config.clone(),
        accepted_findings,
        follows: request.follows.clone(),
    }
}

/// What the build says of itself comes first.
fn built_with(request: &Request, to: &Side) -> BuiltWith {
    let elixir = to.version("elixir").map(str::to_owned);
    BuiltWith {
        otp: to.facts.otp.clone().or_else(|| request.otp.clone()),
        elixir: elixir.or_else(|| request.elixir.clone()),
        hot_patch: Some(env!("CARGO_PKG_VERSION").to_owned()),
    }
}

fn file(change: &Change) -> Option<FileEntry> {
    let after = change.after.as_ref()?;
    Some(FileEntry {
        path: change.path.clone(),
        sha256: Hex(digest::sha256(&after.bytes)),
        module: after.module.as_deref().map(|module| module_entry(change, module)),
    })
}

fn module_entry(change: &Change, module: &Module) -> ModuleEntry {
    let replaces = change.before.as_ref().and_then(version);
    let kind = match &replaces {
        Some(_) => Kind::Replace,
        None if change.picked => Kind::Any,
        None => Kind::Add,
    };
    let name = module.name().to_owned();
    ModuleEntry { name, change: kind, replaces, brings: Version::of(module) }
}

/// What goes from its place: altogether, or to another.
fn removed(change: &Change) -> Option<RemovedEntry> {
    let path = match (&change.moved_from, &change.after) {
        (Some(place), _) => place,
        (None, None) => &change.path,
        (None, Some(_)) => return None,
    };
    let before = change.before.as_ref()?;
    let module = before.module.as_deref().map(|module| RemovedModule {
        name: module.name().to_owned(),
        replaces: Version::of(module),
    });
    Some(RemovedEntry { path: path.clone(), module })
}

fn version(build: &Build) -> Option<Version> {
    build.module.as_deref().map(Version::of)
}
