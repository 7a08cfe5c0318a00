//! Limits on an archive, and what of a module its MD5 covers.

use hot_patch_beam::{ChunkId, LoadLimits, MOST_UNPACKED, SIGNIFICANT_CHUNKS};

/// What [`read_archive`](crate::read_archive) accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The largest archive, in bytes.
    pub max_archive_bytes: u64,
    /// The most entries, folders included.
    pub max_entries: u32,
    /// The most bytes made out of an archive: all files inflated, compressed modules
    /// inflated again, and the tables read from the modules.
    pub max_unpacked_bytes: u64,
    /// The longest name of an entry, in bytes.
    pub max_name_bytes: u32,
    /// What the modules may take in the VM that loads them.
    pub load: LoadLimits,
    /// The chunks that `code:module_md5/1` hashes, in order. They differ from release to
    /// release, so a running system should say its own:
    /// `:beam_lib.significant_chunks() -- [~c"Line", ~c"Type"]`.
    pub significant_chunks: Vec<ChunkId>,
}

const MIB: u64 = 1024 * 1024;

impl Default for Options {
    /// 10 MiB of archive, 10,000 entries, 100 MiB unpacked, names of 1,024 bytes.
    fn default() -> Self {
        Options {
            max_archive_bytes: 10 * MIB,
            max_entries: 10_000,
            max_unpacked_bytes: MOST_UNPACKED,
            max_name_bytes: 1024,
            load: LoadLimits::default(),
            significant_chunks: SIGNIFICANT_CHUNKS.to_vec(),
        }
    }
}
