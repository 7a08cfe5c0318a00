//! The command `verify`: whether archives can be patches at all.

use std::path::Path;

use hot_patch_beam::text::visible;
use hot_patch_core::{Composition, File, Kind, Refusal, json, read_archive};
use serde::Serialize;

use crate::cli::Verify;
use crate::outcome::{Error, Said, Verdict};
use crate::report::{self, RefusalReport};
use crate::source;
use crate::style::{Paint, Tone};
use crate::words::counted;

/// What there is to say about one archive.
#[derive(Debug, Serialize)]
struct Findings {
    archive: String,
    good: bool,
    sha256: Option<String>,
    modules: usize,
    other_files: usize,
    /// The paths of what the Mac has added.
    left_out: Vec<String>,
    refusal: Option<RefusalReport>,
    problems: Vec<Problem>,
}

/// What is wrong with one file.
#[derive(Debug, Serialize)]
struct Problem {
    path: String,
    /// The name of the rule that the file breaks, if it is one of the reader's.
    rule: Option<&'static str>,
    problem: String,
}

pub(crate) fn run(args: &Verify, paint: Paint) -> Result<Said, Error> {
    let options = args.limits.options();
    let mut all = Vec::new();
    for path in &args.files {
        let bytes = source::read(path, &options)?;
        all.push(findings(path, &read_archive(&bytes, &options), args.limits.otp));
    }
    let verdict = Verdict::good_if(all.iter().all(|findings| findings.good));
    let text = if args.json {
        json::pretty(&all)? + "\n"
    } else {
        all.iter().map(|findings| render(findings, paint)).collect()
    };
    Ok(Said { text, verdict })
}

fn findings(path: &Path, outcome: &Result<Composition<'_>, Refusal>, otp: Option<u32>) -> Findings {
    let archive = path.display().to_string();
    match outcome {
        Ok(composition) => {
            let problems: Vec<_> =
                composition.files.iter().filter_map(|file| problem(file, otp)).collect();
            let is_module = |file: &&File<'_>| matches!(file.kind, Kind::Beam(_));
            let modules = composition.files.iter().filter(is_module).count();
            Findings {
                archive,
                good: problems.is_empty(),
                sha256: Some(report::hex(&composition.sha256)),
                modules,
                other_files: composition.files.len() - modules,
                left_out: report::left_out(composition),
                refusal: None,
                problems,
            }
        }
        Err(refusal) => Findings {
            archive,
            good: false,
            sha256: None,
            modules: 0,
            other_files: 0,
            left_out: Vec::new(),
            refusal: Some(RefusalReport::new(refusal)),
            problems: Vec::new(),
        },
    }
}

/// What keeps every node from loading the file.
fn problem(file: &File<'_>, otp: Option<u32>) -> Option<Problem> {
    let (rule, problem) = match &file.kind {
        Kind::Damaged(fault) => (Some(fault.rule), fault.reason.clone()),
        Kind::Beam(module) => {
            let (needs, has) = (module.needs_otp?, otp?);
            if needs <= has {
                return None;
            }
            let problem = format!(
                "It needs OTP {needs}; the system runs OTP {has}. Compile it with that release."
            );
            (None, problem)
        }
        Kind::Other => return None,
    };
    Some(Problem { path: file.path.to_owned(), rule, problem })
}

fn render(findings: &Findings, paint: Paint) -> String {
    let archive = visible(&findings.archive);
    let bad = |text: String| format!("{archive}: {}\n", paint.text(Tone::Bad, &text));
    if let Some(refusal) = &findings.refusal {
        return bad(format!("refused ({})", refusal.rule)) + &format!("  {}\n", refusal.message);
    }
    let left_out = report::render_left_out(&findings.left_out);
    if findings.good {
        let line = format!(
            "{archive}: {}, {}, {}, sha256 {}\n",
            paint.text(Tone::Good, "good"),
            counted(findings.modules, "module"),
            counted(findings.other_files, "other file"),
            findings.sha256.as_deref().unwrap_or_default(),
        );
        return line + &left_out;
    }
    let lines = findings.problems.iter().map(|p| format!("  {}: {}\n", p.path, p.problem));
    bad(format!("{} cannot be loaded", counted(findings.problems.len(), "file")))
        + &lines.collect::<String>()
        + &left_out
}
