//! Modules compressed with gzip (`erlc +compressed`, `beam_lib:strip/1` of old), and the zlib
//! streams in modules.

use std::borrow::Cow;

use flate2::{Decompress, FlushDecompress, Status};

use crate::damage::Damage;

/// The largest window deflate has.
const WINDOW_BITS: u8 = 15;

/// A file without its compression, if it has one. What it unpacks to is asked of `room` before.
pub(crate) fn plain<E: From<Damage>>(
    bytes: &[u8],
    room: impl FnOnce(u64) -> Result<(), E>,
) -> Result<Cow<'_, [u8]>, E> {
    if !is_gzip(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let size = claimed_size(bytes).ok_or(Damage::Gzip)?;
    room(size.into())?;
    Ok(Cow::Owned(unpack(bytes, size)?))
}

/// Whether `bytes` begin like a gzip stream (RFC 1952 2.3.1).
fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// How much deflate can expand at most: 258 bytes from two bits.
const MOST_EXPANSION: u64 = 1032;

/// The size the stream claims, at its end, to unpack to; `None` if that cannot be.
fn claimed_size(bytes: &[u8]) -> Option<u32> {
    let size = bytes.last_chunk().map(|size| u32::from_le_bytes(*size))?;
    is_possible(bytes, size).then_some(size)
}

/// Whether deflated `bytes` can make `size`.
pub(crate) fn is_possible(bytes: &[u8], size: u32) -> bool {
    u64::from(size) <= bytes.len() as u64 * MOST_EXPANSION
}

/// Unpacks a gzip stream that makes exactly `size` bytes and fills `bytes`.
fn unpack(bytes: &[u8], size: u32) -> Result<Vec<u8>, Damage> {
    inflate(Decompress::new_gzip(WINDOW_BITS), bytes, size)
}

/// Unpacks a zlib stream that makes exactly `size` bytes and fills `bytes`.
pub(crate) fn unpack_zlib(bytes: &[u8], size: u32) -> Result<Vec<u8>, Damage> {
    inflate(Decompress::new(true), bytes, size)
}

fn inflate(mut inflate: Decompress, bytes: &[u8], size: u32) -> Result<Vec<u8>, Damage> {
    let size = usize::try_from(size).map_err(|_| Damage::OutOfMemory)?;
    let mut out = Vec::new();
    // One byte more than claimed lets the stream end on its own.
    out.try_reserve_exact(size.saturating_add(1)).map_err(|_| Damage::OutOfMemory)?;
    loop {
        let consumed = usize::try_from(inflate.total_in()).map_err(|_| Damage::Gzip)?;
        let produced = out.len();
        let rest = bytes.get(consumed..).ok_or(Damage::Gzip)?;
        let status = inflate
            .decompress_vec(rest, &mut out, FlushDecompress::Finish)
            .map_err(|_| Damage::Gzip)?;
        if status == Status::StreamEnd {
            break;
        }
        if inflate.total_in() == consumed as u64 && out.len() == produced {
            return Err(Damage::Gzip);
        }
    }
    if out.len() != size || inflate.total_in() != bytes.len() as u64 {
        return Err(Damage::Gzip);
    }
    Ok(out)
}
