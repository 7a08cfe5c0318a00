//! What operands refer to: literals, imports, funs, strings.

use std::collections::{BTreeSet, HashMap};

use super::decode::{Layout, Place};
use crate::beam::atoms::{AtomId, Atoms};
use crate::beam::damage::Damage;
use crate::beam::gzip;
use crate::beam::iff::Chunks;
use crate::beam::reader::Reader;
use crate::beam::tables::{self, ImportEntry};
use crate::budget::Budget;
use crate::etf::{self, Canonical, Outline};

/// A local fun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fun {
    pub(super) function: AtomId,
    pub(super) arity: u32,
    pub(super) label: u64,
    pub(super) free: u32,
}

#[derive(Debug)]
pub(super) struct Tables<'a> {
    pub(super) atoms: Atoms,
    pub(super) labels: HashMap<u64, Place>,
    /// Name and arity of each function, in the order of the file.
    pub(super) named: Vec<(AtomId, u8)>,
    pub(super) literals: Vec<Canonical>,
    pub(super) imports: Vec<ImportEntry>,
    pub(super) funs: Vec<Fun>,
    pub(super) strings: &'a [u8],
}

impl<'a> Tables<'a> {
    pub(super) fn read(
        chunks: &Chunks<'a>,
        atoms: Atoms,
        layout: &Layout,
        budget: &Budget,
    ) -> Result<Self, Damage> {
        let imports = tables::imports(chunks.required(b"ImpT")?, &atoms)?;
        let literals = match chunks.get(b"LitT") {
            Some(chunk) => literals(chunk, budget)?,
            None => Vec::new(),
        };
        let funs = match chunks.get(b"FunT") {
            Some(chunk) => funs(chunk, &atoms)?,
            None => Vec::new(),
        };
        let strings = chunks.required(b"StrT")?;
        let named = layout.functions.iter().map(|bounds| (bounds.name, bounds.arity)).collect();
        let labels = layout.labels.clone();
        Ok(Tables { atoms, labels, named, literals, imports, funs, strings })
    }
}

const CUT_OFF: Damage = Damage::Malformed { chunk: *b"LitT", what: "it is cut off" };

/// `LitT`: the size it unpacks to, or 0 if it is not packed, a count, and as many terms, each with
/// its size.
fn literals(chunk: &[u8], budget: &Budget) -> Result<Vec<Canonical>, Damage> {
    let mut reader = Reader::new(chunk);
    let size = reader.u32().ok_or(CUT_OFF)?;
    // What is made of a term takes a few times its size.
    let room = if size == 0 { reader.rest().len() as u64 } else { size.into() };
    if !budget.take(room.saturating_mul(4)) {
        return Err(Damage::OutOfMemory);
    }
    if size == 0 {
        return terms(reader.rest());
    }
    if !gzip::is_possible(reader.rest(), size) {
        return Err(CUT_OFF);
    }
    terms(&gzip::unpack_zlib(reader.rest(), size)?)
}

fn terms(table: &[u8]) -> Result<Vec<Canonical>, Damage> {
    let mut reader = Reader::new(table);
    let count = reader.count(4).ok_or(CUT_OFF)?;
    let mut terms = Vec::new();
    for _ in 0..count {
        let size = reader.u32().and_then(|size| usize::try_from(size).ok()).ok_or(CUT_OFF)?;
        let term = reader.take(size).ok_or(CUT_OFF)?;
        // A term that is too deep is compared as it stands.
        let as_it_stands = |_| Canonical {
            bytes: term.to_vec(),
            maps: Vec::new(),
            externals: Vec::new(),
            atoms: BTreeSet::new(),
            outline: Outline::Other,
        };
        terms.push(etf::canonical(term).unwrap_or_else(as_it_stands));
    }
    Ok(terms)
}

/// `FunT`: function, arity, label, index, free variables, old uniq.
fn funs(chunk: &[u8], atoms: &Atoms) -> Result<Vec<Fun>, Damage> {
    let malformed = |what| Damage::Malformed { chunk: *b"FunT", what };
    let mut reader = Reader::new(chunk);
    let count = reader.count(24).ok_or_else(|| malformed("it is cut off"))?;
    let mut funs = Vec::new();
    for _ in 0..count {
        let mut word = || reader.u32().unwrap_or_default();
        let [function, arity, label, _index, free, _uniq] = [(); 6].map(|()| word());
        let function = atoms
            .id(function)
            .ok_or_else(|| malformed("an entry names an atom that does not exist"))?;
        funs.push(Fun { function, arity, label: label.into(), free });
    }
    Ok(funs)
}
