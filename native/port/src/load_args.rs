//! The limits on what modules take in the VM that loads them, as options of the command line.

use clap::Args;
use hot_patch_beam::LoadLimits;

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// The most atoms of one module
    #[arg(long, value_name = "COUNT", default_value_t = LoadLimits::default().module_atoms)]
    max_module_atoms: u32,

    /// The most atoms of all modules together
    #[arg(long, value_name = "COUNT", default_value_t = LoadLimits::default().atoms)]
    max_atoms: u32,

    /// The most functions that one module has and calls
    #[arg(long, value_name = "COUNT", default_value_t = LoadLimits::default().module_functions)]
    max_module_functions: u32,

    /// The most functions of all modules together
    #[arg(long, value_name = "COUNT", default_value_t = LoadLimits::default().functions)]
    max_functions: u32,

    /// The most words of literals of one module
    #[arg(long, value_name = "WORDS", default_value_t = LoadLimits::default().literal_words)]
    max_literal_words: u64,

    /// How deep a literal may be nested
    #[arg(long, value_name = "LEVELS", default_value_t = LoadLimits::default().literal_depth)]
    max_literal_depth: u32,

    /// The most literals that the loader may have to make of one module
    #[arg(long, value_name = "COUNT", default_value_t = LoadLimits::default().added_literals)]
    max_added_literals: u32,

    /// The most memory that one module may take, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = LoadLimits::default().module_memory)]
    max_module_memory: u64,

    /// The most memory of all modules together, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = LoadLimits::default().memory)]
    max_memory: u64,
}

impl LoadArgs {
    pub(crate) fn limits(&self) -> LoadLimits {
        LoadLimits {
            module_atoms: self.max_module_atoms,
            atoms: self.max_atoms,
            module_functions: self.max_module_functions,
            functions: self.max_functions,
            literal_words: self.max_literal_words,
            literal_depth: self.max_literal_depth,
            added_literals: self.max_added_literals,
            module_memory: self.max_module_memory,
            memory: self.max_memory,
        }
    }
}
