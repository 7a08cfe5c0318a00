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
    /// What the modules may take in the VM that loads them.
    pub load: LoadLimits,
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
            load: LoadLimits::default(),
            significant_chunks: SIGNIFICANT_CHUNKS.to_vec(),
        }
    }
}

/// What the modules of an archive may take in the VM that loads them. No real module known comes
/// near to a tenth of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// The most atoms of one module, those in its literals and attributes counted.
    pub module_atoms: u32,
    /// The most atoms of all modules together, each counted once.
    pub atoms: u32,
    /// The most functions that one module has and calls.
    pub module_functions: u32,
    /// The most functions of all modules together, each counted once.
    pub functions: u32,
    /// The most words of literals of one module.
    pub literal_words: u64,
    /// How deep a literal may be nested.
    pub literal_depth: u32,
    /// How many literals the loader may have to make of one module: file names, large integers,
    /// sets of keys. It compares each with all before it.
    pub added_literals: u32,
    /// The most memory that one module may take, in bytes.
    pub module_memory: u64,
    /// The most memory of all modules together, in bytes.
    pub memory: u64,
}

impl LoadLimits {
    /// For modules that are only read: what may be loaded is judged by whoever takes the archive.
    pub(crate) const NONE: LoadLimits = LoadLimits {
        module_atoms: u32::MAX,
        atoms: u32::MAX,
        module_functions: u32::MAX,
        functions: u32::MAX,
        literal_words: u64::MAX,
        literal_depth: u32::MAX,
        added_literals: u32::MAX,
        module_memory: u64::MAX,
        memory: u64::MAX,
    };
}

impl Default for LoadLimits {
    /// 65,536 atoms and functions of a module, 200,000 of all; 16 million words of literals, 1,000
    /// deep; 10,000 literals to be added; 256 MiB of a module, 512 MiB of all.
    fn default() -> Self {
        LoadLimits {
            module_atoms: 65_536,
            atoms: 200_000,
            module_functions: 65_536,
            functions: 200_000,
            literal_words: 16 * 1024 * 1024,
            literal_depth: 1000,
            added_literals: 10_000,
            module_memory: 256 * MIB,
            memory: 512 * MIB,
        }
    }
}
