//! Modules compiled by the compilers of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Compiled files by their modules' names, sorted.
pub type Compiled = Vec<(String, Vec<u8>)>;

/// Whether there is a compiler; if not, the test that asks says so and has nothing to do.
pub fn has(compiler: &str) -> bool {
    let there = Command::new(compiler).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: there is no {compiler}");
    }
    there
}

/// Compiles Erlang modules, each given by its name and the text behind `-module`.
pub fn erlang(modules: &[(&str, &str)]) -> Compiled {
    let files = modules.iter().map(|(name, text)| {
        (format!("{name}.erl"), format!("-module({name}).\n{text}\n"))
    });
    compile("erlc", &[], &files.collect::<Vec<_>>())
}

/// Compiles Elixir modules that are written in one text.
pub fn elixir(text: &str) -> Compiled {
    compile("elixirc", &["--ignore-module-conflict"], &[("all.ex".to_owned(), text.to_owned())])
}

fn compile(compiler: &str, options: &[&str], files: &[(String, String)]) -> Compiled {
    let folder = folder();
    let sources: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
    for (source, (_, text)) in sources.iter().zip(files) {
        std::fs::write(source, text).unwrap();
    }
    let run = Command::new(compiler).arg("-o").arg(&folder).args(options).args(&sources).output();
    let run = run.unwrap();
    let said = [run.stdout, run.stderr].concat();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&said));
    let modules = beams(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    modules
}

/// The modules in a folder.
pub fn beams(folder: &Path) -> Compiled {
    let mut modules: Compiled = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "beam"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    modules.sort();
    modules
}

fn folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder =
        std::env::temp_dir().join(format!("hot_patch_core-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
