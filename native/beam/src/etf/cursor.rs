//! Walks over encoded terms, without building any.

use std::borrow::Cow;

use super::decode::DecodeError;
use super::tag;

/// A place in the bytes of a term.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// The tag of the next term.
    pub(super) fn tag(&mut self) -> Result<u8, DecodeError> {
        Ok(self.number(1)?.to_le_bytes()[0])
    }

    /// The size of the rest of a term that has none inside; `None` if there is no such term.
    pub(super) fn size(&mut self, tag: u8) -> Result<Option<u64>, DecodeError> {
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

    /// The name of an atom whose tag, at `at`, was just read.
    pub(super) fn atom(&mut self, tag: u8, at: usize) -> Result<Cow<'a, str>, DecodeError> {
        let size = self.size(tag)?.unwrap_or_default();
        let name = self.take(size)?;
        if matches!(tag, tag::SMALL_ATOM | tag::ATOM) {
            return Ok(name.iter().copied().map(char::from).collect());
        }
        str::from_utf8(name).map(Cow::from).map_err(|_| DecodeError::Atom(at))
    }

    /// The name of the atom that must come next.
    pub(super) fn next_atom(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let at = self.at;
        let tag = self.tag()?;
        if !tag::ATOMS.contains(&tag) {
            return Err(DecodeError::Atom(at));
        }
        self.atom(tag, at)
    }

    /// A big-endian number of `size` bytes.
    pub(super) fn number(&mut self, size: u64) -> Result<u64, DecodeError> {
        Ok(self.take(size)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// The next `size` bytes.
    pub(super) fn take(&mut self, size: u64) -> Result<&'a [u8], DecodeError> {
        let cut_off = DecodeError::Truncated(self.at);
        let end = usize::try_from(size).ok().and_then(|size| self.at.checked_add(size));
        let end = end.ok_or(cut_off)?;
        let taken = self.bytes.get(self.at..end).ok_or(cut_off)?;
        self.at = end;
        Ok(taken)
    }
}
