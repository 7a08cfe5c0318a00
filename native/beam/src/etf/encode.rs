//! Encoding: whole terms, and the pieces that a large reply is made of.

use super::tag;
use super::term::{Big, Term};

/// Encodes a term that was decoded, so that its depth is bounded.
pub fn encode(term: &Term<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    out.version();
    out.term(term);
    out
}

/// Where encoded bytes go.
pub trait Sink {
    /// Takes what comes next.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts the bytes instead of keeping them.
#[derive(Debug, Default)]
pub struct Count(pub usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The pieces of the format. Counts and lengths beyond 32 bits cannot be encoded: what we
/// encode was decoded, or read within limits, and is smaller.
pub trait Write: Sink {
    /// What every encoded term begins with.
    fn version(&mut self) {
        self.put(&[tag::VERSION]);
    }

    /// An atom whose name is at most 255 bytes long.
    fn small_atom(&mut self, name: &str) {
        self.put(&[tag::SMALL_ATOM_UTF8, low_byte(name.len())]);
        self.put(name.as_bytes());
    }

    /// An atom.
    fn atom(&mut self, name: &str) {
        match u8::try_from(name.len()) {
            Ok(_) => self.small_atom(name),
            Err(_) => {
                let [_, _, high, low] = length(name.len());
                self.put(&[tag::ATOM_UTF8, high, low]);
                self.put(name.as_bytes());
            }
        }
    }

    /// The atom `true` or `false`.
    fn boolean(&mut self, value: bool) {
        self.small_atom(if value { "true" } else { "false" });
    }

    /// A binary.
    fn binary(&mut self, bytes: &[u8]) {
        let [a, b, c, d] = length(bytes.len());
        self.put(&[tag::BINARY, a, b, c, d]);
        self.put(bytes);
    }

    /// A binary, or the atom `nil`.
    fn optional_binary(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.binary(bytes),
            None => self.small_atom("nil"),
        }
    }

    /// A number that is not negative.
    fn unsigned(&mut self, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => self.big(false, &value.to_le_bytes()),
        }
    }

    /// A number.
    fn integer(&mut self, value: i64) {
        if let Ok(value) = u8::try_from(value) {
            self.put(&[tag::SMALL_INTEGER, value]);
        } else if let Ok(value) = i32::try_from(value) {
            let [a, b, c, d] = value.to_be_bytes();
            self.put(&[tag::INTEGER, a, b, c, d]);
        } else {
            self.big(value < 0, &value.unsigned_abs().to_le_bytes());
        }
    }

    /// A number of any size: its sign, and the bytes of its amount, the lowest first.
    fn big(&mut self, negative: bool, digits: &[u8]) {
        let mut digits = digits;
        while let [shorter @ .., 0] = digits {
            digits = shorter;
        }
        match u8::try_from(digits.len()) {
            Ok(size) => self.put(&[tag::SMALL_BIG, size, negative.into()]),
            Err(_) => {
                let [a, b, c, d] = length(digits.len());
                self.put(&[tag::LARGE_BIG, a, b, c, d, negative.into()]);
            }
        }
        self.put(digits);
    }

    /// The head of a tuple of at most 255 elements, which must follow.
    fn small_tuple(&mut self, size: u8) {
        self.put(&[tag::SMALL_TUPLE, size]);
    }

    /// The head of a map, whose keys and values must follow.
    fn map(&mut self, size: usize) {
        let [a, b, c, d] = length(size);
        self.put(&[tag::MAP, a, b, c, d]);
    }

    /// A list, each element written by `write`.
    fn list<I>(&mut self, items: I, write: impl Fn(&mut Self, I::Item))
    where
        Self: Sized,
        I: IntoIterator<IntoIter: ExactSizeIterator>,
    {
        let items = items.into_iter();
        if items.len() > 0 {
            let [a, b, c, d] = length(items.len());
            self.put(&[tag::LIST, a, b, c, d]);
            for item in items {
                write(self, item);
            }
        }
        self.put(&[tag::NIL]);
    }

    /// A whole term.
    fn term(&mut self, term: &Term<'_>)
    where
        Self: Sized,
    {
        match term {
            Term::Integer(value) => self.integer(*value),
            Term::Big(Big { negative, digits }) => self.big(*negative, digits),
            Term::Float(value) => {
                self.put(&[tag::NEW_FLOAT]);
                self.put(&value.to_be_bytes());
            }
            Term::Atom(name) => self.atom(name),
            Term::Tuple(elements) => self.tuple(elements),
            Term::List(elements, tail) => self.improper_list(elements, tail.as_deref()),
            Term::Bytes(bytes) => {
                let [_, _, high, low] = length(bytes.len());
                self.put(&[tag::STRING, high, low]);
                self.put(bytes);
            }
            Term::Binary(bytes) => self.binary(bytes),
            Term::Bits(bytes, last) => {
                let [a, b, c, d] = length(bytes.len());
                self.put(&[tag::BIT_BINARY, a, b, c, d, *last]);
                self.put(bytes);
            }
            Term::Map(pairs) => {
                self.map(pairs.len());
                for (key, value) in pairs {
                    self.term(key);
                    self.term(value);
                }
            }
        }
    }

    /// A tuple, whole.
    fn tuple(&mut self, elements: &[Term<'_>])
    where
        Self: Sized,
    {
        match u8::try_from(elements.len()) {
            Ok(size) => self.small_tuple(size),
            Err(_) => {
                let [a, b, c, d] = length(elements.len());
                self.put(&[tag::LARGE_TUPLE, a, b, c, d]);
            }
        }
        for element in elements {
            self.term(element);
        }
    }

    /// A list, whole, which may end in something else than the empty list.
    fn improper_list(&mut self, elements: &[Term<'_>], tail: Option<&Term<'_>>)
    where
        Self: Sized,
    {
        if !elements.is_empty() {
            let [a, b, c, d] = length(elements.len());
            self.put(&[tag::LIST, a, b, c, d]);
            for element in elements {
                self.term(element);
            }
        }
        match tail {
            Some(tail) => self.term(tail),
            None => self.put(&[tag::NIL]),
        }
    }
}

impl<S: Sink> Write for S {}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn low_byte(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}
