//! The import, export and local function tables, every index checked.

use crate::atoms::{AtomId, Atoms};
use crate::chunk::ChunkId;
use crate::damage::Damage;
use crate::reader::Reader;

/// Each entry of the three tables: three words.
const ENTRY: usize = 12;

/// A function of another module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImportEntry {
    pub(crate) module: AtomId,
    pub(crate) function: AtomId,
    pub(crate) arity: u8,
}

/// A function of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FunctionEntry {
    pub(crate) function: AtomId,
    pub(crate) arity: u8,
    /// Where it begins; to be compared with the code.
    pub(crate) label: u32,
}

/// Reads `ImpT`.
pub(crate) fn imports(chunk: &[u8], atoms: &Atoms) -> Result<Vec<ImportEntry>, Damage> {
    table(*b"ImpT", chunk, |[module, function, arity]| {
        let module = atoms.id(module).ok_or(NO_ATOM)?;
        let function = atoms.id(function).ok_or(NO_ATOM)?;
        Ok(ImportEntry { module, function, arity: check_arity(arity)? })
    })
}

/// Reads `ExpT` or `LocT`.
pub(crate) fn functions(
    id: ChunkId,
    chunk: &[u8],
    atoms: &Atoms,
) -> Result<Vec<FunctionEntry>, Damage> {
    table(id, chunk, |[function, arity, label]| {
        let function = atoms.id(function).ok_or(NO_ATOM)?;
        Ok(FunctionEntry { function, arity: check_arity(arity)?, label })
    })
}

const NO_ATOM: &str = "an entry names an atom that does not exist";

fn check_arity(arity: u32) -> Result<u8, &'static str> {
    u8::try_from(arity).map_err(|_| "a function has more than 255 arguments")
}

/// Reads a count and as many entries, which must fill the chunk.
fn table<T>(
    id: ChunkId,
    chunk: &[u8],
    entry: impl Fn([u32; 3]) -> Result<T, &'static str>,
) -> Result<Vec<T>, Damage> {
    let malformed = |what| Damage::Malformed { chunk: id, what };
    let mut reader = Reader::new(chunk);
    let count = reader.count(ENTRY).ok_or_else(|| malformed("it is cut off"))?;
    let mut entries = Vec::new();
    entries.try_reserve_exact(count).map_err(|_| Damage::OutOfMemory)?;
    for _ in 0..count {
        let words = [reader.u32(), reader.u32(), reader.u32()].map(Option::unwrap_or_default);
        entries.push(entry(words).map_err(malformed)?);
    }
    if !reader.rest().is_empty() {
        return Err(malformed("bytes follow its last entry"));
    }
    Ok(entries)
}
