//! External funs in encoded terms.

use memchr::memchr_iter;

use super::DecodeError;
use super::encode::Write;
use super::tag;

/// The encoded term `term` with the modules of external funs (`fun m:f/1`) renamed by `rename`, or
/// `None` if nothing is to be renamed. The first error of `rename` is passed on.
///
/// The term is not decoded, and is read only if there may be such funs in it. Nothing recurses:
/// all that counts is how many terms are still to come.
pub(crate) fn rename_captures<'n, E>(
    term: &[u8],
    rename: impl Fn(&str) -> Result<Option<&'n str>, E>,
) -> Result<Result<Option<Vec<u8>>, E>, DecodeError> {
    match term {
        [tag::VERSION, tag::COMPRESSED, ..] => return Err(DecodeError::Compressed),
        [tag::VERSION, ..] => {}
        _ => return Err(DecodeError::NoTerm),
    }
    if !may_have_captures(term) {
        return Ok(Ok(None));
    }
    let mut scanner = Scanner { bytes: term, at: 1 };
    let mut out = Vec::new();
    let mut copied = 0;
    let mut left: u64 = 1;
    while left > 0 {
        left -= 1;
        let Some(inside) = scanner.step()? else {
            // An external fun: three more terms, the first its module.
            let from = scanner.at;
            let module = scanner.atom()?;
            left += 2;
            let name = match rename(&module) {
                Ok(Some(name)) => name,
                Ok(None) => continue,
                Err(error) => return Ok(Err(error)),
            };
            let before = term.get(copied..from).unwrap_or_default();
            out.try_reserve(before.len() + MOST_ATOM).map_err(|_| DecodeError::OutOfMemory)?;
            out.extend_from_slice(before);
            out.atom(name);
            copied = scanner.at;
            continue;
        };
        left = left.checked_add(inside).ok_or(DecodeError::Truncated(scanner.at))?;
    }
    if scanner.at != term.len() {
        return Err(DecodeError::TrailingBytes(term.len() - scanner.at));
    }
    if copied == 0 {
        return Ok(Ok(None));
    }
    let rest = term.get(copied..).unwrap_or_default();
    out.try_reserve_exact(rest.len()).map_err(|_| DecodeError::OutOfMemory)?;
    out.extend_from_slice(rest);
    Ok(Ok(Some(out)))
}

/// The most bytes of an encoded atom: 255 characters, tag and length.
const MOST_ATOM: usize = 255 * 4 + 3;

/// Whether some byte looks like the tag of an external fun, with that of an atom behind it.
fn may_have_captures(term: &[u8]) -> bool {
    memchr_iter(tag::EXPORT, term).any(|at| {
        let next = term.get(at + 1).copied();
        next.is_some_and(|next| ATOMS.contains(&next))
    })
}

const ATOMS: [u8; 4] = [tag::SMALL_ATOM_UTF8, tag::ATOM_UTF8, tag::SMALL_ATOM, tag::ATOM];

/// Steps through an encoded term.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Steps over the next term, or over its head: gives how many terms are inside. `None` at an
    /// external fun.
    fn step(&mut self) -> Result<Option<u64>, DecodeError> {
        let at = self.at;
        let tag = self.number(1)?;
        let tag = u8::try_from(tag).unwrap_or_default();
        let inside = match tag {
            tag::EXPORT => return Ok(None),
            tag::SMALL_TUPLE => self.number(1)?,
            tag::LARGE_TUPLE => self.number(4)?,
            tag::LIST => self.number(4)? + 1,
            tag::MAP => self.number(4)? * 2,
            _ => {
                let size = self.size(tag)?.ok_or(DecodeError::Tag { tag, at })?;
                self.take(size)?;
                0
            }
        };
        Ok(Some(inside))
    }

    /// The size of the rest of a term that has none inside; `None` if there is no such term.
    fn size(&mut self, tag: u8) -> Result<Option<u64>, DecodeError> {
        Ok(Some(match tag {
            tag::NIL => 0,
            tag::SMALL_INTEGER => 1,
            tag::INTEGER => 4,
            tag::NEW_FLOAT => 8,
            tag::FLOAT => 31,
            tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8 => self.number(1)?,
            tag::ATOM | tag::ATOM_UTF8 | tag::STRING => self.number(2)?,
            tag::BINARY => self.number(4)?,
            tag::BIT_BINARY | tag::LARGE_BIG => self.number(4)? + 1,
            tag::SMALL_BIG => self.number(1)? + 1,
            _ => return Ok(None),
        }))
    }

    fn atom(&mut self) -> Result<String, DecodeError> {
        let at = self.at;
        let tag = u8::try_from(self.number(1)?).unwrap_or_default();
        if !ATOMS.contains(&tag) {
            return Err(DecodeError::Atom(at));
        }
        let size = self.size(tag)?.unwrap_or_default();
        let name = self.take(size)?;
        if matches!(tag, tag::SMALL_ATOM | tag::ATOM) {
            return Ok(name.iter().copied().map(char::from).collect());
        }
        std::str::from_utf8(name).map(str::to_owned).map_err(|_| DecodeError::Atom(at))
    }

    /// A big-endian number of `size` bytes.
    fn number(&mut self, size: u64) -> Result<u64, DecodeError> {
        Ok(self.take(size)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn take(&mut self, size: u64) -> Result<&'a [u8], DecodeError> {
        let cut_off = DecodeError::Truncated(self.at);
        let end = usize::try_from(size).ok().and_then(|size| self.at.checked_add(size));
        let end = end.ok_or(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or(cut_off)?;
        self.at = end;
        Ok(taken)
    }
}
