//! What modules take in the VM that loads them.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::etf::Weighed;

/// What a module, or all modules of an archive together, take in a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Different atoms: of the table, of literals, attributes and compiler information. They stay
    /// until the VM ends, whatever becomes of the module.
    pub atoms: u64,
    /// Different functions of modules, its own and those it calls: each takes a place in a table
    /// of the VM that cannot grow beyond half a million, and stays too.
    pub functions: u64,
    /// Words of the literals.
    pub literal_words: u64,
    /// Literals that the loader makes and compares with each other: file names, large integers, sets
    /// of keys.
    pub added_literals: u64,
    /// Bytes that the loaded module takes at most: code, literals, lines.
    pub memory: u64,
}

/// The same key for all, so that what was hashed can be compared.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Names of atoms and functions, each once, as 64-bit hashes with a key that nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    atoms: Vec<u64>,
    functions: Vec<u64>,
}

impl Weighed for Names {
    fn atom(&mut self, name: &str) {
        self.atoms.push(KEY.hash_one(name));
    }

    fn function(&mut self, module: &str, name: &str, arity: u8) {
        self.functions.push(KEY.hash_one((module, name, arity)));
    }
}

impl Names {
    /// Drops what is there twice.
    pub(super) fn settle(&mut self) {
        for hashes in [&mut self.atoms, &mut self.functions] {
            hashes.sort_unstable();
            hashes.dedup();
            hashes.shrink_to_fit();
        }
    }

    pub(super) fn atoms(&self) -> u64 {
        self.atoms.len() as u64
    }

    pub(super) fn functions(&self) -> u64 {
        self.functions.len() as u64
    }
}

impl Load {
    /// What modules take together, each by its own load and its names.
    pub fn together<'m>(modules: impl Iterator<Item = (Load, &'m Names)>) -> Load {
        let mut all = Names::default();
        let mut sum = Load::default();
        for (load, names) in modules {
            sum.literal_words = sum.literal_words.saturating_add(load.literal_words);
            sum.added_literals = sum.added_literals.saturating_add(load.added_literals);
            sum.memory = sum.memory.saturating_add(load.memory);
            all.atoms.extend_from_slice(&names.atoms);
            all.functions.extend_from_slice(&names.functions);
        }
        all.settle();
        Load { atoms: all.atoms(), functions: all.functions(), ..sum }
    }
}
