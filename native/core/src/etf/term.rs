//! An Erlang term, as far as we read them.

use std::borrow::Cow;

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
