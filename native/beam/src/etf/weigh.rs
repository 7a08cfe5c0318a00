//! What encoded terms take in a VM, found without building them.
//!
//! The VM's own decoder goes by what it reads: a few bytes can ask for a great deal of memory, and
//! atoms stay for good. Nothing here recurses.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::decode::{DecodeError, LONGEST_ATOM};
use super::tag;

/// `MAX_ARITYVAL`: the most elements of a tuple.
const LARGEST_TUPLE: u64 = (1 << 24) - 1;

/// Maps with more pairs are trees.
const FLAT_MAP: u64 = 32;

/// Binaries of more bytes are kept beside the heap.
const HEAP_BINARY: u64 = 64;

/// A term that a module cannot have among its literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TermFault {
    Malformed(DecodeError),
    /// Nested deeper than the limit.
    TooDeep,
    /// A map has a key twice.
    KeyTwice,
}

impl From<DecodeError> for TermFault {
    fn from(error: DecodeError) -> Self {
        TermFault::Malformed(error)
    }
}

/// What is told of a term as it is read.
pub(crate) trait Weighed {
    /// An atom.
    fn atom(&mut self, name: &str);
    /// A function that an external fun leads to.
    fn function(&mut self, module: &str, name: &str, arity: u8);
}

/// Reads terms one after the other, and adds up what they take.
#[derive(Debug)]
pub(crate) struct Scale {
    depth: usize,
    /// Words of the heap, as the release that needs most of them has it.
    pub(crate) words: u64,
    /// Bytes of binaries beside the heap.
    pub(crate) binaries: u64,
    open: Vec<Open>,
    /// Where the keys stand of the maps that are open.
    keys: Vec<(usize, usize)>,
}

/// A term that is not read to its end.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// How many terms inside are to come.
    left: u64,
    /// Of a map, how many keys there were before its own.
    keys: Option<usize>,
}

impl Scale {
    /// For terms that are nested up to so deep.
    pub(crate) fn new(depth: u32) -> Self {
        let depth = usize::try_from(depth).unwrap_or(usize::MAX);
        Scale { depth, words: 0, binaries: 0, open: Vec::new(), keys: Vec::new() }
    }

    /// Reads one term, which must take up all of `bytes`.
    pub(crate) fn weigh(&mut self, bytes: &[u8], told: &mut impl Weighed) -> Result<(), TermFault> {
        let mut cursor = Cursor { bytes, at: 0 };
        if cursor.tag()? != tag::VERSION {
            return Err(DecodeError::NoTerm.into());
        }
        self.open.clear();
        self.keys.clear();
        self.open.push(Open { left: 1, keys: None });
        while let Some(open) = self.open.last_mut() {
            let Some(less) = open.left.checked_sub(1) else {
                self.close(bytes)?;
                continue;
            };
            open.left = less;
            // Pairs are read from the front: a key when an odd number of terms is left.
            let is_key = open.keys.is_some() && less % 2 == 1;
            let from = cursor.at;
            let inside = self.next(&mut cursor, told)?;
            if is_key && inside == 0 {
                self.keys.push((from, cursor.at));
            }
        }
        match bytes.len() - cursor.at {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes(left).into()),
        }
    }

    /// Ends a term whose parts are all read. Of keys that are terms with others inside, the loader
    /// finds those that are twice, and refuses.
    fn close(&mut self, bytes: &[u8]) -> Result<(), TermFault> {
        let Some(Open { keys: Some(first), .. }) = self.open.pop() else { return Ok(()) };
        let text = |(from, to): &(usize, usize)| bytes.get(*from..*to).unwrap_or_default();
        let keys = self.keys.get_mut(first..).unwrap_or_default();
        if !keys.is_sorted_by(|one, other| text(one) < text(other)) {
            keys.sort_unstable_by(|one, other| text(one).cmp(text(other)));
            if keys.windows(2).any(|two| matches!(two, [one, other] if text(one) == text(other))) {
                return Err(TermFault::KeyTwice);
            }
        }
        self.keys.truncate(first);
        Ok(())
    }

    /// Reads the next term, or its head; gives how many terms are inside.
    fn next(&mut self, cursor: &mut Cursor<'_>, told: &mut impl Weighed) -> Result<u64, TermFault> {
        let at = cursor.at;
        let tag = cursor.tag()?;
        let mut words = 0;
        let mut inside = 0;
        let mut keys = None;
        match tag {
            tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 => {
                told.atom(&short(cursor.atom(tag, at)?, at)?);
            }
            tag::SMALL_TUPLE | tag::LARGE_TUPLE => {
                inside = cursor.number(if tag == tag::SMALL_TUPLE { 1 } else { 4 })?;
                if inside > LARGEST_TUPLE {
                    return Err(DecodeError::Truncated(at).into());
                }
                words = 1 + inside;
            }
            tag::LIST => {
                inside = cursor.number(4)? + 1;
                words = 2 * inside;
            }
            tag::MAP => {
                let pairs = cursor.number(4)?;
                inside = 2 * pairs;
                words = if pairs > FLAT_MAP { 6 * pairs } else { 4 + 2 * pairs };
                keys = Some(self.keys.len());
            }
            tag::EXPORT => {
                export(cursor, told)?;
                words = 2;
            }
            _ => words = self.leaf(cursor, tag, at)?,
        }
        self.words = self.words.saturating_add(words);
        if inside > 0 {
            // A term takes a byte at least.
            if inside > (cursor.bytes.len() - cursor.at) as u64 {
                return Err(DecodeError::Truncated(at).into());
            }
            if self.open.len() > self.depth {
                return Err(TermFault::TooDeep);
            }
            self.open.push(Open { left: inside, keys });
        }
        Ok(inside)
    }

    /// The words of a term that has none inside.
    fn leaf(&mut self, cursor: &mut Cursor<'_>, tag: u8, at: usize) -> Result<u64, DecodeError> {
        let size = cursor.size(tag)?.ok_or(DecodeError::Tag { tag, at })?;
        let content = cursor.take(size)?;
        let words = size / 8 + 3;
        match tag {
            tag::NIL | tag::SMALL_INTEGER | tag::INTEGER => Ok(0),
            tag::STRING => Ok(2 * size),
            tag::NEW_FLOAT | tag::FLOAT => match is_finite(tag, content) {
                true => Ok(2),
                false => Err(DecodeError::Float(at)),
            },
            tag::BINARY | tag::BIT_BINARY if size > HEAP_BINARY => {
                // Its own head is beside the heap too.
                self.binaries = self.binaries.saturating_add(size + 64);
                bits(tag, content, at).map(|()| 12)
            }
            tag::BINARY | tag::BIT_BINARY => bits(tag, content, at).map(|()| words + 5),
            _ => Ok(words),
        }
    }
}

/// A name that was read at `at`, if it is not too long.
fn short(name: Cow<'_, str>, at: usize) -> Result<Cow<'_, str>, DecodeError> {
    // Only a name of more bytes can have more characters.
    if name.len() > LONGEST_ATOM && name.chars().count() > LONGEST_ATOM {
        return Err(DecodeError::Atom(at));
    }
    Ok(name)
}

/// An external fun: two atoms and a number of arguments.
fn export(cursor: &mut Cursor<'_>, told: &mut impl Weighed) -> Result<(), DecodeError> {
    let mut name = || {
        let at = cursor.at;
        short(cursor.next_atom()?, at)
    };
    let (module, function) = (name()?, name()?);
    let at = cursor.at;
    let tag = cursor.tag()?;
    if tag != tag::SMALL_INTEGER {
        return Err(DecodeError::Tag { tag, at });
    }
    let [arity, ..] = cursor.number(1)?.to_le_bytes();
    told.atom(&module);
    told.atom(&function);
    told.function(&module, &function, arity);
    Ok(())
}

fn is_finite(tag: u8, content: &[u8]) -> bool {
    if tag == tag::FLOAT {
        // The VM reads it by itself and refuses what is no number.
        return content.first().is_some_and(|first| *first != 0);
    }
    content.first_chunk().is_some_and(|bytes| f64::from_be_bytes(*bytes).is_finite())
}

/// A bitstring says before its bytes how many bits of the last one count.
fn bits(tag: u8, content: &[u8], at: usize) -> Result<(), DecodeError> {
    match (tag, content) {
        (tag::BINARY, _) | (_, [1..=8, _, ..]) => Ok(()),
        _ => Err(DecodeError::Bits(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Scale, TermFault, Weighed};
    use crate::etf::DecodeError;

    #[derive(Default)]
    struct Told(Vec<String>);

    impl Weighed for Told {
        fn atom(&mut self, name: &str) {
            self.0.push(name.to_owned());
        }

        fn function(&mut self, module: &str, name: &str, arity: u8) {
            self.0.push(format!("{module}:{name}/{arity}"));
        }
    }

    fn weigh(term: &[u8]) -> Result<(u64, u64, Vec<String>), TermFault> {
        let mut told = Told::default();
        let mut scale = Scale::new(8);
        scale.weigh(&[b"\x83", term].concat(), &mut told)?;
        Ok((scale.words, scale.binaries, told.0))
    }

    #[test]
    fn adds_up_what_terms_take() {
        assert_eq!(weigh(b"a\x07"), Ok((0, 0, vec![])));
        assert_eq!(weigh(b"h\x02w\x02ok\x6b\0\x03abc"), Ok((3 + 6, 0, vec!["ok".to_owned()])));
        assert_eq!(weigh(b"l\0\0\0\x01a\x01j").unwrap().0, 4);
        assert_eq!(weigh(b"t\0\0\0\x01w\x01aa\x01").unwrap().0, 6);
        let large = [&b"m\0\0\0\x41"[..], &[0; 65]].concat();
        assert_eq!(weigh(&large), Ok((12, 65 + 64, vec![])));
        let told = weigh(b"qd\0\x01ms\x01fa\x02").unwrap().2;
        assert_eq!(told, ["m", "f", "m:f/2"]);
    }

    #[test]
    fn refuses_what_is_no_literal() {
        let fault = |term: &[u8]| weigh(term).unwrap_err();
        // A pid, a local fun, a compressed term, a reference.
        for term in [&b"gw\x01nbbb"[..], b"p\0\0\0\0", b"P\0\0\0\0", b"Z\0\0"] {
            assert!(matches!(fault(term), TermFault::Malformed(DecodeError::Tag { .. })));
        }
        assert_eq!(fault(b"t\0\0\0\x02a\x01ja\x01j"), TermFault::KeyTwice);
        assert_eq!(fault(b"t\0\0\0\x02w\x01bjw\x01bj"), TermFault::KeyTwice);
        assert_eq!(fault(&[&b"h\x01".repeat(9)[..], b"j"].concat()), TermFault::TooDeep);
        assert!(weigh(&[&b"h\x01".repeat(8)[..], b"j"].concat()).is_ok());
        for term in [
            &b"l\xff\xff\xff\xffa\x01"[..],
            b"t\xff\xff\xff\xff",
            b"i\xff\xff\xff\xff",
            b"jj",
            b"h\x02j",
            b"F\x7f\xf0\0\0\0\0\0\0",
            b"M\0\0\0\x01\x09a",
            b"M\0\0\0\0\x01",
            b"qa\x01w\x01fa\x02",
        ] {
            assert!(matches!(fault(term), TermFault::Malformed(_)), "{term:?}");
        }
        assert!(weigh(&[&b"v\x01\x00"[..], &[b'a'; 256]].concat()).is_err());
    }

    #[test]
    fn keys_of_maps_in_keys_are_kept_apart() {
        // #{#{a => 1} => x, b => #{a => 1}}
        let inner = b"t\0\0\0\x01w\x01aa\x01";
        let map = [&b"t\0\0\0\x02"[..], inner, b"w\x01xw\x01b", inner].concat();
        assert!(weigh(&map).is_ok());
    }
}
