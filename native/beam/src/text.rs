//! Names and messages that are safe to show on a terminal or a page.

use std::path::Path;

/// Longest text, in characters, that is repeated in a message.
const LONGEST: usize = 160;

/// Characters that show nothing or turn the direction of the text around them, so that a name
/// reads as what it is not: the `Default_Ignorable_Code_Point`s and bidi controls of Unicode
/// that matter in names, and the line and paragraph separators.
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{00AD}'
            | '\u{034F}'
            | '\u{061C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// `bytes` with everything escaped that a terminal would obey or hide, and cut to a length that
/// fits a message.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut left = LONGEST;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if left == 0 {
                text.push('…');
                return text;
            }
            left -= 1;
            push_escaped(&mut text, c);
        }
        for byte in chunk.invalid() {
            if left == 0 {
                text.push('…');
                return text;
            }
            left -= 1;
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

/// `text` with everything escaped that a terminal would obey or hide, for words that are not from
/// an archive: nothing is cut off, and quotes stay what they are.
pub fn visible(text: &str) -> String {
    let mut shown = String::new();
    text.chars().for_each(|c| push_visible(&mut shown, c));
    shown
}

/// A file's name, which may hold anything but a slash, made visible.
pub fn named(path: &Path) -> String {
    visible(&path.to_string_lossy())
}

fn push_escaped(text: &mut String, c: char) {
    match c {
        '"' | '\\' => text.extend(['\\', c]),
        c => push_visible(text, c),
    }
}

fn push_visible(text: &mut String, c: char) {
    if c.is_control() || is_invisible(c) {
        text.extend(c.escape_unicode());
    } else {
        text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn escapes_what_a_terminal_obeys_or_hides() {
        assert_eq!(printable("a/ü.beam".as_bytes()), "a/ü.beam");
        assert_eq!(printable(b"\x1b[2J\n"), "\\u{1b}[2J\\u{a}");
        assert_eq!(printable("\u{202e}maeb.".as_bytes()), "\\u{202e}maeb.");
        assert_eq!(printable(b"a\xffb"), "a\\xFFb");
        assert_eq!(printable(b"a\\\"b"), "a\\\\\\\"b");
    }

    #[test]
    fn cuts_long_text() {
        let text = printable(&[b'a'; 5000]);
        assert_eq!(text.chars().count(), super::LONGEST + 1);
        assert!(text.ends_with('…'));
    }
}
