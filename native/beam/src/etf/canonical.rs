//! Encoded terms by what they mean: equal terms have equal digests, and what is looked for in
//! them is kept beside.
//!
//! Compilers write maps in whatever order the VM has them, which may differ from run to run, and
//! atoms in two ways. External funs are accepted here: defaults of structs may be such.
//!
//! Nothing of a term itself is kept: it is hashed as it is read, a map by the digests of its keys
//! and values. What is kept is counted, since a term can mean many times its size.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::decode::DecodeError;
use super::tag;
use crate::digest::{Hasher, Short};
use crate::effort::{Exhausted, Meter};

/// How deep terms may be nested: reading recurses this deep.
const DEPTH: u32 = 128;

/// How deep an outline goes: `{ok, State, _}`, the state, and what is in it.
const OUTLINE: u32 = 3;

/// How many parts the outline of a term has at most. Larger ones are not those of states.
const PARTS: usize = 4096;

/// Keys by which a map says where in a source it comes from, as log messages do; file and line are
/// then no meaning.
const LOCATION: [&str; 3] = ["file", "line", "mfa"];

/// What a term is like, as far as its form goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outline {
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

/// A struct as it stands somewhere in a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructForm {
    /// The module that defines it.
    pub module: String,
    /// Its keys that are atoms, each with a digest of its value.
    pub fields: Vec<(String, Short)>,
}

/// What is known of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canonical {
    /// The same for terms that are equal.
    pub digest: Short,
    /// All structs in the term, the inner ones first.
    pub structs: Vec<StructForm>,
    /// The keys of all maps in the term, as far as they are atoms.
    pub keys: BTreeSet<String>,
    /// The functions to which external funs lead: module, name, arity.
    pub externals: Vec<(String, String, u8)>,
    /// All atoms in the term.
    pub atoms: BTreeSet<String>,
    pub outline: Outline,
}

/// Why nothing is known of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is none.
    Term(DecodeError),
    /// What may be made of terms is used up.
    Exhausted,
}

impl From<DecodeError> for Unread {
    fn from(error: DecodeError) -> Self {
        Unread::Term(error)
    }
}

impl From<Exhausted> for Unread {
    fn from(Exhausted: Exhausted) -> Self {
        Unread::Exhausted
    }
}

/// Reads one term, which must take up all of `bytes`.
pub(crate) fn canonical(bytes: &[u8], meter: &mut Meter<'_>) -> Result<Canonical, Unread> {
    let mut reader = Reader {
        cursor: Cursor { bytes, at: 0 },
        meter,
        parts: PARTS,
        found: Canonical::opaque(Short::default()),
    };
    reader.keep(size_of::<Canonical>())?;
    if reader.cursor.tag()? != tag::VERSION {
        return Err(DecodeError::NoTerm.into());
    }
    let mut out = Hasher::default();
    let outline = reader.term(&mut out, DEPTH)?.outline();
    match bytes.len() - reader.cursor.at {
        0 => Ok(Canonical { digest: out.finish(), outline, ..reader.found }),
        left => Err(DecodeError::TrailingBytes(left).into()),
    }
}

impl Canonical {
    /// A term of which nothing is known but that it is one and the same.
    pub(crate) fn opaque(digest: Short) -> Self {
        Canonical {
            digest,
            structs: Vec::new(),
            keys: BTreeSet::new(),
            externals: Vec::new(),
            atoms: BTreeSet::new(),
            outline: Outline::Other,
        }
    }
}

struct Reader<'a, 'm, 'e> {
    cursor: Cursor<'a>,
    meter: &'m mut Meter<'e>,
    /// How many parts the outline may still have.
    parts: usize,
    found: Canonical,
}

/// What a term is to the one in which it stands.
enum Part<'a> {
    Atom(Cow<'a, str>),
    Other(Outline),
}

impl Part<'_> {
    fn outline(self) -> Outline {
        match self {
            Part::Atom(name) => Outline::Atom(name.into_owned()),
            Part::Other(outline) => outline,
        }
    }
}

/// What keeping a text takes beside its bytes, in a set or with what belongs to it.
const EACH: usize = 96;

impl<'a> Reader<'a, '_, '_> {
    /// Puts the next term into `out`, and says what it is.
    fn term(&mut self, out: &mut Hasher, depth: u32) -> Result<Part<'a>, Unread> {
        let deeper = depth.checked_sub(1).ok_or(DecodeError::TooDeep(DEPTH))?;
        let at = self.cursor.at;
        let tag = self.cursor.tag()?;
        let outline = match tag {
            tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 | tag::SMALL_ATOM_UTF8 => {
                return self.atom(tag, at, out);
            }
            tag::SMALL_TUPLE => {
                let size = self.cursor.number(1)?;
                self.tuple(size, out, deeper)?
            }
            tag::LARGE_TUPLE => {
                let size = self.cursor.number(4)?;
                self.tuple(size, out, deeper)?
            }
            tag::LIST => self.list(out, deeper)?,
            tag::MAP => self.map(out, deeper)?,
            tag::EXPORT => self.external(out, deeper)?,
            _ => {
                let size = self.cursor.size(tag)?.ok_or(DecodeError::Tag { tag, at })?;
                self.cursor.take(size)?;
                out.put(self.cursor.bytes.get(at..self.cursor.at).unwrap_or_default());
                Outline::Other
            }
        };
        Ok(Part::Other(outline))
    }

    fn atom(&mut self, tag: u8, at: usize, out: &mut Hasher) -> Result<Part<'a>, Unread> {
        let name = self.cursor.atom(tag, at)?;
        out.tagged(tag::ATOM_UTF8, name.len() as u64);
        out.put(name.as_bytes());
        if !self.found.atoms.contains(&*name) {
            self.keep(name.len() + EACH)?;
            self.found.atoms.insert(name.clone().into_owned());
        }
        Ok(Part::Atom(name))
    }

    fn tuple(&mut self, size: u64, out: &mut Hasher, depth: u32) -> Result<Outline, Unread> {
        let size = self.possible(size)?;
        out.tagged(tag::LARGE_TUPLE, size as u64);
        let mut elements = Some(Vec::new());
        for _ in 0..size {
            let element = self.term(out, depth)?;
            elements = self.outlined(depth, elements, |elements| elements.push(element.outline()));
        }
        let shown = depth >= DEPTH - OUTLINE;
        Ok(elements.filter(|_| shown).map_or(Outline::Other, Outline::Tuple))
    }

    fn list(&mut self, out: &mut Hasher, depth: u32) -> Result<Outline, Unread> {
        let size = self.cursor.number(4)?;
        let size = self.possible(size)?;
        out.tagged(tag::LIST, size as u64);
        let mut functions = Some(Vec::new());
        for _ in 0..size {
            let from = self.cursor.at;
            let function = match self.term(out, depth)? {
                Part::Other(Outline::Tuple(pair)) => self.function(pair, from),
                _ => None,
            };
            functions = match function {
                Some(one) => self.outlined(DEPTH, functions, |functions| functions.push(one)),
                None => None,
            };
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

    fn external(&mut self, out: &mut Hasher, depth: u32) -> Result<Outline, Unread> {
        out.put(&[tag::EXPORT]);
        let module = self.term(out, depth)?;
        let name = self.term(out, depth)?;
        self.term(out, depth)?;
        let read = self.cursor.bytes.get(..self.cursor.at).unwrap_or_default();
        if let (Part::Atom(module), Part::Atom(name), Some(arity)) = (module, name, read.last()) {
            self.keep(module.len() + name.len() + EACH)?;
            self.found.externals.push((module.into_owned(), name.into_owned(), *arity));
        }
        Ok(Outline::Other)
    }

    fn map(&mut self, out: &mut Hasher, depth: u32) -> Result<Outline, Unread> {
        let size = self.cursor.number(4)?;
        let size = self.possible(size.saturating_mul(2))? / 2;
        let mut pairs = Vec::new();
        let mut named = Vec::new();
        for _ in 0..size {
            let (mut key, mut value) = (Hasher::default(), Hasher::default());
            let name = self.term(&mut key, depth)?;
            let part = self.term(&mut value, depth)?;
            let (key, value) = (key.finish(), value.finish());
            // A list that grows takes its size once more.
            self.keep(2 * size_of::<(Short, Short)>())?;
            pairs.push((key, value));
            if let Part::Atom(name) = name {
                self.keep(2 * size_of::<Named<'_>>())?;
                named.push(Named { name, key, value, part });
            }
        }
        let has = |key: &&str| named.iter().any(|one| one.name == *key);
        if LOCATION.iter().all(has) {
            let place = |one: &Named<'_>| matches!(&*one.name, "file" | "line");
            let places: Vec<Short> =
                named.iter().filter(|one| place(one)).map(|one| one.key).collect();
            pairs.retain(|(key, _)| !places.contains(key));
            named.retain(|one| !place(one));
        }
        pairs.sort_unstable();
        out.tagged(tag::MAP, pairs.len() as u64);
        for (key, value) in &pairs {
            out.put(key);
            out.put(value);
        }
        self.remember(&named)?;
        Ok(self.outline_of(named, depth))
    }

    /// Keeps the keys of a map, and all of them with it if it is a struct.
    fn remember(&mut self, named: &[Named<'_>]) -> Result<(), Unread> {
        for one in named {
            if !self.found.keys.contains(&*one.name) {
                self.keep(one.name.len() + EACH)?;
                self.found.keys.insert(one.name.clone().into_owned());
            }
        }
        let structure = named.iter().find(|one| one.name == "__struct__");
        let Some(Named { part: Part::Atom(module), .. }) = structure else { return Ok(()) };
        let names: usize = named.iter().map(|one| one.name.len() + EACH).sum();
        self.keep(module.len() + names + EACH)?;
        let fields = named.iter().map(|one| (one.name.clone().into_owned(), one.value)).collect();
        self.found.structs.push(StructForm { module: module.clone().into_owned(), fields });
        Ok(())
    }

    fn outline_of(&mut self, named: Vec<Named<'_>>, depth: u32) -> Outline {
        if depth < DEPTH - OUTLINE {
            return Outline::Other;
        }
        let mut fields = Some(Vec::new());
        for one in named {
            let field = |fields: &mut Vec<_>| {
                fields.push((one.name.into_owned(), one.part.outline()));
            };
            fields = self.outlined(depth, fields, field);
        }
        let Some(mut fields) = fields else { return Outline::Other };
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        Outline::Map(fields)
    }

    /// Adds a part to an outline, where so deep is looked and there are not too many.
    fn outlined<T>(
        &mut self,
        depth: u32,
        mut all: Option<T>,
        add: impl FnOnce(&mut T),
    ) -> Option<T> {
        if depth < DEPTH - OUTLINE {
            return all;
        }
        self.parts = self.parts.checked_sub(1)?;
        if let Some(all) = &mut all {
            add(all);
        }
        all
    }

    fn keep(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.meter.memory(bytes)
    }

    /// A count of terms, if there can be so many: each takes a byte.
    fn possible(&self, count: u64) -> Result<usize, DecodeError> {
        let left = self.cursor.bytes.len() - self.cursor.at;
        let count = usize::try_from(count).ok().filter(|count| *count <= left);
        count.ok_or(DecodeError::Truncated(self.cursor.bytes.len()))
    }
}

/// A pair of a map whose key is an atom.
struct Named<'a> {
    name: Cow<'a, str>,
    key: Short,
    value: Short,
    part: Part<'a>,
}

#[cfg(test)]
mod tests {
    use super::{Canonical, Outline, Unread};
    use crate::effort::Effort;
    use crate::etf::DecodeError;
    use crate::stop::Stop;

    fn limited(bytes: &[u8], memory: u64) -> Result<Canonical, Unread> {
        let effort = Effort::new(&Stop::default(), memory, u64::MAX);
        super::canonical(bytes, &mut effort.meter())
    }

    fn canonical(bytes: &[u8]) -> Result<Canonical, Unread> {
        limited(bytes, u64::MAX)
    }

    #[test]
    fn equal_terms_have_one_form() {
        // #{a => 1, b => {}} in both orders, and with both kinds of atoms
        let one = canonical(b"\x83t\0\0\0\x02w\x01aa\x01w\x01bh\0").unwrap();
        let other = canonical(b"\x83t\0\0\0\x02d\0\x01bi\0\0\0\0s\x01aa\x01").unwrap();
        assert_eq!(one.digest, other.digest);
        assert_ne!(one.digest, canonical(b"\x83t\0\0\0\x02w\x01aa\x02w\x01bh\0").unwrap().digest);
    }

    #[test]
    fn a_line_among_a_location_is_no_meaning() {
        let location = |line: u8| {
            let mut term = b"\x83t\0\0\0\x03w\x04fileaaw\x03mfaa\x01w\x04linea".to_vec();
            term.push(line);
            canonical(&term).unwrap().digest
        };
        assert_eq!(location(1), location(2));
        let alone = |line: u8| canonical(&[b"\x83t\0\0\0\x01w\x04linea", &[line][..]].concat());
        assert_ne!(alone(1).unwrap().digest, alone(2).unwrap().digest);
    }

    #[test]
    fn tells_structs_and_functions() {
        let term =
            canonical(b"\x83h\x02w\x02okt\0\0\0\x02w\x0a__struct__w\x01Sw\x01aqw\x01mw\x01fa\x01");
        let term = term.unwrap();
        let form = term.structs.first().unwrap();
        assert_eq!((form.module.as_str(), form.fields.len()), ("S", 2));
        assert_eq!(term.keys, ["__struct__", "a"].map(str::to_owned).into());
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

    #[test]
    fn what_is_made_of_a_term_is_bounded_and_not_the_term() {
        // 1,000 empty maps and 1,000 numbers are kept as nothing; 1,000 pairs, and 250 atoms, are
        // more than their bytes.
        let list = |element: &[u8], count: usize| {
            let count = u32::try_from(count).unwrap();
            let elements = element.repeat(count as usize);
            [&b"\x83l"[..], &count.to_be_bytes(), &elements, b"j"].concat()
        };
        assert!(limited(&list(b"t\0\0\0\0", 1000), 1000).is_ok());
        assert!(limited(&list(b"a\x01", 1000), 1000).is_ok());
        let one_pair = list(b"t\0\0\0\x01a\x01a\x01", 1000);
        assert_eq!(limited(&one_pair, 20_000), Err(Unread::Exhausted));
        assert!(limited(&one_pair, 100_000).is_ok());
        let atoms: Vec<u8> =
            (0..250).flat_map(|n| [b'w', 2, b'a' + n / 25, b'a' + n % 25]).collect();
        let atoms = [&b"\x83l\0\0\0\xfa"[..], &atoms, b"j"].concat();
        assert_eq!(limited(&atoms, 10_000), Err(Unread::Exhausted));
        assert_eq!(limited(&atoms, 100_000).unwrap().atoms.len(), 250);
    }

    #[test]
    fn damage_has_its_name() {
        assert_eq!(canonical(b"\x83h\x01"), Err(Unread::Term(DecodeError::Truncated(3))));
        assert_eq!(canonical(b"\x83jj"), Err(Unread::Term(DecodeError::TrailingBytes(1))));
        assert_eq!(canonical(b"j"), Err(Unread::Term(DecodeError::NoTerm)));
    }
}
