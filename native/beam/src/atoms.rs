//! The atom table, and its names as text.

use crate::chunk::ChunkId;
use crate::damage::Damage;
use crate::iff::Chunks;
use crate::reader::Reader;

/// The longest name of an atom, in characters.
pub(crate) const LONGEST_ATOM: usize = 255;

/// An atom of a table, by its place from 1. Only the table's own places can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AtomId(u32);

impl AtomId {
    /// The place, as a file's tables have it.
    pub(crate) fn place(self) -> u32 {
        self.0
    }
}

/// All names of a table in one string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Atoms {
    text: String,
    /// Where each name ends in the text.
    ends: Vec<u32>,
    long_format: bool,
}

impl Atoms {
    /// Reads `AtU8` (OTP 20 and later) or `Atom`; the first name is the module's.
    pub(crate) fn read(chunks: &Chunks<'_>) -> Result<Self, Damage> {
        let (id, chunk): (ChunkId, _) = match (chunks.get(b"AtU8"), chunks.get(b"Atom")) {
            (Some(_), Some(_)) => return Err(Damage::TwoAtomTables),
            (Some(utf8), None) => (*b"AtU8", utf8),
            (None, Some(latin1)) => (*b"Atom", latin1),
            (None, None) => return Err(Damage::MissingChunk(*b"AtU8")),
        };
        let mut atoms = Atoms::default();
        atoms.parse(chunk, id == *b"Atom").map_err(|what| Damage::Malformed { chunk: id, what })?;
        Ok(atoms)
    }

    fn parse(&mut self, chunk: &[u8], latin1: bool) -> Result<(), &'static str> {
        const CUT_OFF: &str = "it is cut off";
        let mut reader = Reader::new(chunk);
        let count = reader.i32().ok_or(CUT_OFF)?;
        // A negative count announces lengths written as compact numbers (OTP 28).
        self.long_format = count < 0;
        let count = usize::try_from(count.unsigned_abs()).map_err(|_| CUT_OFF)?;
        if count == 0 {
            return Err("it has no atoms, not even the module's name");
        }
        if count > reader.rest().len() {
            return Err(CUT_OFF);
        }
        let room = "there is no memory for it";
        self.ends.try_reserve_exact(count).map_err(|_| room)?;
        let mut text = Vec::new();
        text.try_reserve_exact(reader.rest().len()).map_err(|_| room)?;
        for _ in 0..count {
            let length = self.length(&mut reader).ok_or(CUT_OFF)?;
            text.extend_from_slice(reader.take(length).ok_or(CUT_OFF)?);
            self.ends.push(u32::try_from(text.len()).map_err(|_| "it is too long")?);
        }
        if !reader.rest().is_empty() {
            return Err("bytes follow its last atom");
        }
        if latin1 { self.set_latin1(&text) } else { self.set_utf8(text) }
    }

    fn length(&self, reader: &mut Reader<'_>) -> Option<usize> {
        if !self.long_format {
            return reader.u8().map(usize::from);
        }
        let length = reader.tagged()?;
        (length.tag == 0).then_some(usize::try_from(length.value?).ok()?)
    }

    /// Takes the names as UTF-8. All are checked in one go: if their sequence is valid, and each
    /// ends between two characters, then each is valid.
    fn set_utf8(&mut self, text: Vec<u8>) -> Result<(), &'static str> {
        const INVALID: &str = "an atom is not UTF-8";
        self.text = String::from_utf8(text).map_err(|_| INVALID)?;
        let mut start = 0;
        for end in &self.ends {
            let end = usize::try_from(*end).map_err(|_| INVALID)?;
            let name = self.text.get(start..end).ok_or(INVALID)?;
            // Only a name of more bytes can have more characters.
            if name.len() > LONGEST_ATOM && name.chars().count() > LONGEST_ATOM {
                return Err("an atom has more than 255 characters");
            }
            start = end;
        }
        Ok(())
    }

    /// Takes the names as Latin-1, where each byte is a character.
    fn set_latin1(&mut self, text: &[u8]) -> Result<(), &'static str> {
        let mut start = 0;
        for end in &mut self.ends {
            let next = usize::try_from(*end).map_err(|_| "it is too long")?;
            let name = text.get(start..next).unwrap_or_default();
            self.text.extend(name.iter().copied().map(char::from));
            *end = u32::try_from(self.text.len()).map_err(|_| "it is too long")?;
            start = next;
        }
        Ok(())
    }

    /// Whether lengths are compact numbers, as OTP 28 writes them and earlier ones cannot read.
    pub(crate) fn is_long_format(&self) -> bool {
        self.long_format
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    /// All names, the module's first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        (1..=self.len()).map(|index| self.text(AtomId(index)))
    }

    /// The atom at `index`, counted from 1.
    pub(crate) fn id(&self, index: u32) -> Option<AtomId> {
        let place = usize::try_from(index.checked_sub(1)?).ok()?;
        (place < self.ends.len()).then_some(AtomId(index))
    }

    pub(crate) fn module(&self) -> &str {
        self.text(AtomId(1))
    }

    pub(crate) fn text(&self, AtomId(index): AtomId) -> &str {
        let at = |index: u32| {
            let place = usize::try_from(index).ok()?.checked_sub(1)?;
            self.ends.get(place).and_then(|end| usize::try_from(*end).ok())
        };
        let start = at(index - 1).unwrap_or(0);
        let end = at(index).unwrap_or(start);
        self.text.get(start..end).unwrap_or_default()
    }
}
