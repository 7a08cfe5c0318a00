//! The command `inspect`: what archives hold.

use hot_patch_beam::text::visible;
use hot_patch_core::{json, read_archive};

use crate::cli::Inspect;
use crate::outcome::{Error, Said, Verdict};
use crate::report::{self, FileReport, ModuleReport, Report};
use crate::source;
use crate::style::{Paint, Tone};
use crate::table;
use crate::words::counted;

const HEADINGS: [&str; 6] = ["PATH", "KIND", "MODULE", "SIZE", "MD5", "NEEDS OTP"];

pub(crate) fn run(args: &Inspect, paint: Paint) -> Result<Said, Error> {
    let options = args.limits.options();
    let mut reports = Vec::new();
    for path in &args.files {
        let bytes = source::read(path, &options)?;
        reports.push(Report::new(path, &read_archive(&bytes, &options)));
    }
    let verdict = Verdict::good_if(reports.iter().all(Report::is_accepted));
    let text = if args.json {
        json::pretty(&reports)? + "\n"
    } else {
        reports.iter().map(|report| render(report, paint)).collect::<Vec<_>>().join("\n")
    };
    Ok(Said { text, verdict })
}

/// A line about the archive, a table of its files, and what is wrong.
pub(crate) fn render(report: &Report, paint: Paint) -> String {
    if let Some(refusal) = &report.refusal {
        let refused = paint.text(Tone::Bad, &format!("refused ({})", refusal.rule));
        return format!("{}: {refused}\n  {}\n", visible(&report.archive), refusal.message);
    }
    let rows: Vec<_> = report.files.iter().map(|file| (tone(file), row(file))).collect();
    let mut text = format!(
        "{}: {}, {}, {} bytes, sha256 {}\n",
        visible(&report.archive),
        paint.text(Tone::Good, "accepted"),
        counted(report.files.len(), "file"),
        report.size.unwrap_or_default(),
        report.sha256.as_deref().unwrap_or_default(),
    );
    text += &table::render(HEADINGS, &rows, paint);
    for file in &report.files {
        for note in notes(file) {
            text += &format!("  {}: {note}\n", file.path);
        }
    }
    text + &report::render_left_out(&report.left_out)
}

fn tone(file: &FileReport) -> Tone {
    if file.reason.is_some() { Tone::Bad } else { Tone::Plain }
}

fn row(file: &FileReport) -> [String; 6] {
    let of_module = |field: fn(&ModuleReport) -> String| {
        file.module.as_ref().map_or_else(|| "-".to_owned(), field)
    };
    [
        file.path.clone(),
        file.kind.to_owned(),
        of_module(|module| module.module.clone()),
        file.size.to_string(),
        of_module(|module| module.md5.clone()),
        of_module(|module| module.needs_otp.map_or_else(|| "?".to_owned(), |n| n.to_string())),
    ]
}

fn notes(file: &FileReport) -> Vec<&str> {
    let mut notes: Vec<&str> = file.reason.as_deref().into_iter().collect();
    if let Some(module) = &file.module {
        if module.on_load {
            notes.push("It runs code when it is loaded (on_load).");
        }
        if module.load_nif {
            notes.push("It loads a NIF library.");
        }
    }
    notes
}
