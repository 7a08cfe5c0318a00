//! Rules on the name of one entry. A name is refused for what it is, never repaired.

use crate::refusal::{Refusal, Rule};
use hot_patch_beam::text;

/// Checks the name of an entry as it stands in a header. A folder's name ends with a slash.
pub fn check(raw: &[u8], longest: u32) -> Result<&str, Refusal> {
    let refuse = |rule, detail: &str| Err(Refusal::entry(rule, raw, detail));
    if raw.len() > usize::try_from(longest).unwrap_or(usize::MAX) {
        let detail = format!("has a name of {} bytes; the limit is {longest}", raw.len());
        return Err(Refusal::entry(Rule::NameTooLong, raw, detail));
    }
    if raw.is_empty() {
        return refuse(Rule::NameEmpty, "has no name");
    }
    if raw.contains(&0) {
        return refuse(Rule::NameNul, "has a NUL byte in its name");
    }
    let Ok(name) = str::from_utf8(raw) else {
        return refuse(Rule::NameNotUtf8, "has a name that is not UTF-8");
    };
    if name.chars().any(char::is_control) {
        return refuse(Rule::NameControl, "has a control character in its name");
    }
    if name.chars().any(text::is_invisible) {
        return refuse(Rule::NameInvisible, "has an invisible character in its name");
    }
    if name.contains('\\') {
        return refuse(Rule::NameBackslash, "has a backslash in its name");
    }
    if name.starts_with('/') {
        return refuse(Rule::NameAbsolute, "is an absolute path");
    }
    if has_drive(raw) {
        return refuse(Rule::NameDrive, "begins with a drive letter");
    }
    check_parts(name)?;
    Ok(name)
}

fn has_drive(raw: &[u8]) -> bool {
    matches!(raw, [letter, b':', ..] if letter.is_ascii_alphabetic())
}

fn check_parts(name: &str) -> Result<(), Refusal> {
    let path = name.strip_suffix('/').unwrap_or(name);
    for part in path.split('/') {
        if let Some((rule, detail)) = fault(part) {
            return Err(Refusal::entry(rule, name.as_bytes(), detail));
        }
    }
    Ok(())
}

/// Why no file and no folder may be called `part`: it leads elsewhere, or some system would make
/// another name of it.
fn fault(part: &str) -> Option<(Rule, &'static str)> {
    Some(match part {
        ".." => (Rule::NameParent, "has a part `..`"),
        "." => (Rule::NameDot, "has a part `.`"),
        "" => (Rule::NameEmptyPart, "has an empty part"),
        _ if part.contains(':') => (Rule::NameColon, "has a colon in its name"),
        _ if part.contains(['"', '*', '<', '>', '?', '|']) => {
            (Rule::NameWindows, "has a character in its name that Windows has in none")
        }
        _ if part.ends_with('.') => (Rule::NameTrailingDot, "has a part that ends with a dot"),
        _ if part.ends_with(' ') => (Rule::NameTrailingSpace, "has a part that ends with a space"),
        _ if is_device(part) => (Rule::NameReserved, "has a part that is a device on Windows"),
        _ if has_version(part) => (Rule::NameVersion, "has a part that ends as a version does"),
        _ => return None,
    })
}

/// Whether Windows takes `part` for a device: by what stands before the first dot.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let stem = stem.to_ascii_uppercase();
    let numbered = ["COM", "LPT"].iter().find_map(|port| stem.strip_prefix(port));
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CLOCK$" | "CONIN$" | "CONOUT$")
        || numbered.is_some_and(|number| {
            let mut digits = number.chars();
            let one = digits.next().is_some_and(|c| matches!(c, '0'..='9' | '¹' | '²' | '³'));
            one && digits.next().is_none()
        })
}

/// Whether `part` ends with a version number of VMS, as in `a;1`.
fn has_version(part: &str) -> bool {
    part.rsplit_once(';').is_some_and(|(_, version)| {
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::refusal::Rule;

    #[test]
    fn accepts_ordinary_names() {
        for name in [
            "a",
            "a.beam",
            "lib/my_app-1.0/ebin/Elixir.Ünï.beam",
            "a/",
            "..a/b..c",
            "a b",
            " a",
            "console",
            "com",
            "com10",
            "com1x.txt",
            "lpt",
            "x.con",
            "auxiliary.beam",
            "a;b",
            "a;",
            "a;1.txt",
        ] {
            assert_eq!(check(name.as_bytes(), 1024), Ok(name));
        }
    }

    #[test]
    fn refuses_the_rest_by_name() {
        for (name, rule) in [
            (&b""[..], Rule::NameEmpty),
            (b"/", Rule::NameAbsolute),
            (b"/etc/x", Rule::NameAbsolute),
            (b"C:x", Rule::NameDrive),
            (b"c:/x", Rule::NameDrive),
            (b"..", Rule::NameParent),
            (b"../x", Rule::NameParent),
            (b"a/../x", Rule::NameParent),
            (b"a/..", Rule::NameParent),
            (b"a/../", Rule::NameParent),
            (b".", Rule::NameDot),
            (b"./x", Rule::NameDot),
            (b"a/./x", Rule::NameDot),
            (b"a//x", Rule::NameEmptyPart),
            (b"a//", Rule::NameEmptyPart),
            (b"a.", Rule::NameTrailingDot),
            (b"..a/b..", Rule::NameTrailingDot),
            (b"a./b", Rule::NameTrailingDot),
            (b"...", Rule::NameTrailingDot),
            (b"a ", Rule::NameTrailingSpace),
            (b"a /b", Rule::NameTrailingSpace),
            (b" ", Rule::NameTrailingSpace),
            (b"a. ", Rule::NameTrailingSpace),
            (b"ab:c", Rule::NameColon),
            (b"a/b:$DATA", Rule::NameColon),
            (b"CON", Rule::NameReserved),
            (b"con", Rule::NameReserved),
            (b"lib/Nul.beam", Rule::NameReserved),
            (b"aux.tar.gz", Rule::NameReserved),
            (b"prn/x", Rule::NameReserved),
            (b"COM1", Rule::NameReserved),
            (b"lpt9.txt", Rule::NameReserved),
            ("com².txt".as_bytes(), Rule::NameReserved),
            (b"con .txt", Rule::NameReserved),
            (b"CONIN$", Rule::NameReserved),
            (b"what?", Rule::NameWindows),
            (b"a/*/b", Rule::NameWindows),
            (b"a|b", Rule::NameWindows),
            (b"<a>", Rule::NameWindows),
            (b"a\"b", Rule::NameWindows),
            (b"b;1", Rule::NameVersion),
            (b"a;12/b", Rule::NameVersion),
            (b"a\\x", Rule::NameBackslash),
            (b"..\\x", Rule::NameBackslash),
            (b"a\0.beam", Rule::NameNul),
            (b"a\xff", Rule::NameNotUtf8),
            (b"a\n", Rule::NameControl),
            (b"a\x7f", Rule::NameControl),
            ("a\u{85}".as_bytes(), Rule::NameControl),
            ("a\u{202e}x".as_bytes(), Rule::NameInvisible),
            ("a\u{200b}x".as_bytes(), Rule::NameInvisible),
            ("a\u{1d173}x".as_bytes(), Rule::NameInvisible),
            (&[b'a'; 1025], Rule::NameTooLong),
        ] {
            assert_eq!(check(name, 1024).unwrap_err().rule, rule, "{}", name.escape_ascii());
        }
    }
}
