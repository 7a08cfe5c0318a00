//! An Erlang term, as far as we read them.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use crate::text::printable;

/// An Erlang term. Text and bytes are borrowed from where it was decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Term<'a> {
    /// An integer of 64 bits.
    Integer(i64),
    /// A larger integer.
    Big(Big<'a>),
    /// A float; never infinite or NaN.
    Float(f64),
    /// An atom, as its name.
    Atom(Cow<'a, str>),
    /// A tuple.
    Tuple(Vec<Term<'a>>),
    /// A list, and its tail if that is not the empty list.
    List(Vec<Term<'a>>, Option<Box<Term<'a>>>),
    /// A list of integers from 0 to 255.
    Bytes(&'a [u8]),
    /// A binary.
    Binary(&'a [u8]),
    /// A bitstring, and how many bits of its last byte count: 1 to 7.
    Bits(&'a [u8], u8),
    /// A map, in the order it was written.
    Map(Vec<(Term<'a>, Term<'a>)>),
}

/// An integer by its sign and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Big<'a> {
    /// Whether it is below zero.
    pub negative: bool,
    /// Its digits to the base 256, lowest first.
    pub digits: &'a [u8],
}

impl<'a> Term<'a> {
    /// The atom's name, if it is an atom.
    pub fn as_atom(&self) -> Option<&str> {
        match self {
            Term::Atom(name) => Some(name),
            _ => None,
        }
    }

    /// The elements of a proper list, unless it is written as [`Term::Bytes`].
    pub fn as_list(&self) -> Option<&[Term<'a>]> {
        match self {
            Term::List(elements, None) => Some(elements),
            _ => None,
        }
    }

    /// Key and value, if it is a pair whose key is an atom.
    pub fn as_property(&self) -> Option<(&str, &Term<'a>)> {
        match self {
            Term::Tuple(elements) => match elements.as_slice() {
                [key, value] => Some((key.as_atom()?, value)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The characters of a list of small integers: how Erlang writes a Latin-1 string.
    pub fn as_latin1(&self) -> Option<String> {
        match self {
            Term::Bytes(bytes) => Some(bytes.iter().copied().map(char::from).collect()),
            _ => None,
        }
    }
}

/// The term as the Erlang shell would show it, for messages.
impl Display for Term<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Term::Integer(value) => write!(f, "{value}"),
            Term::Big(value) => write!(f, "an integer of {} bytes", value.digits.len()),
            Term::Float(value) => write!(f, "{value:?}"),
            Term::Atom(name) => write!(f, "'{}'", printable(name.as_bytes())),
            Term::Tuple(elements) => {
                f.write_str("{")?;
                separated(f, elements)?;
                f.write_str("}")
            }
            Term::List(elements, tail) => {
                f.write_str("[")?;
                separated(f, elements)?;
                if let Some(tail) = tail {
                    write!(f, "|{tail}")?;
                }
                f.write_str("]")
            }
            Term::Bytes(bytes) => write!(f, "\"{}\"", printable(bytes)),
            Term::Binary(bytes) => write!(f, "<<\"{}\">>", printable(bytes)),
            Term::Bits(bytes, _) => write!(f, "a bitstring of {} bytes", bytes.len()),
            Term::Map(pairs) => {
                f.write_str("#{")?;
                for (index, (key, value)) in pairs.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{key} => {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn separated(f: &mut Formatter<'_>, terms: &[Term<'_>]) -> fmt::Result {
    for (index, term) in terms.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{term}")?;
    }
    Ok(())
}
