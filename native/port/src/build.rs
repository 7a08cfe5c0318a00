//! The command `build`.

use std::fs::{self, File, Permissions};
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hot_patch_beam::text::{named, visible};
use hot_patch_build::{self as core, Built, Progress, Request};
use hot_patch_core::manifest::{ConfigChange, Finding, OnLoad, Release, Transition};
use hot_patch_core::{Options, read_archive};

use crate::inspect;
use crate::report::Report;
use crate::style::Paint;
use crate::words::complain;

const HELP: &str = "\
A BUILD is a release or its tar (mix release, rebar3, reltool), _build/ENV, or a folder of
applications (APP/ebin/*.beam). Files are named as in --from, because that is what runs.

What differs is taken: modules whose code or vsn differs, new and removed ones, consolidated
protocols, files below priv. OTP's, Elixir's and HotPatch's own applications never are.

Of two versions of one release an upgrade is made: whole folders of the applications that change,
and what belongs to the new release itself. It goes as the release's relup says, else as the
applications' own appups do, else as the analysis finds. --in-place makes a patch of the version that runs.

What the change means is shown with it. A patch that looks dangerous is not built, unless what
was found is accepted by name.

A patch is signed by `mix hot_patch.build --sign KEY` or `mix hot_patch.sign`. Two patches in place
of one, for nodes of the old and the new code that call each other, are made by
`mix hot_patch.build --split`.

Exit codes:
  0  the patch is built (or would be, with --dry-run)
  1  there is nothing to patch, it looks dangerous, or a build is not fit for it; the message
     says what to do
  2  wrong usage

Examples:
  hot_patch build --from releases/1.0.0.tar.gz --to _build/prod/rel/exchange --out fix.zip
  hot_patch build --from old/ --to new/ --out fix.zip --dry-run
  hot_patch build --to _build/prod --modules MyApp.Billing,my_gen --for exchange-1.0.0 \\
    --out fix.zip";

/// Build a patch from two builds of a system
///
/// Compares them module by module and writes what differs as an archive with a manifest. The
/// same inputs give the same bytes.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct Build {
    /// The build that runs
    #[arg(long, value_name = "BUILD", required_unless_present = "modules")]
    from: Option<PathBuf>,

    /// The repaired build
    #[arg(long, value_name = "BUILD")]
    to: PathBuf,

    /// Where to write the archive
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Show what the patch would hold, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Only these modules, whether they differ or not
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    modules: Option<Vec<String>>,

    /// Take also modules that differ only in line numbers, debug information or documentation
    #[arg(long)]
    all_differences: bool,

    /// A patch of the version that runs, also where --to is another version of its release;
    /// without it that gives an upgrade
    #[arg(long)]
    in_place: bool,

    /// An application that an upgrade restarts, where its authors say nothing of how it changes; may
    /// be given several times
    #[arg(long, value_name = "APP")]
    restart: Vec<String>,

    /// The release that it is for, where --from does not say it
    #[arg(long = "for", value_name = "NAME-VERSION", value_parser = release)]
    release: Option<Release>,

    /// The patch's name; default: that of the file
    #[arg(long)]
    name: Option<String>,

    /// Who makes it
    #[arg(long)]
    author: Option<String>,

    /// What it is for
    #[arg(long)]
    text: Option<String>,

    /// It takes the place of all patches before it
    #[arg(long)]
    cumulative: bool,

    /// How processes come to the new code
    #[arg(long, value_enum, default_value = "suspend")]
    transition: TransitionArg,

    /// What becomes of modules that run code when they are loaded
    #[arg(long, value_enum, default_value = "restart")]
    on_load: OnLoadArg,

    /// A change of an application's environment; may be given several times
    #[arg(long, value_name = "APP.KEY=TERM", value_parser = config)]
    config: Vec<ConfigChange>,

    /// Is of the mix task
    #[arg(long, hide = true)]
    split: bool,

    /// Build it although this was found; may be given several times
    #[arg(long, value_name = "NAME[:MODULE]", value_parser = finding)]
    accept: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransitionArg {
    Suspend,
    None,
    Compatible,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnLoadArg {
    Restart,
    Load,
}

/// `exchange-1.0.0`: the name has no dash, the version may.
fn release(text: &str) -> Result<Release, String> {
    match text.split_once('-') {
        Some((name, version)) if !name.is_empty() && !version.is_empty() => {
            Ok(Release { name: name.to_owned(), version: version.to_owned() })
        }
        _ => Err("expected NAME-VERSION, as in exchange-1.0.0".to_owned()),
    }
}

/// `my_app.limit=100`, or with a module of Elixir for the key: `my_app.MyApp.Endpoint=[{port,80}]`.
fn config(text: &str) -> Result<ConfigChange, String> {
    let parts = text.split_once('=').and_then(|(name, value)| Some((name.split_once('.')?, value)));
    match parts {
        Some(((application, key), value)) if !value.is_empty() => Ok(ConfigChange {
            application: application.to_owned(),
            key: key_name(key),
            value: value.to_owned(),
        }),
        _ => Err("expected APP.KEY=TERM, as in my_app.limit=100".to_owned()),
    }
}

/// The atom that a key names: a module's begins with a capital letter, and quotes make it anything.
fn key_name(key: &str) -> String {
    match key.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(quoted) => quoted.to_owned(),
        None if key.starts_with("Elixir.") => key.to_owned(),
        None if key.starts_with(|first: char| first.is_ascii_uppercase()) => {
            format!("Elixir.{key}")
        }
        None => key.to_owned(),
    }
}

/// `on_load` or `on_load:MyApp.Foo`.
fn finding(text: &str) -> Result<Finding, String> {
    let (rule, module) = match text.split_once(':') {
        Some((rule, module)) => (rule, Some(module.to_owned())),
        None => (text, None),
    };
    if rule.is_empty() || module.as_ref().is_some_and(String::is_empty) {
        return Err("expected NAME or NAME:MODULE, as in on_load:MyApp.Foo".to_owned());
    }
    Ok(Finding { rule: rule.to_owned(), module, reason: None })
}

impl Build {
    fn request(&self) -> Request {
        let name = self.name.clone().unwrap_or_else(|| name(&self.out));
        Request {
            modules: self.modules.clone(),
            all_differences: self.all_differences,
            in_place: self.in_place,
            restart: self.restart.clone(),
            release: self.release.clone(),
            author: self.author.clone(),
            text: self.text.clone(),
            cumulative: self.cumulative,
            transition: match self.transition {
                TransitionArg::Suspend => Transition::Suspend,
                TransitionArg::None => Transition::None,
                TransitionArg::Compatible => Transition::Compatible,
            },
            on_load: match self.on_load {
                OnLoadArg::Restart => OnLoad::Restart,
                OnLoadArg::Load => OnLoad::Load,
            },
            config: self.config.clone(),
            accepted_findings: self.accept.clone(),
            ..Request::new(self.from.clone(), self.to.clone(), name)
        }
    }
}

/// The file's name, as a patch may be called.
fn name(out: &Path) -> String {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    stem.trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
        .chars()
        .map(plain)
        .take(64)
        .collect()
}

/// Builds the patch and says what is in it.
pub(crate) fn run(args: &Build, paint: Paint) -> ExitCode {
    if args.split {
        complain(
            "--split: two patches are made by `mix hot_patch.build --split`, with the same options",
        );
        return ExitCode::from(2);
    }
    let options = Options::default();
    let progress = Progress::new();
    let request = args.request();
    let chunks = &options.significant_chunks;
    let built = match watched(&progress, || core::build(&request, chunks, &progress)) {
        Ok(built) => built,
        Err(error) => return fail(&error.to_string()),
    };
    match finish(args, &built, &options, paint) {
        Ok(text) => {
            // Whoever does not want to hear it has the archive.
            let _ = io::stdout().write_all(text.as_bytes());
            // A trial has shown all of it; what it would come to is told all the same.
            built.refusal().map_or(ExitCode::SUCCESS, |refusal| fail(&refusal))
        }
        Err(text) => fail(&text),
    }
}

/// Reads what was built as a running system would, and only then writes it.
fn finish(args: &Build, built: &Built, options: &Options, paint: Paint) -> Result<String, String> {
    if let (Some(refusal), false) = (built.refusal(), args.dry_run) {
        return Err(refusal);
    }
    let outcome = read_archive(&built.zip, options);
    if let Err(refusal) = &outcome {
        return Err(format!("no system would accept the patch. {refusal}"));
    }
    let mut text = inspect::render(&Report::new(&args.out, &outcome), paint);
    text.push_str(&about(built));
    if args.dry_run {
        text.push_str("nothing was written (--dry-run)\n");
    } else {
        write(&args.out, &built.zip)
            .map_err(|error| format!("cannot write {}: {error}", named(&args.out)))?;
    }
    Ok(text)
}

/// Writes all of it or nothing: a full disk, or the end of the machine, leaves what was there
/// before.
fn write(out: &Path, zip: &[u8]) -> io::Result<()> {
    // What is no plain file, as /dev/stdout, is not to be replaced.
    if out.exists() && !out.is_file() {
        return fs::write(out, zip);
    }
    // Through a link to where it leads.
    let out = &fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
    let folder = out.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    // What is replaced keeps its rights; the system takes from those of a new file what it always
    // takes.
    let rights = fs::metadata(out).map(|facts| facts.permissions());
    let new = Permissions::from_mode(0o666);
    let mut file =
        tempfile::Builder::new().prefix(".hot_patch-").permissions(new).tempfile_in(folder)?;
    if let Ok(rights) = rights {
        file.as_file().set_permissions(rights)?;
    }
    file.write_all(zip)?;
    file.as_file().sync_all()?;
    file.persist(out)?;
    File::open(folder)?.sync_all()
}

/// What is to be known of it beside its files, a line each.
fn about(built: &Built) -> String {
    let removed = built.manifest.removed.iter().map(|file| format!("removed: {}\n", file.path));
    let found = built.analysis.findings.iter().map(|finding| {
        let (severity, kind) = (finding.severity().name(), finding.kind.name());
        format!("{severity} {kind}: {}\n", visible(&finding.message))
    });
    let accepted = built.manifest.accepted_findings.iter().map(|finding| {
        format!("accepted: {} {}\n", finding.rule, finding.module.as_deref().unwrap_or_default())
    });
    let notes = built.notes.iter().map(|note| format!("note: {}\n", visible(note)));
    removed.chain(found).chain(accepted).chain(notes).collect()
}

fn fail(text: &str) -> ExitCode {
    complain(text);
    ExitCode::FAILURE
}

/// Does `work`, and shows how far it has come once it takes longer than a second.
fn watched<T>(progress: &Progress, work: impl FnOnce() -> T) -> T {
    const FIRST: Duration = Duration::from_secs(1);
    const THEN: Duration = Duration::from_millis(250);
    if !io::stderr().is_terminal() {
        return work();
    }
    thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        let show = move || {
            let mut wait = FIRST;
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
                let (compared, total) = progress.get();
                let _ = write!(io::stderr(), "\r{compared} of {total} files compared ");
                wait = THEN;
            }
            if wait == THEN {
                let _ = writeln!(io::stderr());
            }
        };
        // Without a thread to be had nothing is shown; the work is done all the same.
        let _ = thread::Builder::new().spawn_scoped(scope, show);
        let result = work();
        drop(done);
        result
    })
}
