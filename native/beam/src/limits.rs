//! What modules may take.

const MIB: u64 = 1024 * 1024;

/// The most bytes that the literals of a module may unpack to, where nobody says another limit.
pub const MOST_UNPACKED: u64 = 100 * MIB;

/// What modules that come together may take in the VM that loads them. No real module known comes
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
