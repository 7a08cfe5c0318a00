//! Unpacks entries, and proves their declared sizes and checksums true.

use std::borrow::Cow;

use flate2::{Decompress, FlushDecompress, Status};

use super::Entry;
use super::central::Method;
use crate::refusal::{Refusal, Rule};

/// An inflater that is used again for entry after entry.
#[derive(Debug)]
pub(crate) struct Unpacker {
    inflate: Decompress,
}

impl Unpacker {
    pub(crate) fn new() -> Self {
        Unpacker { inflate: Decompress::new(false) }
    }

    /// The content of `entry`: as many bytes as it declares, with the checksum it declares.
    pub(crate) fn unpack<'a>(&mut self, entry: &Entry<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
        let bytes = match entry.method {
            Method::Store => Cow::Borrowed(stored(entry)?),
            Method::Deflate => Cow::Owned(self.inflate(entry)?),
        };
        if crc32fast::hash(&bytes) != entry.crc32 {
            return Err(entry.refuse(Rule::BadCrc, "does not match its checksum"));
        }
        Ok(bytes)
    }

    /// Inflates into room for one byte more than declared: that byte tells a declaration that
    /// is too small from a stream that goes on without output.
    fn inflate(&mut self, entry: &Entry<'_>) -> Result<Vec<u8>, Refusal> {
        let size = entry.size();
        let mut out = Vec::new();
        let room = size.saturating_add(1);
        out.try_reserve_exact(room).map_err(|_| Refusal::out_of_memory("an entry", room))?;
        self.inflate.reset(false);
        let status = self.run(entry.packed, &mut out);
        if out.len() > size {
            return Err(too_small(entry));
        }
        if status != Some(Status::StreamEnd) {
            return Err(entry.refuse(Rule::DamagedStream, "has packed data that is damaged"));
        }
        if self.inflate.total_in() != entry.packed.len() as u64 {
            return Err(entry.refuse(Rule::BytesAfterStream, "has bytes after its packed data"));
        }
        if out.len() < size {
            return Err(too_large(entry, out.len()));
        }
        Ok(out)
    }

    /// Inflates until the stream ends or nothing moves any more.
    fn run(&mut self, packed: &[u8], out: &mut Vec<u8>) -> Option<Status> {
        loop {
            let consumed = self.inflate.total_in();
            let produced = out.len();
            let rest = packed.get(usize::try_from(consumed).ok()?..)?;
            let status = self.inflate.decompress_vec(rest, out, FlushDecompress::Finish).ok()?;
            let stuck = consumed == self.inflate.total_in() && produced == out.len();
            if status == Status::StreamEnd || stuck {
                return Some(status);
            }
        }
    }
}

fn stored<'a>(entry: &Entry<'a>) -> Result<&'a [u8], Refusal> {
    match entry.packed.len() {
        len if len > entry.size() => Err(too_small(entry)),
        len if len < entry.size() => Err(too_large(entry, len)),
        _ => Ok(entry.packed),
    }
}

fn too_small(entry: &Entry<'_>) -> Refusal {
    let detail = format!("declares {} bytes and has more", entry.size);
    entry.refuse(Rule::SizeTooSmall, detail)
}

fn too_large(entry: &Entry<'_>, real: usize) -> Refusal {
    let detail = format!("declares {} bytes and has {real}", entry.size);
    entry.refuse(Rule::SizeTooLarge, detail)
}
