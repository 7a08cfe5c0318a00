//! Modules that real compilers have made: all must pass. And the table of instructions against that
//! of the VM at hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hot_patch_beam::LoadLimits;
use hot_patch_beam::verify;

use crate::support::compiled;

/// Where this machine has modules: of OTP, of Elixir, and of packages of several releases, which
/// script/debian-libraries fetches.
const FOLDERS: [&str; 3] = [
    "/usr/lib/erlang",
    "/usr/lib/elixir",
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tmp/debian"),
];

fn modules(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.is_symlink() {
            modules(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "beam") {
            found.push(path);
        }
    }
}

#[test]
fn every_module_of_this_machine_passes() {
    let mut paths = Vec::new();
    FOLDERS.iter().for_each(|folder| modules(Path::new(folder), &mut paths));
    if paths.is_empty() {
        eprintln!("skipped: there are no modules in {FOLDERS:?}");
        return;
    }
    let limits = LoadLimits::default();
    let mut most = verify::judge(&crate::module::module().bytes(), &limits).unwrap();
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            continue;
        }
        let verdict = verify::judge(&bytes, &limits);
        let load = verdict.unwrap_or_else(|damage| panic!("{}: {damage}", path.display()));
        most.atoms = most.atoms.max(load.atoms);
        most.functions = most.functions.max(load.functions);
        most.literal_words = most.literal_words.max(load.literal_words);
        most.added_literals = most.added_literals.max(load.added_literals);
        most.memory = most.memory.max(load.memory);
    }
    // The limits are far from what there is.
    assert!(most.atoms * 10 < limits.module_atoms.into(), "{}", most.atoms);
    assert!(most.functions * 10 < limits.module_functions.into(), "{}", most.functions);
    assert!(most.literal_words * 10 < limits.literal_words, "{}", most.literal_words);
    assert!(most.added_literals * 5 < limits.added_literals.into(), "{}", most.added_literals);
    assert!(most.memory * 5 < limits.module_memory, "{}", most.memory);
}

#[test]
fn the_table_of_instructions_is_that_of_the_vm() {
    if !compiled::has("erl") {
        return;
    }
    let script =
        "[try {Name, Arity} = beam_opcodes:opname(N), io:format(\"~b ~s ~b~n\", [N, Name, Arity])
                   catch error:_ -> ok end || N <- lists:seq(1, 255)], halt().";
    let output = Command::new("erl").args(["-noshell", "-eval", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut count = 0;
    for line in text.lines() {
        let [number, name, arity] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let number: u8 = number.parse().unwrap();
        // A newer VM than is known here has more.
        let Some(known) = verify::instruction(number) else { continue };
        assert_eq!((known, verify::operands(number)), (name, Some(arity.parse().unwrap())));
        count += 1;
    }
    assert!(count >= 180, "{text}");
}
