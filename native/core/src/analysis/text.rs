//! Names as they are read.

use hot_patch_beam::text::printable;

/// A module's name as Elixir shows it.
pub(super) fn module(name: &str) -> String {
    let name = printable(name.as_bytes());
    name.strip_prefix("Elixir.").map_or_else(|| name.clone(), str::to_owned)
}

/// A function's name.
pub(super) fn function(name: &str, arity: u8) -> String {
    format!("{}/{arity}", printable(name.as_bytes()))
}

/// A function of a module.
pub(super) fn qualified(of: &str, name: &str, arity: u8) -> String {
    format!("{}.{}", module(of), function(name, arity))
}

/// How many are named in a sentence.
const NAMED: usize = 8;

/// A list in a sentence; of a long one the beginning, and how many there are more.
pub(super) fn list<S: AsRef<str>>(items: &[S]) -> String {
    let mut text = String::new();
    for (index, item) in items.iter().take(NAMED).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(item.as_ref());
    }
    match items.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{text} and {more} more"),
        _ => text,
    }
}
