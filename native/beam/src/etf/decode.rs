//! Decoding within bounds.

use std::borrow::Cow;

use super::tag;
use super::term::{Big, Term};

/// What a term may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How deep terms may be nested. Decoding, encoding and dropping recurse this deep, on a
    /// dirty scheduler's stack of about 320 kB.
    pub depth: u32,
    /// How many terms there may be: each takes much more room in memory than the byte it may
    /// take in the encoding.
    pub terms: u32,
}

/// Bytes that are no term, or none that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the term.
    #[error("the term is cut off at byte {0}")]
    Truncated(usize),
    /// The first byte is not that of an encoded term.
    #[error("it does not begin like an encoded term")]
    NoTerm,
    /// There are bytes after the term.
    #[error("{0} bytes follow the term")]
    TrailingBytes(usize),
    /// A tag that no term has, or one of a term that is not accepted.
    #[error("the tag {tag} at byte {at} is none of a plain term")]
    Tag {
        /// The tag.
        tag: u8,
        /// Where it stands.
        at: usize,
    },
    /// The term is compressed.
    #[error("the term is compressed")]
    Compressed,
    /// An atom that is too long or not UTF-8.
    #[error("the atom at byte {0} is invalid")]
    Atom(usize),
    /// A float that is not a finite number.
    #[error("the float at byte {0} is invalid")]
    Float(usize),
    /// A bitstring whose number of bits is impossible.
    #[error("the bitstring at byte {0} is invalid")]
    Bits(usize),
    /// Too deep.
    #[error("the term is nested deeper than {0}")]
    TooDeep(u32),
    /// Too many terms.
    #[error("the term has more than {0} parts")]
    TooMany(u32),
    /// The system gave no memory.
    #[error("there is no memory for the term")]
    OutOfMemory,
}

/// Decodes one term, which must take up all of `bytes`.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Term<'_>, DecodeError> {
    let mut decoder = Decoder { bytes, at: 0, limits, terms_left: limits.terms };
    match decoder.u8() {
        Ok(tag::VERSION) => {}
        _ => return Err(DecodeError::NoTerm),
    }
    let term = decoder.term(limits.depth)?;
    match bytes.len() - decoder.at {
        0 => Ok(term),
        left => Err(DecodeError::TrailingBytes(left)),
    }
}

/// The longest name of an atom, in characters.
pub(super) const LONGEST_ATOM: usize = 255;

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: Limits,
    terms_left: u32,
}

impl<'a> Decoder<'a> {
    fn term(&mut self, depth: u32) -> Result<Term<'a>, DecodeError> {
        let too_many = DecodeError::TooMany(self.limits.terms);
        self.terms_left = self.terms_left.checked_sub(1).ok_or(too_many)?;
        let at = self.at;
        match self.u8()? {
            tag::SMALL_INTEGER => Ok(Term::Integer(self.u8()?.into())),
            tag::INTEGER => Ok(Term::Integer(i32::from_be_bytes(self.array()?).into())),
            tag::SMALL_BIG => self.u8().and_then(|size| self.big(size.into())),
            tag::LARGE_BIG => self.size().and_then(|size| self.big(size)),
            tag::NEW_FLOAT => finite(f64::from_be_bytes(self.array()?), at),
            tag::FLOAT => self.old_float(at),
            tag::ATOM => self.u16().and_then(|size| self.latin1_atom(size.into(), at)),
            tag::SMALL_ATOM => self.u8().and_then(|size| self.latin1_atom(size.into(), at)),
            tag::ATOM_UTF8 => self.u16().and_then(|size| self.utf8_atom(size.into(), at)),
            tag::SMALL_ATOM_UTF8 => self.u8().and_then(|size| self.utf8_atom(size.into(), at)),
            tag::BINARY => self.size().and_then(|size| self.take(size)).map(Term::Binary),
            tag::BIT_BINARY => self.bits(at),
            tag::STRING => self.u16().and_then(|size| self.take(size.into())).map(Term::Bytes),
            tag::NIL => Ok(Term::List(Vec::new(), None)),
            tag::LIST => self.list(depth),
            tag::SMALL_TUPLE => {
                let size = self.u8()?.into();
                self.terms(size, depth).map(Term::Tuple)
            }
            tag::LARGE_TUPLE => {
                let size = self.size()?;
                self.terms(size, depth).map(Term::Tuple)
            }
            tag::MAP => self.map(depth),
            tag::COMPRESSED => Err(DecodeError::Compressed),
            tag => Err(DecodeError::Tag { tag, at }),
        }
    }

    fn list(&mut self, depth: u32) -> Result<Term<'a>, DecodeError> {
        let size = self.size()?;
        let elements = self.terms(size, depth)?;
        match self.term(self.deeper(depth)?)? {
            // A list of no elements is its tail.
            tail if elements.is_empty() => Ok(tail),
            Term::List(more, None) if more.is_empty() => Ok(Term::List(elements, None)),
            tail => Ok(Term::List(elements, Some(Box::new(tail)))),
        }
    }

    fn map(&mut self, depth: u32) -> Result<Term<'a>, DecodeError> {
        let size = self.size()?;
        let depth = self.deeper(depth)?;
        let mut pairs = self.room(size, 2)?;
        for _ in 0..size {
            pairs.push((self.term(depth)?, self.term(depth)?));
        }
        Ok(Term::Map(pairs))
    }

    fn terms(&mut self, count: usize, depth: u32) -> Result<Vec<Term<'a>>, DecodeError> {
        let depth = self.deeper(depth)?;
        let mut terms = self.room(count, 1)?;
        for _ in 0..count {
            terms.push(self.term(depth)?);
        }
        Ok(terms)
    }

    /// Room for `count` items of `terms_each`, if there can be so many: a term takes a byte.
    fn room<T>(&self, count: usize, terms_each: usize) -> Result<Vec<T>, DecodeError> {
        let terms = count.saturating_mul(terms_each);
        if terms > self.bytes.len() - self.at {
            return Err(DecodeError::Truncated(self.bytes.len()));
        }
        if terms > self.terms_left as usize {
            return Err(DecodeError::TooMany(self.limits.terms));
        }
        let mut room = Vec::new();
        room.try_reserve_exact(count).map_err(|_| DecodeError::OutOfMemory)?;
        Ok(room)
    }

    fn deeper(&self, depth: u32) -> Result<u32, DecodeError> {
        depth.checked_sub(1).ok_or(DecodeError::TooDeep(self.limits.depth))
    }

    fn big(&mut self, size: usize) -> Result<Term<'a>, DecodeError> {
        let negative = self.u8()? != 0;
        let mut digits = self.take(size)?;
        while let [shorter @ .., 0] = digits {
            digits = shorter;
        }
        let big = Big { negative, digits };
        Ok(big.to_i64().map_or(Term::Big(big), Term::Integer))
    }

    /// The float format before minor version 1: 31 bytes of text.
    fn old_float(&mut self, at: usize) -> Result<Term<'a>, DecodeError> {
        let text: [u8; 31] = self.array()?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let float = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        finite(float.ok_or(DecodeError::Float(at))?, at)
    }

    fn bits(&mut self, at: usize) -> Result<Term<'a>, DecodeError> {
        let size = self.size()?;
        let last = self.u8()?;
        let bytes = self.take(size)?;
        match last {
            8 if size > 0 => Ok(Term::Binary(bytes)),
            1..=7 if size > 0 => Ok(Term::Bits(bytes, last)),
            _ => Err(DecodeError::Bits(at)),
        }
    }

    fn utf8_atom(&mut self, size: usize, at: usize) -> Result<Term<'a>, DecodeError> {
        let name = str::from_utf8(self.take(size)?).map_err(|_| DecodeError::Atom(at))?;
        if name.chars().count() > LONGEST_ATOM {
            return Err(DecodeError::Atom(at));
        }
        Ok(Term::Atom(Cow::Borrowed(name)))
    }

    fn latin1_atom(&mut self, size: usize, at: usize) -> Result<Term<'a>, DecodeError> {
        let name = self.take(size)?;
        if name.len() > LONGEST_ATOM {
            return Err(DecodeError::Atom(at));
        }
        Ok(Term::Atom(match str::from_utf8(name) {
            Ok(name) if name.is_ascii() => Cow::Borrowed(name),
            _ => Cow::Owned(name.iter().copied().map(char::from).collect()),
        }))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A count or length of four bytes.
    fn size(&mut self) -> Result<usize, DecodeError> {
        let size = u32::from_be_bytes(self.array()?);
        usize::try_from(size).map_err(|_| DecodeError::OutOfMemory)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N)?;
        bytes.first_chunk().copied().ok_or(DecodeError::Truncated(self.at))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..count).ok_or(DecodeError::Truncated(self.bytes.len()))?;
        self.at += count;
        Ok(taken)
    }
}

fn finite<'a>(float: f64, at: usize) -> Result<Term<'a>, DecodeError> {
    if float.is_finite() { Ok(Term::Float(float)) } else { Err(DecodeError::Float(at)) }
}
