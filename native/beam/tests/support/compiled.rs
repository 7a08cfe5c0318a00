//! Modules compiled by the compilers of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Compiled files by their modules' names, sorted.
pub type Compiled = Vec<(String, Vec<u8>)>;

/// Whether there is a compiler; if not, the test that asks says so and has nothing to do. Where all
/// tests are to run, `HOT_PATCH_COMPILERS=1` makes its absence a failure.
pub fn has(compiler: &str) -> bool {
    let there = Command::new(compiler).arg("-help").output().is_ok();
    let wanted = std::env::var_os("HOT_PATCH_COMPILERS").is_some();
    assert!(there || !wanted, "there is no {compiler}, and HOT_PATCH_COMPILERS wants it");
    if !there {
        eprintln!("skipped: there is no {compiler}");
    }
    there
}

/// Compiles Erlang modules, each given by its name and the text behind `-module`.
pub fn erlang(modules: &[(&str, &str)]) -> Compiled {
    erlang_builds(&[modules]).remove(0)
}

/// Compiles several builds in one go: most of the time goes for the start of the compiler.
pub fn erlang_builds(builds: &[&[(&str, &str)]]) -> Vec<Compiled> {
    let text = |(name, text): &(&str, &str)| {
        (format!("{name}.erl"), format!("-module({name}).\n{text}\n"))
    };
    let builds: Vec<_> = builds.iter().map(|build| build.iter().map(text).collect()).collect();
    let script = |sources: &[PathBuf]| {
        let compile = |source: &PathBuf| {
            let folder = source.parent().unwrap().display();
            format!(
                "{{ok, _}} = compile:file(\"{}\", [report, {{outdir, \"{folder}\"}}])",
                source.display()
            )
        };
        let script = sources.iter().map(compile).collect::<Vec<_>>().join(", ");
        vec!["-noshell".to_owned(), "-eval".to_owned(), format!("{script}, halt(0).")]
    };
    compile("erl", script, &builds)
}

/// Compiles Elixir modules that are written in one text.
pub fn elixir(text: &str) -> Compiled {
    elixir_builds(&[text]).remove(0)
}

/// Compiles several builds in one go.
pub fn elixir_builds(builds: &[&str]) -> Vec<Compiled> {
    let builds: Vec<_> =
        builds.iter().map(|text| vec![("all.ex".to_owned(), (*text).to_owned())]).collect();
    let script = |sources: &[PathBuf]| {
        let compile = |source: &PathBuf| {
            format!(
                "for {{m, b}} <- Code.compile_file(\"{}\"), do: File.write!(\"{}/#{{m}}.beam\", b)",
                source.display(),
                source.parent().unwrap().display()
            )
        };
        let script = sources.iter().map(compile).collect::<Vec<_>>().join("\n");
        vec![
            "-e".to_owned(),
            format!("Code.put_compiler_option(:ignore_module_conflict, true)\n{script}"),
        ]
    };
    compile("elixir", script, &builds)
}

fn compile(
    program: &str,
    arguments: impl Fn(&[PathBuf]) -> Vec<String>,
    builds: &[Vec<(String, String)>],
) -> Vec<Compiled> {
    let folders: Vec<PathBuf> = builds.iter().map(|_| folder()).collect();
    let mut sources = Vec::new();
    for (folder, files) in folders.iter().zip(builds) {
        for (name, text) in files {
            sources.push(folder.join(name));
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
    let run = Command::new(program).args(arguments(&sources)).output().unwrap();
    let said = [run.stdout, run.stderr].concat();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&said));
    let modules = folders.iter().map(|folder| beams(folder)).collect();
    folders.iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
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
