//! A report for people.

use crate::report::{FileReport, ModuleReport, Report};

const HEADINGS: [&str; 6] = ["PATH", "KIND", "MODULE", "SIZE", "MD5", "NEEDS OTP"];

/// The report as text: a line about the archive, a table of its files, and what is wrong.
pub(crate) fn render(report: &Report) -> String {
    if let Some(refusal) = &report.refusal {
        let heading = format!("{}: refused ({})\n", report.archive, refusal.rule);
        return heading + &format!("  {}\n", refusal.message);
    }
    let rows: Vec<[String; 6]> = report.files.iter().map(row).collect();
    let widths = widths(&rows);
    let mut text = format!(
        "{}: accepted, {} files, {} bytes, sha256 {}\n",
        report.archive,
        report.files.len(),
        report.size.unwrap_or_default(),
        report.sha256.as_deref().unwrap_or_default(),
    );
    text += &line(&HEADINGS.map(str::to_owned), &widths);
    for row in &rows {
        text += &line(row, &widths);
    }
    for file in &report.files {
        for note in notes(file) {
            text += &format!("  {}: {note}\n", file.path);
        }
    }
    text
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

fn widths(rows: &[[String; 6]]) -> [usize; 6] {
    let mut widths = HEADINGS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

fn line(cells: &[String; 6], widths: &[usize; 6]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line += &format!("  {cell:<width$}");
    }
    line.trim_end().to_owned() + "\n"
}
