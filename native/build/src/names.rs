//! Names in a sentence.

/// More of them are only counted.
const MOST_NAMED: usize = 5;

/// Some of many, and how many there are more.
pub(crate) fn some(names: &[&str]) -> String {
    let shown = names.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(MOST_NAMED) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}
