//! Erlang terms as text.

use std::fmt::{self, Display, Formatter};

use hot_patch_beam::text::is_invisible;

/// A term that can be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An atom.
    Atom(String),
    /// An integer, by its decimal digits with their sign.
    Integer(String),
    /// A float, as it was written.
    Float(String),
    /// A string: a list of characters.
    String(String),
    /// A binary that is written as a string, and so is UTF-8.
    Binary(String),
    /// A binary that is written byte for byte.
    Bytes(Vec<u8>),
    /// A proper list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A map.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Gives each atom of the term to `take`.
    pub fn atoms<'v>(&'v self, take: &mut impl FnMut(&'v str)) {
        match self {
            Value::Atom(name) => take(name),
            Value::List(values) | Value::Tuple(values) => {
                values.iter().for_each(|value| value.atoms(take));
            }
            Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
                key.atoms(take);
                value.atoms(take);
            }),
            Value::Integer(_)
            | Value::Float(_)
            | Value::String(_)
            | Value::Binary(_)
            | Value::Bytes(_) => {}
        }
    }

    /// An atom.
    pub fn atom(name: &str) -> Self {
        Value::Atom(name.to_owned())
    }

    /// The atom's name, if it is one.
    #[must_use]
    pub fn as_atom(&self) -> Option<&str> {
        match self {
            Value::Atom(name) => Some(name),
            _ => None,
        }
    }
}

/// Words that are no atoms without quotes.
const RESERVED: [&str; 29] = [
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case",
    "catch", "cond", "div", "else", "end", "fun", "if", "let", "maybe", "not", "of", "or",
    "orelse", "receive", "rem", "try", "when", "xor",
];

fn is_bare(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'@'))
        && !RESERVED.contains(&name)
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Value::Atom(name) if is_bare(name) => f.write_str(name),
            Value::Atom(name) => quoted(f, name, '\''),
            Value::Integer(text) | Value::Float(text) => f.write_str(text),
            Value::String(text) => quoted(f, text, '"'),
            Value::Binary(text) => {
                f.write_str("<<")?;
                if !text.is_empty() {
                    quoted(f, text, '"')?;
                    if !text.is_ascii() {
                        f.write_str("/utf8")?;
                    }
                }
                f.write_str(">>")
            }
            Value::Bytes(bytes) => {
                f.write_str("<<")?;
                for (index, byte) in bytes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{byte}")?;
                }
                f.write_str(">>")
            }
            Value::List(elements) => enclosed(f, "[", elements, "]"),
            Value::Tuple(elements) => enclosed(f, "{", elements, "}"),
            Value::Map(pairs) => {
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

fn enclosed(f: &mut Formatter<'_>, from: &str, values: &[Value], to: &str) -> fmt::Result {
    f.write_str(from)?;
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{value}")?;
    }
    f.write_str(to)
}

fn quoted(f: &mut Formatter<'_>, text: &str, quote: char) -> fmt::Result {
    write!(f, "{quote}")?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if c.is_control() || is_invisible(c) => write!(f, "\\x{{{:x}}}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    write!(f, "{quote}")
}
