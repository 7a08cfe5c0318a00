//! Instructions must be such, and agree with the files of the patch.

use super::line::is_line;
use super::{Change, MANIFEST, Manifest};
use crate::appup::{Instruction, Update, read};
use crate::refusal::{Refusal, Rule};
use hot_patch_beam::text::printable;

/// The most instructions for one way.
const MOST: usize = 1_000;

/// The most bytes for one way: their atoms are made when the patch is accepted.
const MOST_BYTES: usize = 256 * 1024;

/// The longest name, in bytes.
const LONGEST_NAME: usize = 255;

/// Without them neither the node nor HotPatch itself goes on.
const NEEDED: [&str; 4] = ["kernel", "stdlib", "elixir", "hot_patch"];

/// What a patch does with a module on one way.
struct Way<'m> {
    name: &'static str,
    brought: Vec<&'m str>,
    added: Vec<&'m str>,
    gone: Vec<&'m str>,
}

/// Checks the instructions of both ways.
pub(super) fn check(manifest: &Manifest) -> Result<(), Refusal> {
    let [up, down] = ways(manifest);
    way(&up, &manifest.instructions.up)?;
    way(&down, &manifest.instructions.down)
}

fn ways(manifest: &Manifest) -> [Way<'_>; 2] {
    let modules = || manifest.files.iter().filter_map(|file| file.module.as_ref());
    let named = |changes: &[Change]| {
        modules().filter(|one| changes.contains(&one.change)).map(|one| one.name.as_str()).collect()
    };
    let removed = manifest.removed.iter().filter_map(|file| file.module.as_ref());
    // What only moves is there before and after.
    let moves = |name: &str| modules().any(|one| one.name == name);
    let removed: Vec<&str> =
        removed.map(|module| module.name.as_str()).filter(|name| !moves(name)).collect();
    let added: Vec<&str> = named(&[Change::Add, Change::Any]);
    let replaced: Vec<&str> = named(&[Change::Replace, Change::Any]);
    let brought = modules().map(|one| one.name.as_str()).collect();
    [
        Way { name: "up", brought, added: added.clone(), gone: removed.clone() },
        Way { name: "down", brought: replaced, added: removed, gone: added },
    ]
}

fn way(way: &Way<'_>, texts: &[String]) -> Result<(), Refusal> {
    if texts.len() > MOST {
        return refuse(way, &format!("more than {MOST} instructions"));
    }
    if texts.iter().map(String::len).sum::<usize>() > MOST_BYTES {
        return refuse(way, &format!("more than {MOST_BYTES} bytes"));
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let instructions = read(&texts).or_else(|error| refuse(way, &error))?;
    instructions.iter().try_for_each(|one| match wrong(way, one) {
        None => Ok(()),
        Some(why) => refuse(way, &format!("{}: {why}", printable(one.to_string().as_bytes()))),
    })
}

fn wrong(way: &Way<'_>, instruction: &Instruction) -> Option<String> {
    let module = |modules: &[&str], name: &str, what| {
        let shown = printable(name.as_bytes());
        (!modules.contains(&name)).then(|| format!("{shown} is no module that the patch {what}"))
    };
    if let Some(name) = names(instruction).into_iter().find(|name| !is_line(name, LONGEST_NAME)) {
        return Some(format!("{} is no name", printable(name.as_bytes())));
    }
    let brought = |name| module(&way.brought, name, "has there");
    match instruction {
        Instruction::Update(Update::Supervisor(name) | Update::Children(name)) => brought(name),
        Instruction::Update(Update::Processes(update)) => brought(&update.module),
        Instruction::LoadModule(load) => brought(&load.module),
        Instruction::AddModule { module: name, .. } => module(&way.added, name, "adds there"),
        Instruction::DeleteModule { module: name, .. } => module(&way.gone, name, "removes there"),
        Instruction::RestartApplication(name) | Instruction::RemoveApplication(name)
            if NEEDED.contains(&name.as_str()) =>
        {
            Some("the node cannot go on without it".to_owned())
        }
        Instruction::RestartNewEmulator | Instruction::RestartEmulator => {
            Some("HotPatch never restarts a node: do that yourself, after the patch".to_owned())
        }
        _ => None,
    }
}

/// Whose it is, and what it calls.
fn names(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::AddApplication { application: name, .. }
        | Instruction::RemoveApplication(name)
        | Instruction::RestartApplication(name) => vec![name],
        Instruction::Apply { module, function, .. } => vec![module, function],
        // Those of modules are names of files.
        _ => Vec::new(),
    }
}

fn refuse<T>(way: &Way<'_>, why: &str) -> Result<T, Refusal> {
    let detail = format!("has among its instructions {}: {why}", way.name);
    Err(Refusal::entry(Rule::ManifestInstruction, MANIFEST.as_bytes(), detail))
}
