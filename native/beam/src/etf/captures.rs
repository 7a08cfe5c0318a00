//! External funs in encoded terms.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr_iter;

use super::cursor::Cursor;
use super::decode::DecodeError;
use super::tag;

/// The module an external fun leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured<'a> {
    /// Its name.
    pub(crate) module: Cow<'a, str>,
    /// Where its encoded atom stands in the term.
    pub(crate) place: Range<usize>,
}

/// The modules to which the external funs (`fun m:f/1`) in an encoded term lead, in their order.
///
/// The term is not decoded, and is read only if there may be such funs in it. Nothing recurses:
/// all that counts is how many terms are still to come.
pub(crate) fn captures(term: &[u8]) -> Result<Vec<Captured<'_>>, DecodeError> {
    match term {
        [tag::VERSION, tag::COMPRESSED, ..] => return Err(DecodeError::Compressed),
        [tag::VERSION, ..] => {}
        _ => return Err(DecodeError::NoTerm),
    }
    let mut found = Vec::new();
    if !may_have_captures(term) {
        return Ok(found);
    }
    let mut cursor = Cursor { bytes: term, at: 1 };
    let mut left: u64 = 1;
    while let Some(less) = left.checked_sub(1) {
        let inside = match step(&mut cursor)? {
            Some(inside) => inside,
            None => {
                let from = cursor.at;
                let module = cursor.next_atom()?;
                found.try_reserve(1).map_err(|_| DecodeError::OutOfMemory)?;
                found.push(Captured { module, place: from..cursor.at });
                // The function and its number of arguments.
                2
            }
        };
        left = less.checked_add(inside).ok_or(DecodeError::Truncated(cursor.at))?;
    }
    match term.len() - cursor.at {
        0 => Ok(found),
        left => Err(DecodeError::TrailingBytes(left)),
    }
}

/// Whether some byte looks like the tag of an external fun, with that of an atom behind it.
fn may_have_captures(term: &[u8]) -> bool {
    memchr_iter(tag::EXPORT, term).any(|at| {
        let next = term.get(at + 1).copied();
        next.is_some_and(|next| tag::ATOMS.contains(&next))
    })
}

/// Steps over the next term, or over its head: gives how many terms are inside. `None` at an
/// external fun.
fn step(cursor: &mut Cursor<'_>) -> Result<Option<u64>, DecodeError> {
    let at = cursor.at;
    let tag = cursor.tag()?;
    let inside = match tag {
        tag::EXPORT => return Ok(None),
        tag::SMALL_TUPLE => cursor.number(1)?,
        tag::LARGE_TUPLE => cursor.number(4)?,
        tag::LIST => cursor.number(4)? + 1,
        tag::MAP => cursor.number(4)? * 2,
        _ => {
            let size = cursor.size(tag)?.ok_or(DecodeError::Tag { tag, at })?;
            cursor.take(size)?;
            0
        }
    };
    Ok(Some(inside))
}

#[cfg(test)]
mod tests {
    use super::captures;

    fn modules(term: &[u8]) -> Vec<String> {
        captures(term).unwrap().into_iter().map(|found| found.module.into_owned()).collect()
    }

    #[test]
    fn finds_the_modules_of_external_funs() {
        // {fun m:q/1, [fun n:f/1 | x], #{1 => fun ü:f/1}, <<"qw">>}
        let term = b"\x83h\x04qw\x01mw\x01qa\x01l\0\0\0\x01qs\x01nw\x01fa\x01w\x01x\
            t\0\0\0\x01a\x01qd\0\x01\xfcw\x01fa\x01m\0\0\0\x02qw";
        assert_eq!(modules(term), ["m", "n", "ü"]);
        assert_eq!(captures(term).unwrap().first().map(|found| found.place.clone()), Some(4..7));
    }

    #[test]
    fn does_not_take_data_for_funs() {
        assert!(modules(b"\x83m\0\0\0\x04qw\x01m").is_empty());
        assert!(modules(b"\x83k\0\x04qw\x01m").is_empty());
        assert!(modules(b"\x83b\0qw\0").is_empty());
    }

    #[test]
    fn damage_is_an_error() {
        let term = b"\x83h\x02qw\x01mw\x01fa\x01qw\x01mw\x01fa\x01";
        for size in 0..term.len() {
            let cut = term.get(..size).unwrap_or_default();
            assert!(captures(cut).is_err() || size <= 4, "{size}");
        }
        assert!(captures(b"\x83qw\x01mw\x01fa\x01j").is_err());
        assert!(captures(b"\x83h\x02\xffqw\x01mw\x01fa\x01").is_err());
        assert!(captures(b"\x83qa\x01qw\x01mw\x01fa\x01").is_err());
        assert!(captures(b"\x83P\0\0\0\x01").is_err());
        assert!(captures(b"\x83t\xff\xff\xff\xffqw").is_err());
    }
}
