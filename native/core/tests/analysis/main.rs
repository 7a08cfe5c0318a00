//! The analysis of changes of really compiled modules.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod functions;
mod graph;
mod hostile;
mod instructions;
mod rules;
mod states;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod views;

use hot_patch_core::analysis::{self, Analysis, Finding, Kind, ModuleChange, Request};
use support::compiled::Compiled;

/// Compares two builds: what is in both and the same is outside the change.
fn compare(before: &Compiled, after: &Compiled) -> Analysis {
    let changed: Vec<&[u8]> =
        after.iter().filter(|one| !before.contains(one)).map(|(_, file)| file.as_slice()).collect();
    let gone = |name: &&String| after.iter().all(|(other, _)| other != *name);
    let deleted: Vec<&str> =
        before.iter().map(|(name, _)| name).filter(gone).map(String::as_str).collect();
    let before: Vec<&[u8]> = before.iter().map(|(_, file)| file.as_slice()).collect();
    let request =
        Request { before: &before, after: &changed, deleted: &deleted, ..Request::default() };
    analysis::analyse(&request)
}

/// The names of all findings with their modules. Left out are that a module is the same (compilers
/// write where the source stood into some that are) and that it calls OTP's, which are not given.
fn found(analysis: &Analysis) -> Vec<(&'static str, &str)> {
    let boring = |kind| matches!(kind, Kind::ModuleUnchanged | Kind::UnknownModuleCalled);
    let findings = analysis.findings.iter().filter(|one| !boring(one.kind));
    findings.map(|one| (one.kind.name(), one.module.as_str())).collect()
}

fn finding<'a>(analysis: &'a Analysis, name: &str) -> &'a Finding {
    let found = analysis.findings.iter().find(|one| one.kind.name() == name);
    found.unwrap_or_else(|| panic!("{name} is not among {:?}", analysis.findings))
}

fn module<'a>(analysis: &'a Analysis, name: &str) -> &'a ModuleChange {
    analysis.modules.iter().find(|one| one.module == name).expect("the module is in the change")
}
