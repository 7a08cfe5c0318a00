//! Text that is what it looks like.

use hot_patch_beam::text::is_invisible;

/// Whether `text` can be shown in one line.
pub(super) fn is_line(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(hides)
}

/// Whether it shows nothing, or turns what is around it.
pub(super) fn hides(c: char) -> bool {
    c.is_control() || is_invisible(c)
}
