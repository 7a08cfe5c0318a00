//! Modules compiled by the compilers of the machine.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
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

/// Compiles several builds.
pub fn erlang_builds(builds: &[&[(&str, &str)]]) -> Vec<Compiled> {
    let text = |(name, text): &(&str, &str)| {
        (format!("{name}.erl"), format!("-module({name}).\n{text}\n"))
    };
    let builds: Vec<_> = builds.iter().map(|build| build.iter().map(text).collect()).collect();
    compile(&ERLANG, &builds)
}

/// Compiles Elixir modules that are written in one text.
pub fn elixir(text: &str) -> Compiled {
    elixir_builds(&[text]).remove(0)
}

/// Compiles several builds.
pub fn elixir_builds(builds: &[&str]) -> Vec<Compiled> {
    let builds: Vec<_> =
        builds.iter().map(|text| vec![("all.ex".to_owned(), (*text).to_owned())]).collect();
    compile(&ELIXIR, &builds)
}

/// A compiler that stays: nearly all the time that a small module takes goes for its start. It gets the name of a
/// source a line, leaves the modules beside it, and answers with a line: `ok`, or what is wrong.
struct Compiler {
    command: &'static [&'static str],
    /// Those that nobody has in use. They end with this process, which closes their input.
    idle: Mutex<Vec<Running>>,
}

struct Running {
    _child: Child,
    sources: ChildStdin,
    answers: BufReader<ChildStdout>,
}

static ERLANG: Compiler = Compiler {
    command: &[
        "erl",
        "-noshell",
        "-eval",
        r#"(fun Loop() ->
            case io:get_line("") of
                eof -> halt(0);
                Line ->
                    Source = string:trim(Line),
                    case compile:file(Source, [return_errors, {outdir, filename:dirname(Source)}]) of
                        {ok, _} -> io:put_chars("ok\n");
                        Wrong -> io:format("~0tp~n", [Wrong])
                    end,
                    Loop()
            end
        end)()."#,
    ],
    idle: Mutex::new(Vec::new()),
};

static ELIXIR: Compiler = Compiler {
    command: &[
        "elixir",
        "-e",
        r##"Code.put_compiler_option(:ignore_module_conflict, true)
        for line <- IO.stream() do
            source = String.trim(line)
            answer =
                try do
                    modules = Code.compile_file(source)
                    for {module, beam} <- modules do
                        File.write!("#{Path.dirname(source)}/#{module}.beam", beam)
                        # The next one may use the name for another, or expect that there is none.
                        :code.purge(module)
                        :code.delete(module)
                    end
                    "ok"
                rescue
                    error -> inspect(error)
                end
            IO.puts(answer)
        end"##,
    ],
    idle: Mutex::new(Vec::new()),
};

impl Compiler {
    fn compile(&self, source: &Path) {
        let idle = self.idle.lock().unwrap().pop();
        let mut running = idle.unwrap_or_else(|| self.start());
        let mut answer = String::new();
        writeln!(running.sources, "{}", source.display()).unwrap();
        running.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), "ok", "{}", source.display());
        self.idle.lock().unwrap().push(running);
    }

    fn start(&self) -> Running {
        // What it warns of is of no interest.
        let mut child = Command::new(self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sources = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Running { _child: child, sources, answers }
    }
}

fn compile(compiler: &Compiler, builds: &[Vec<(String, String)>]) -> Vec<Compiled> {
    let compiled = |files: &Vec<(String, String)>| {
        let folder = folder();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
            compiler.compile(&folder.join(name));
        }
        let modules = beams(&folder);
        std::fs::remove_dir_all(folder).unwrap();
        modules
    };
    builds.iter().map(compiled).collect()
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
