//! What operands refer to: literals, imports, funs, strings.

use super::Unread;
use super::decode::{Bounds, Labels, Layout};
use crate::atoms::{AtomId, Atoms};
use crate::damage::Damage;
use crate::digest::Hasher;
use crate::effort::Effort;
use crate::etf::{self, Canonical, DecodeError};
use crate::gzip;
use crate::iff::Chunks;
use crate::reader::Reader;
use crate::tables::{self, ImportEntry};
use crate::verify::{self, Lambda};

#[derive(Debug)]
pub(super) struct Tables<'a> {
    pub(super) atoms: Atoms,
    /// All atoms by their names.
    sorted: Vec<AtomId>,
    pub(super) labels: Labels,
    /// Name and arity of each function, in the order of the file.
    pub(super) named: Vec<(AtomId, u8)>,
    pub(super) literals: Vec<Canonical>,
    pub(super) imports: Vec<ImportEntry>,
    pub(super) funs: Vec<Lambda>,
    pub(super) strings: &'a [u8],
}

impl<'a> Tables<'a> {
    pub(super) fn read(
        chunks: &Chunks<'a>,
        atoms: Atoms,
        layout: Layout,
        bounds: &[Bounds],
        effort: &Effort,
    ) -> Result<Self, Unread> {
        let imports = tables::imports(chunks.required(b"ImpT")?, &atoms)?;
        let literals = match chunks.get(b"LitT").filter(|chunk| !chunk.is_empty()) {
            Some(chunk) => literals(chunk, effort)?,
            None => Vec::new(),
        };
        let funs = verify::read_lambdas(chunks.get(b"FunT"))?;
        let strings = chunks.required(b"StrT")?;
        let named = bounds.iter().map(|bounds| (bounds.name, bounds.arity)).collect();
        let mut sorted: Vec<AtomId> =
            (1..=atoms.len()).filter_map(|index| atoms.id(index)).collect();
        sorted.sort_by(|one, other| atoms.text(*one).cmp(atoms.text(*other)));
        let labels = layout.labels;
        Ok(Tables { atoms, sorted, labels, named, literals, imports, funs, strings })
    }

    /// The atoms of this name: one, unless the table has it twice.
    pub(super) fn ids(&self, name: &str) -> &[AtomId] {
        let from = self.sorted.partition_point(|id| self.atoms.text(*id) < name);
        let equal = self.sorted.get(from..).unwrap_or_default();
        let count = equal.partition_point(|id| self.atoms.text(*id) == name);
        equal.get(..count).unwrap_or_default()
    }
}

const CUT_OFF: Damage = Damage::Malformed { chunk: *b"LitT", what: "it is cut off" };

/// `LitT`: the size it unpacks to, or 0 if it is not packed, a count, and as many terms, each with
/// its size.
fn literals(chunk: &[u8], effort: &Effort) -> Result<Vec<Canonical>, Unread> {
    let mut reader = Reader::new(chunk);
    let size = reader.u32().ok_or(CUT_OFF)?;
    if size == 0 {
        return terms(reader.rest(), effort);
    }
    if !gzip::is_possible(reader.rest(), size) {
        return Err(CUT_OFF.into());
    }
    effort.memory(size.into())?;
    let unpacked = gzip::unpack_zlib(reader.rest(), size).map_err(|damage| match damage {
        Damage::Gzip => PACKED,
        other => other,
    })?;
    terms(&unpacked, effort)
}

const PACKED: Damage = Damage::Malformed { chunk: *b"LitT", what: "its packed data is damaged" };

fn terms(table: &[u8], effort: &Effort) -> Result<Vec<Canonical>, Unread> {
    let mut reader = Reader::new(table);
    let count = reader.count(4).ok_or(CUT_OFF)?;
    let mut terms = Vec::new();
    let mut meter = effort.meter();
    for _ in 0..count {
        let size = reader.u32().and_then(|size| usize::try_from(size).ok()).ok_or(CUT_OFF)?;
        let term = reader.take(size).ok_or(CUT_OFF)?;
        effort.work(1)?;
        terms.push(match etf::canonical(term, &mut meter) {
            Ok(canonical) => canonical,
            // A term that is too deep, or of a kind that is not known, is compared as it stands.
            Err(etf::Unread::Term(DecodeError::TooDeep(_) | DecodeError::Tag { .. })) => {
                as_it_stands(term)
            }
            Err(etf::Unread::Term(error)) => {
                return Err(Damage::Term { chunk: *b"LitT", error }.into());
            }
            Err(etf::Unread::Exhausted) => return Err(Unread::Exhausted),
        });
    }
    Ok(terms)
}

fn as_it_stands(term: &[u8]) -> Canonical {
    let mut whole = Hasher::default();
    whole.put(term);
    Canonical::opaque(whole.finish())
}
