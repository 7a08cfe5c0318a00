//! Words: around numbers, and to whoever called.

use std::io::{self, Write as _};

use hot_patch_beam::text::visible;

/// Says on standard error what went wrong. If nobody can be told, the exit code still says it.
pub(crate) fn complain(text: &str) {
    let lines: Vec<_> = text.lines().map(visible).collect();
    let _ = writeln!(io::stderr(), "hot_patch: {}", lines.join("\n"));
}

/// `1 file`, `2 files`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{s}")
}
