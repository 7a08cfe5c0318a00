//! Erlang terms as JSON, for reports and pages.
//!
//! | term | JSON |
//! |---|---|
//! | map with binaries or atoms as keys | object |
//! | binary | string; it must be UTF-8 |
//! | `true`, `false` | boolean |
//! | `nil` | null |
//! | any other atom, `undefined` too | string |
//! | integer of any size, float | number, exact |
//! | list, charlists too | array |
//!
//! Nothing else has a place in JSON: a tuple, an improper list, a bitstring, another key or a
//! key that is there twice is an error that says where it was found.
//!
//! What a terminal would obey or hide is written as `\uXXXX`, which means the same to every parser.

use std::fmt::Write as _;

use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use hot_patch_beam::etf::{self, Big, DecodeError, Limits, Term};
use hot_patch_beam::text::{is_invisible, printable};

/// Reports are wide and shallow. Each level takes several frames of the stack.
const LIMITS: Limits = Limits { depth: 64, terms: 5_000_000 };

/// Longest integer, in bytes: writing it in decimal takes time by the square of that.
const LONGEST_INTEGER: usize = 1024;

/// Why a term is no JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The bytes are no term.
    #[error("this is no Erlang term that can be read: {0}")]
    Decode(#[from] DecodeError),
    /// The term has no place in JSON.
    #[error("this term is no JSON: {0}")]
    Term(#[from] serde_json::Error),
}

/// The JSON of an encoded term.
pub fn to_json(etf: &[u8]) -> Result<Vec<u8>, JsonError> {
    let term = etf::decode(etf, LIMITS)?;
    Ok(escape_unseen(serde_json::to_string(&Json(&term))?).into_bytes())
}

/// Anything as JSON of several lines, for people who look at what programs get.
pub fn pretty(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(escape_unseen(serde_json::to_string_pretty(value)?))
}

/// `json` with the characters escaped that JSON itself leaves as they are, and that a terminal
/// obeys or hides. They can stand in strings only.
fn escape_unseen(json: String) -> String {
    // All other ASCII controls are escaped already.
    let unseen = |c: char| matches!(c, '\u{7f}'..='\u{9f}') || is_invisible(c);
    if !json.contains(unseen) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if unseen(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // A string takes all that is written to it.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A term to be written as JSON.
struct Json<'t>(&'t Term<'t>);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let term = self.0;
        match term {
            Term::Integer(value) => serializer.serialize_i64(*value),
            Term::Big(value) => serialize_big(*value, serializer),
            Term::Float(value) => serializer.serialize_f64(*value),
            Term::Atom(name) => match name.as_ref() {
                "true" => serializer.serialize_bool(true),
                "false" => serializer.serialize_bool(false),
                "nil" => serializer.serialize_none(),
                name => serializer.serialize_str(name),
            },
            Term::Binary(bytes) => serializer.serialize_str(text(bytes)?),
            Term::List(elements, None) => serializer.collect_seq(elements.iter().map(Json)),
            Term::Bytes(bytes) => serialize_bytes(bytes, serializer),
            Term::Map(pairs) => serialize_map(pairs, serializer),
            Term::Tuple(_) => Err(no_place("a tuple", term)),
            Term::List(_, Some(_)) => Err(no_place("an improper list", term)),
            Term::Bits(..) => Err(no_place("a bitstring", term)),
        }
    }
}

fn serialize_big<S: Serializer>(big: Big<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    if big.digits.len() > LONGEST_INTEGER {
        return Err(S::Error::custom(format_args!("an integer of {} bytes", big.digits.len())));
    }
    RawValue::from_string(big.to_decimal()).map_err(S::Error::custom)?.serialize(serializer)
}

fn serialize_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(bytes.len()))?;
    for byte in bytes {
        sequence.serialize_element(byte)?;
    }
    sequence.end()
}

fn serialize_map<S: Serializer>(
    pairs: &[(Term<'_>, Term<'_>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut keys = Vec::with_capacity(pairs.len());
    for (key, _) in pairs {
        keys.push(match key {
            Term::Atom(name) => name.as_ref(),
            Term::Binary(bytes) => text(bytes)?,
            other => return Err(no_place("a map with the key", other)),
        });
    }
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    let twice = sorted.iter().zip(sorted.iter().skip(1)).find(|(one, other)| one == other);
    if let Some((key, _)) = twice {
        let key = printable(key.as_bytes());
        return Err(S::Error::custom(format_args!("a map has the key \"{key}\" twice")));
    }
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, (_, value)) in keys.iter().zip(pairs) {
        map.serialize_entry(key, &Json(value))?;
    }
    map.end()
}

fn text<E: serde::ser::Error>(bytes: &[u8]) -> Result<&str, E> {
    str::from_utf8(bytes).map_err(|_| {
        let shown = printable(bytes);
        E::custom(format_args!("the binary \"{shown}\" is not UTF-8"))
    })
}

fn no_place<E: serde::ser::Error>(what: &str, term: &Term<'_>) -> E {
    let mut shown = Excerpt(String::new());
    // An error only means that there is more than is shown.
    let _ = write!(shown, "{term}");
    E::custom(format_args!("{what}, {}", shown.0))
}

/// Keeps the beginning of what is written, and stops the writing when that is enough.
struct Excerpt(String);

impl std::fmt::Write for Excerpt {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        const ENOUGH: usize = 400;
        self.0.extend(text.chars().take(ENOUGH));
        if self.0.len() < ENOUGH { Ok(()) } else { Err(std::fmt::Error) }
    }
}
