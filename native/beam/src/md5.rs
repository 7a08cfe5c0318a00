//! The MD5 by which the VM tells modules apart (beam_file.c, `beamfile_read`).

use crate::chunk::ChunkId;
use crate::damage::Damage;
use crate::digest::{self, Md5Sum};
use crate::iff::Chunks;

/// The significant chunks of OTP 25 to 28. OTP 29 adds `Recs` and `DbgB`.
pub const SIGNIFICANT_CHUNKS: [ChunkId; 9] =
    [*b"Atom", *b"AtU8", *b"Code", *b"StrT", *b"ImpT", *b"ExpT", *b"FunT", *b"LitT", *b"Meta"];

/// A lambda in `FunT`: function, arity, label, index, free variables, old uniq.
const LAMBDA: usize = 24;

/// What `code:module_md5/1` gives: the MD5 of the significant chunks in their order.
pub(crate) fn of_module(chunks: &Chunks<'_>, significant: &[ChunkId]) -> Result<Md5Sum, Damage> {
    let lambdas = chunks.get(b"FunT").map(without_uniq).transpose()?;
    let parts = significant.iter().filter_map(|id| match (id, &lambdas) {
        (b"FunT", Some(lambdas)) => Some(lambdas.as_slice()),
        _ => chunks.get(id),
    });
    Ok(digest::md5(parts))
}

/// The lambda table with the old uniq of each entry zeroed: it was made by a hash that depends
/// on the machine.
fn without_uniq(chunk: &[u8]) -> Result<Vec<u8>, Damage> {
    let malformed = |what| Damage::Malformed { chunk: *b"FunT", what };
    let mut table = Vec::new();
    table.try_reserve_exact(chunk.len()).map_err(|_| Damage::OutOfMemory)?;
    table.extend_from_slice(chunk);
    let (count, entries) =
        table.split_first_chunk_mut().ok_or_else(|| malformed("it is cut off"))?;
    let count = u32::from_be_bytes(*count);
    if usize::try_from(count).ok().and_then(|n| n.checked_mul(LAMBDA)) != Some(entries.len()) {
        return Err(malformed("its size does not fit the entries it counts"));
    }
    for entry in entries.chunks_exact_mut(LAMBDA) {
        if let Some(uniq) = entry.last_chunk_mut::<4>() {
            *uniq = [0; 4];
        }
    }
    Ok(table)
}
