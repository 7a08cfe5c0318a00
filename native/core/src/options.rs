//! Limits on an archive, and what of a module its MD5 covers.

/// The id of a chunk in a BEAM file, such as `Code` or `AtU8`.
pub type ChunkId = [u8; 4];

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
    /// The chunks that `code:module_md5/1` hashes, in order. They differ from release to
    /// release, so a running system should say its own:
    /// `:beam_lib.significant_chunks() -- [~c"Line", ~c"Type"]`.
    pub significant_chunks: Vec<ChunkId>,
}

/// The significant chunks of OTP 25 to 28. OTP 29 adds `Recs` and `DbgB`.
pub const SIGNIFICANT_CHUNKS: [ChunkId; 9] =
    [*b"Atom", *b"AtU8", *b"Code", *b"StrT", *b"ImpT", *b"ExpT", *b"FunT", *b"LitT", *b"Meta"];

const MIB: u64 = 1024 * 1024;

impl Default for Options {
    /// 10 MiB of archive, 10,000 entries, 100 MiB unpacked, names of 1,024 bytes.
    fn default() -> Self {
        Options {
            max_archive_bytes: 10 * MIB,
            max_entries: 10_000,
            max_unpacked_bytes: 100 * MIB,
            max_name_bytes: 1024,
            significant_chunks: SIGNIFICANT_CHUNKS.to_vec(),
        }
    }
}
