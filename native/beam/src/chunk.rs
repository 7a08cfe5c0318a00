//! What a chunk is called.

/// The id of a chunk in a BEAM file, such as `Code` or `AtU8`.
pub type ChunkId = [u8; 4];

/// A chunk of a BEAM file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its id.
    pub id: ChunkId,
    /// Its size without padding.
    pub size: u64,
}
