//! The tables of a shadow: imports, exports and local funs.

use super::Reason;
use super::by_name::Calls;
use super::names::Renamed;
use crate::chunk::ChunkId;
use crate::damage::Damage;
use crate::reader::Reader;
use crate::writer::Writer;

/// `ImpT`, where modules of the set get their new names, and calls by names known only when the
/// code runs lead to the helper; and whether there are any such.
pub(super) fn imports(
    chunk: &[u8],
    calls: &Calls,
    atoms: &mut Renamed<'_>,
) -> Result<(Vec<u8>, bool), Reason> {
    let mut found = false;
    let mut table = rewrite(*b"ImpT", chunk, |[module, function, arity]| {
        if let Some(helper) = atoms.helper_for([module, function, arity])? {
            found = true;
            return Ok(Some([helper, function, arity]));
        }
        let module = atoms.called(module)?;
        Ok(module.zip(atoms.data(function)).map(|(module, function)| [module, function, arity]))
    })?;
    let functions = calls.functions();
    if !functions.is_empty()
        && let Some(helper) = atoms.helper()?
    {
        found = true;
        let mut out = Writer::default();
        out.u32(count(&table).saturating_add(u32::try_from(functions.len()).unwrap_or(u32::MAX)))?;
        out.put(table.get(4..).unwrap_or_default())?;
        for (function, arity) in functions {
            let function = atoms.place_of(function)?;
            [helper, function, arity].into_iter().try_for_each(|word| out.u32(word))?;
        }
        table = out.into_bytes();
    }
    Ok((table, found))
}

/// How many entries a table has.
pub(super) fn count(table: &[u8]) -> u32 {
    Reader::new(table).u32().unwrap_or_default()
}

/// `ExpT`, where a function may be named as the module.
pub(super) fn exports(chunk: &[u8], atoms: &Renamed<'_>) -> Result<Vec<u8>, Reason> {
    rewrite(*b"ExpT", chunk, |[function, arity, label]| {
        Ok(atoms.data(function).map(|function| [function, arity, label]))
    })
}

/// `FunT`: function, arity, label, index, free variables, old uniq.
pub(super) fn lambdas(chunk: &[u8], atoms: &Renamed<'_>) -> Result<Vec<u8>, Reason> {
    rewrite(*b"FunT", chunk, |[function, rest @ ..]: [u32; 6]| {
        let [arity, label, index, free, uniq] = rest;
        Ok(atoms.data(function).map(|function| [function, arity, label, index, free, uniq]))
    })
}

/// A table with each entry changed; `change` gives `None` where an atom does not exist.
fn rewrite<const WORDS: usize>(
    id: ChunkId,
    chunk: &[u8],
    mut change: impl FnMut([u32; WORDS]) -> Result<Option<[u32; WORDS]>, Reason>,
) -> Result<Vec<u8>, Reason> {
    let malformed = |what| Damage::Malformed { chunk: id, what };
    let cut_off = || malformed("it is cut off");
    let mut reader = Reader::new(chunk);
    let count = reader.count(WORDS * 4).ok_or_else(cut_off)?;
    let mut out = Writer::with_room_for(chunk.len())?;
    out.put(chunk.get(..4).unwrap_or_default())?;
    for _ in 0..count {
        let mut entry = [0; WORDS];
        for word in &mut entry {
            *word = reader.u32().ok_or_else(cut_off)?;
        }
        let no_atom = || malformed("an entry names an atom that does not exist");
        for word in change(entry)?.ok_or_else(no_atom)? {
            out.u32(word)?;
        }
    }
    if !reader.rest().is_empty() {
        return Err(malformed("bytes follow its last entry").into());
    }
    Ok(out.into_bytes())
}
