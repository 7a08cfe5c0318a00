//! Encoded terms in a form of their own: the same for terms that are equal.
//!
//! Compilers write maps in whatever order the VM has them, which may differ from run to run, and
//! atoms in two ways. External funs are accepted here: defaults of structs may be such.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::decode::DecodeError;
use super::tag;
use crate::digest::{self, Sha256Sum};

/// How deep terms may be nested: reading recurses this deep.
const DEPTH: u32 = 128;

/// How deep an outline goes: `{ok, State, _}`, the state, and what is in it.
const OUTLINE: u32 = 3;

/// Keys by which a map says where in a source it comes from, as log messages do; file and line are
/// then no meaning.
const LOCATION: [&str; 3] = ["file", "line", "mfa"];

/// What a term is like, as far as its form goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outline {
    /// An atom.
    Atom(String),
    /// A tuple.
    Tuple(Vec<Outline>),
    /// A map, with those of its keys that are atoms, sorted.
    Map(Vec<(String, Outline)>),
    /// A list of pairs `{Name, Number}`: functions, as behaviours list them.
    Functions(Vec<(String, u8)>),
    /// Anything else, or deeper than is looked.
    Other,
}

/// A map as it stands somewhere in a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapForm {
    /// The struct it is, by the module's name.
    pub(crate) structure: Option<String>,
    /// Its keys that are atoms, each with a digest of its value.
    pub(crate) fields: Vec<(String, Sha256Sum)>,
}

/// A term in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canonical {
    /// The form itself: it is compared and hashed, never decoded.
    pub(crate) bytes: Vec<u8>,
    /// All maps in the term, the inner ones first.
    pub(crate) maps: Vec<MapForm>,
    /// The functions to which external funs lead: module, name, arity.
    pub(crate) externals: Vec<(String, String, u8)>,
    /// All atoms in the term.
    pub(crate) atoms: BTreeSet<String>,
    pub(crate) outline: Outline,
}

/// Reads one term, which must take up all of `bytes`.
pub(crate) fn canonical(bytes: &[u8]) -> Result<Canonical, DecodeError> {
    let mut reader = Reader { cursor: Cursor { bytes, at: 0 }, ..Reader::default() };
    if reader.cursor.tag()? != tag::VERSION {
        return Err(DecodeError::NoTerm);
    }
    let mut out = Vec::new();
    let outline = reader.term(&mut out, DEPTH)?;
    match bytes.len() - reader.cursor.at {
        0 => {
            let Reader { maps, externals, atoms, .. } = reader;
            Ok(Canonical { bytes: out, maps, externals, atoms, outline })
        }
        left => Err(DecodeError::TrailingBytes(left)),
    }
}

#[derive(Default)]
struct Reader<'a> {
    cursor: Cursor<'a>,
    maps: Vec<MapForm>,
    externals: Vec<(String, String, u8)>,
    atoms: BTreeSet<String>,
}

impl Reader<'_> {
    /// Puts the next term into `out`, and gives its outline.
    fn term(&mut self, out: &mut Vec<u8>, depth: u32) -> Result<Outline, DecodeError> {
        let deeper = depth.checked_sub(1).ok_or(DecodeError::TooDeep(DEPTH))?;
        let at = self.cursor.at;
        let tag = self.cursor.tag()?;
        match tag {
            tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 => {
                let name = self.cursor.atom(tag, at)?.into_owned();
                put(out, tag::ATOM_UTF8, name.as_bytes());
                if !self.atoms.contains(&name) {
                    self.atoms.insert(name.clone());
                }
                Ok(Outline::Atom(name))
            }
            tag::SMALL_TUPLE => {
                let size = self.cursor.number(1)?;
                self.tuple(size, out, deeper)
            }
            tag::LARGE_TUPLE => {
                let size = self.cursor.number(4)?;
                self.tuple(size, out, deeper)
            }
            tag::LIST => self.list(out, deeper),
            tag::MAP => self.map(out, deeper),
            tag::EXPORT => {
                out.push(tag);
                let module = self.term(out, deeper)?;
                let name = self.term(out, deeper)?;
                self.term(out, deeper)?;
                let arity = *out.last().ok_or(DecodeError::Truncated(at))?;
                if let (Outline::Atom(module), Outline::Atom(name)) = (module, name) {
                    self.externals.push((module, name, arity));
                }
                Ok(Outline::Other)
            }
            _ => {
                let size = self.cursor.size(tag)?.ok_or(DecodeError::Tag { tag, at })?;
                self.cursor.take(size)?;
                let whole = self.cursor.bytes.get(at..self.cursor.at).unwrap_or_default();
                out.extend_from_slice(whole);
                Ok(Outline::Other)
            }
        }
    }

    fn tuple(&mut self, size: u64, out: &mut Vec<u8>, depth: u32) -> Result<Outline, DecodeError> {
        let size = self.possible(size)?;
        head(out, tag::LARGE_TUPLE, size);
        let mut elements = Vec::new();
        for _ in 0..size {
            let element = self.term(out, depth)?;
            if depth >= DEPTH - OUTLINE {
                elements.push(element);
            }
        }
        Ok(if depth >= DEPTH - OUTLINE { Outline::Tuple(elements) } else { Outline::Other })
    }

    fn list(&mut self, out: &mut Vec<u8>, depth: u32) -> Result<Outline, DecodeError> {
        let size = self.cursor.number(4)?;
        let size = self.possible(size)?;
        head(out, tag::LIST, size);
        let mut functions = Some(Vec::new());
        for _ in 0..size {
            let from = self.cursor.at;
            let element = self.term(out, depth)?;
            let function = match element {
                Outline::Tuple(pair) => self.function(pair, from),
                _ => None,
            };
            functions = functions.zip(function).map(|(mut all, one)| {
                all.push(one);
                all
            });
        }
        self.term(out, depth)?;
        Ok(functions.map_or(Outline::Other, Outline::Functions))
    }

    /// Name and number of a pair that was just read and began at `from`.
    fn function(&self, pair: Vec<Outline>, from: usize) -> Option<(String, u8)> {
        let mut elements = pair.into_iter();
        let (Some(Outline::Atom(name)), Some(Outline::Other), None) =
            (elements.next(), elements.next(), elements.next())
        else {
            return None;
        };
        match self.cursor.bytes.get(from..self.cursor.at)? {
            [.., tag::SMALL_INTEGER, arity] => Some((name, *arity)),
            _ => None,
        }
    }

    fn map(&mut self, out: &mut Vec<u8>, depth: u32) -> Result<Outline, DecodeError> {
        let size = self.cursor.number(4)?;
        let size = self.possible(size.saturating_mul(2))? / 2;
        let mut pairs = Vec::new();
        for _ in 0..size {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            let name = self.term(&mut key, depth)?;
            let outline = self.term(&mut value, depth)?;
            let name = if let Outline::Atom(name) = name { Some(name) } else { None };
            pairs.push(Pair { key, value, name, outline });
        }
        pairs.sort_by(|one, other| one.key.cmp(&other.key));
        let has = |key: &str| pairs.iter().any(|pair| pair.name.as_deref() == Some(key));
        if LOCATION.iter().all(|key| has(key)) {
            let place = |pair: &Pair| matches!(pair.name.as_deref(), Some("file" | "line"));
            pairs.retain(|pair| !place(pair));
        }
        head(out, tag::MAP, pairs.len());
        for pair in &pairs {
            out.extend_from_slice(&pair.key);
            out.extend_from_slice(&pair.value);
        }
        self.maps.push(form(&pairs));
        if depth < DEPTH - OUTLINE {
            return Ok(Outline::Other);
        }
        let named = pairs.into_iter().filter_map(|pair| Some((pair.name?, pair.outline)));
        let mut named: Vec<_> = named.collect();
        named.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(Outline::Map(named))
    }

    /// A count of terms, if there can be so many: each takes a byte.
    fn possible(&self, count: u64) -> Result<usize, DecodeError> {
        let left = self.cursor.bytes.len() - self.cursor.at;
        let count = usize::try_from(count).ok().filter(|count| *count <= left);
        count.ok_or(DecodeError::Truncated(self.cursor.bytes.len()))
    }
}

struct Pair {
    key: Vec<u8>,
    value: Vec<u8>,
    name: Option<String>,
    outline: Outline,
}

fn form(pairs: &[Pair]) -> MapForm {
    let structure = pairs.iter().find(|pair| pair.name.as_deref() == Some("__struct__"));
    let structure = structure.and_then(|pair| match &pair.outline {
        Outline::Atom(module) => Some(module.clone()),
        _ => None,
    });
    let fields =
        pairs.iter().filter_map(|pair| Some((pair.name.clone()?, digest::sha256(&pair.value))));
    MapForm { structure, fields: fields.collect() }
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    head(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

fn head(out: &mut Vec<u8>, tag: u8, size: usize) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::{Outline, canonical};

    #[test]
    fn equal_terms_have_one_form() {
        // #{a => 1, b => {}} in both orders, and with both kinds of atoms
        let one = canonical(b"\x83t\0\0\0\x02w\x01aa\x01w\x01bh\0").unwrap();
        let other = canonical(b"\x83t\0\0\0\x02d\0\x01bi\0\0\0\0s\x01aa\x01").unwrap();
        assert_eq!(one.bytes, other.bytes);
        assert_ne!(one.bytes, canonical(b"\x83t\0\0\0\x02w\x01aa\x02w\x01bh\0").unwrap().bytes);
    }

    #[test]
    fn a_line_among_a_location_is_no_meaning() {
        let location = |line: u8| {
            let mut term = b"\x83t\0\0\0\x03w\x04fileaaw\x03mfaa\x01w\x04linea".to_vec();
            term.push(line);
            canonical(&term).unwrap().bytes
        };
        assert_eq!(location(1), location(2));
        let alone = |line: u8| canonical(&[b"\x83t\0\0\0\x01w\x04linea", &[line][..]].concat());
        assert_ne!(alone(1).unwrap().bytes, alone(2).unwrap().bytes);
    }

    #[test]
    fn tells_structs_and_functions() {
        let term =
            canonical(b"\x83h\x02w\x02okt\0\0\0\x02w\x0a__struct__w\x01Sw\x01aqw\x01mw\x01fa\x01");
        let term = term.unwrap();
        assert_eq!(term.maps.first().unwrap().structure.as_deref(), Some("S"));
        let Outline::Tuple(elements) = term.outline else { panic!("a tuple") };
        assert_eq!(elements.first(), Some(&Outline::Atom("ok".to_owned())));
        let functions = canonical(b"\x83l\0\0\0\x01h\x02w\x01fa\x02j").unwrap().outline;
        assert_eq!(functions, Outline::Functions(vec![("f".to_owned(), 2)]));
    }

    #[test]
    fn damage_is_an_error() {
        let term = b"\x83h\x02w\x02okt\0\0\0\x01w\x01al\0\0\0\x01a\x01j";
        for size in 0..term.len() {
            assert!(canonical(term.get(..size).unwrap_or_default()).is_err(), "{size}");
        }
        assert!(canonical(b"\x83t\xff\xff\xff\xff").is_err());
        assert!(canonical(b"\x83l\xff\xff\xff\xffa\x01").is_err());
        let deep = [&b"\x83"[..], &b"h\x01".repeat(5000), b"j"].concat();
        assert!(canonical(&deep).is_err());
    }
}
