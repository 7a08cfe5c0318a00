//! The chunks of a BEAM file (beam_file.c, `read_beam_chunks`).

use std::borrow::Cow;

use crate::chunk::{Chunk, ChunkId};
use crate::damage::Damage;
use crate::reader::Reader;
use crate::writer::Writer;

/// Form id, form size and form type.
const HEADER: usize = 12;

/// Compilers write about fifteen. The bound keeps the search for duplicates short.
const MOST_CHUNKS: usize = 256;

/// Whether `bytes` begin like an uncompressed BEAM file.
pub(crate) fn is_beam(bytes: &[u8]) -> bool {
    bytes.starts_with(b"FOR1") && bytes.get(8..HEADER) == Some(b"BEAM")
}

/// The chunks of a file, each once.
#[derive(Debug)]
pub(crate) struct Chunks<'a>(Vec<(ChunkId, &'a [u8])>);

impl<'a> Chunks<'a> {
    /// Reads a file that is one form from its first byte to its last.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Damage> {
        let mut reader = Reader::new(bytes);
        if reader.take(4) != Some(b"FOR1") {
            return Err(Damage::NotBeam);
        }
        let claimed = reader.u32().map_or(0, u64::from) + 8;
        let real = bytes.len() as u64;
        if claimed != real {
            return Err(Damage::FormSize { claimed, real });
        }
        if reader.take(4) != Some(b"BEAM") {
            return Err(Damage::NotBeam);
        }
        let mut chunks = Chunks(Vec::with_capacity(16));
        while !reader.rest().is_empty() {
            let at = bytes.len() - reader.rest().len();
            let (id, data) = next(&mut reader).ok_or(Damage::ChunkSize(at))?;
            chunks.add(id, data)?;
        }
        Ok(chunks)
    }

    fn add(&mut self, id: ChunkId, data: &'a [u8]) -> Result<(), Damage> {
        if self.get(&id).is_some() {
            return Err(Damage::DuplicateChunk(id));
        }
        if self.0.len() == MOST_CHUNKS {
            return Err(Damage::TooManyChunks(MOST_CHUNKS));
        }
        self.0.push((id, data));
        Ok(())
    }

    pub(crate) fn get(&self, id: &ChunkId) -> Option<&'a [u8]> {
        self.0.iter().find(|(other, _)| other == id).map(|(_, data)| *data)
    }

    pub(crate) fn required(&self, id: &ChunkId) -> Result<&'a [u8], Damage> {
        self.get(id).ok_or(Damage::MissingChunk(*id))
    }

    pub(crate) fn sizes(&self) -> Vec<Chunk> {
        self.0.iter().map(|(id, data)| Chunk { id: *id, size: data.len() as u64 }).collect()
    }
}

/// A chunk: id, size, data, and padding to four bytes.
fn next<'a>(reader: &mut Reader<'a>) -> Option<(ChunkId, &'a [u8])> {
    let id = *reader.take(4)?.first_chunk()?;
    let size = usize::try_from(reader.u32()?).ok()?;
    let data = reader.take(size)?;
    reader.take(size.next_multiple_of(4) - size)?;
    Some((id, data))
}

/// A file of `chunks`.
pub(crate) fn write(chunks: &[(ChunkId, Cow<'_, [u8]>)]) -> Result<Writer, Damage> {
    let padded = |data: &[u8]| data.len().next_multiple_of(4);
    let size = 4 + chunks.iter().map(|(_, data)| 8 + padded(data)).sum::<usize>();
    let length = |size: usize| u32::try_from(size).map_err(|_| Damage::OutOfMemory);
    let mut out = Writer::with_room_for(8 + size)?;
    out.put(b"FOR1")?;
    out.u32(length(size)?)?;
    out.put(b"BEAM")?;
    for (id, data) in chunks {
        out.put(id)?;
        out.u32(length(data.len())?)?;
        out.put(data)?;
        out.put([0; 3].get(..padded(data) - data.len()).unwrap_or_default())?;
    }
    Ok(out)
}
