//! Rules on the names of all entries together: they must make one tree, on any disk.

use unicode_normalization::UnicodeNormalization;

use crate::refusal::{Refusal, Rule};
use hot_patch_beam::text;

/// Checks that no two names are the same, alike but for case or for how their characters are
/// composed, or a file and a folder at once.
///
/// Sorted with the slash before all other characters, what is below a path follows right behind
/// it, and names that share a folder stand together. So neighbours are all there is to compare,
/// and the work grows with the bytes of the names, not with their depth.
pub(super) fn check<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut sorted: Vec<(String, &str)> = names.map(|name| (sort_key(name), name)).collect();
    sorted.sort();
    for pair in sorted.windows(2) {
        if let [(_, one), (_, other)] = pair {
            compare(one, other)?;
        }
    }
    Ok(())
}

/// Compares a name with the one sorted behind it.
fn compare(one: &str, other: &str) -> Result<(), Refusal> {
    let refuse = |rule, detail: &str| Err(Refusal::entry(rule, other.as_bytes(), detail));
    let mut ours = path(one).split('/');
    let mut theirs = path(other).split('/');
    loop {
        match (ours.next(), theirs.next()) {
            (Some(our), Some(their)) if our == their => {}
            (Some(our), Some(their)) if fold(our) == fold(their) => {
                let (rule, how) = match our.nfd().eq(their.nfd()) {
                    true => (Rule::UnicodeCollision, "is the same text as"),
                    false => (Rule::CaseCollision, "differs only in case from"),
                };
                return refuse(rule, &format!("{how} \"{}\"", text::printable(one.as_bytes())));
            }
            (None, None) if one == other => return refuse(Rule::DuplicateName, "is there twice"),
            (None, None) => return refuse(Rule::FileIsFolder, "is both a file and a folder"),
            (None, Some(_)) if !one.ends_with('/') => {
                let detail = format!(
                    "is in a folder \"{}\", which is a file",
                    text::printable(one.as_bytes())
                );
                return refuse(Rule::FileIsFolder, &detail);
            }
            _ => return Ok(()),
        }
    }
}

/// The name without the slash that marks a folder.
fn path(name: &str) -> &str {
    name.strip_suffix('/').unwrap_or(name)
}

/// The folded path, with the slash as the lowest of all characters; names have no NUL.
fn sort_key(name: &str) -> String {
    fold(path(name)).replace('/', "\0")
}

/// The name with case taken out, and all that is composed taken apart. Going up and then down
/// also joins characters such as the Kelvin sign, which only have a partner in one direction; doing so
/// twice joins the capital sharp s, which goes down to what goes up to two letters.
fn fold(path: &str) -> String {
    if path.is_ascii() {
        return path.to_ascii_lowercase();
    }
    let once = path.nfd().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    once.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfd().collect()
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::refusal::Rule;

    fn rule(names: &[&str]) -> Option<Rule> {
        check(names.iter().copied()).err().map(|refusal| refusal.rule)
    }

    #[test]
    fn accepts_a_tree() {
        assert_eq!(rule(&["a/", "a/b", "a/c/d", "a/c/", "e"]), None);
    }

    #[test]
    fn refuses_what_is_no_tree() {
        assert_eq!(rule(&["a", "a"]), Some(Rule::DuplicateName));
        assert_eq!(rule(&["a/", "a/"]), Some(Rule::DuplicateName));
        assert_eq!(rule(&["a", "A"]), Some(Rule::CaseCollision));
        assert_eq!(rule(&["x/a", "X/b"]), Some(Rule::CaseCollision));
        assert_eq!(rule(&["é", "É"]), Some(Rule::CaseCollision));
        assert_eq!(rule(&["k", "\u{212a}"]), Some(Rule::CaseCollision));
        for one in ["ss", "ß", "SS"] {
            assert_eq!(rule(&[one, "\u{1e9e}"]), Some(Rule::CaseCollision));
        }
        // Composed and not, in both orders, and with the case changed too.
        assert_eq!(rule(&["é", "e\u{301}"]), Some(Rule::UnicodeCollision));
        assert_eq!(rule(&["x/e\u{301}/a", "x/é/b"]), Some(Rule::UnicodeCollision));
        assert_eq!(rule(&["한", "\u{1112}\u{1161}\u{11ab}"]), Some(Rule::UnicodeCollision));
        assert_eq!(rule(&["Å", "\u{212b}"]), Some(Rule::UnicodeCollision));
        assert_eq!(rule(&["q\u{307}\u{323}", "q\u{323}\u{307}"]), Some(Rule::UnicodeCollision));
        assert_eq!(rule(&["É", "e\u{301}"]), Some(Rule::CaseCollision));
        assert_eq!(rule(&["a", "a/b"]), Some(Rule::FileIsFolder));
        assert_eq!(rule(&["a/b", "a"]), Some(Rule::FileIsFolder));
        assert_eq!(rule(&["a/", "a"]), Some(Rule::FileIsFolder));
        assert_eq!(rule(&["a", "a-b", "a/c"]), Some(Rule::FileIsFolder));
        assert_eq!(rule(&["x/a/b", "y", "x/A/c"]), Some(Rule::CaseCollision));
    }
}
