//! The literals of a shadow: terms, copied but for external funs.
//!
//! `fun m:f/1` and `&M.f/1` are literals, and calls of them go where they lead. If that is a
//! module of the set, they are made to lead to its shadow.

use std::borrow::Cow;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::Reason;
use super::names::Names;
use crate::damage::Damage;
use crate::etf::{self, Write as _};
use crate::reader::Reader;
use crate::writer::{Copier, Writer};

/// The chunk `LitT`, of which `table` is what it unpacks to. Borrowed if nothing changed.
pub(super) fn rewrite<'a>(
    chunk: &'a [u8],
    table: &[u8],
    names: &Names<'_>,
) -> Result<Cow<'a, [u8]>, Reason> {
    let Some(table) = rename(table, names)? else { return Ok(chunk.into()) };
    // A size of 0 says that it is not packed (OTP 28).
    if !chunk.starts_with(&[0; 4]) {
        return Ok(pack(&table)?.into());
    }
    let mut out = Writer::with_room_for(table.len().saturating_add(4))?;
    out.u32(0)?;
    out.put(&table)?;
    Ok(out.into_bytes().into())
}

const CUT_OFF: Damage = Damage::Malformed { chunk: *b"LitT", what: "it is cut off" };

/// The table with external funs renamed, or `None` if there are none to rename.
fn rename(table: &[u8], names: &Names<'_>) -> Result<Option<Vec<u8>>, Reason> {
    let mut reader = Reader::new(table);
    // A module without literals has no table.
    let count = if table.is_empty() { 0 } else { reader.count(4).ok_or(CUT_OFF)? };
    let mut copier = Copier::new(Writer::default(), table);
    let mut changed = false;
    for _ in 0..count {
        let from = reader.rest();
        let size = reader.u32().and_then(|size| usize::try_from(size).ok()).ok_or(CUT_OFF)?;
        let term = reader.take(size).ok_or(CUT_OFF)?;
        let Some(term) = rename_term(term, names)? else { continue };
        let out = copier.skip(from, reader.rest())?;
        out.u32(u32::try_from(term.len()).map_err(|_| Damage::OutOfMemory)?)?;
        out.put(&term)?;
        changed = true;
    }
    Ok(if changed { Some(copier.finish(&[])?.into_bytes()) } else { None })
}

/// The encoded term with external funs renamed, or `None` if there are none to rename.
fn rename_term(term: &[u8], names: &Names<'_>) -> Result<Option<Vec<u8>>, Reason> {
    let captures = etf::captures(term).map_err(|error| Damage::Term { chunk: *b"LitT", error })?;
    let mut out = Writer::default();
    let mut copied = 0;
    for captured in captures {
        let Some(shadow) = names.shadow_of(&captured.module)? else { continue };
        out.put(term.get(copied..captured.place.start).unwrap_or_default())?;
        let mut atom = Vec::new();
        atom.atom(shadow);
        out.put(&atom)?;
        copied = captured.place.end;
    }
    if copied == 0 {
        return Ok(None);
    }
    out.put(term.get(copied..).unwrap_or_default())?;
    Ok(Some(out.into_bytes()))
}

/// A packed table. Before OTP 28 the loader wants a zlib stream; it need not be small.
fn pack(table: &[u8]) -> Result<Vec<u8>, Damage> {
    let size = u32::try_from(table.len()).map_err(|_| Damage::OutOfMemory)?;
    let room = table.len().saturating_add(table.len() / 8).saturating_add(64);
    let mut out = Writer::with_room_for(room)?;
    out.u32(size)?;
    let mut encoder = ZlibEncoder::new(out.into_bytes(), Compression::none());
    encoder.write_all(table).map_err(|_| Damage::OutOfMemory)?;
    encoder.finish().map_err(|_| Damage::OutOfMemory)
}
