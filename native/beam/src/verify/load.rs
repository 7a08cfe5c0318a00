//! What modules take in the VM that loads them.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use super::code::Found;
use super::parts::Parts;
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

/// Bytes of a word.
const WORD: u64 = 8;

/// What machine code takes at most: for an instruction, and for each of its operands. Real
/// modules take a third of it.
const INSTRUCTION: u64 = 96;
const OPERAND: u64 = 48;
/// The loader's own record of a label.
const LABEL: u64 = 64;
/// An entry of the VM's tables for a function.
const FUNCTION: u64 = 256;
/// The loader's own record of a place of a line, and the VM's.
const LINE: u64 = 32;

/// The bytes that a module takes.
pub(super) fn memory(found: &Found, parts: &Parts<'_>, functions: u64) -> u64 {
    let lines = parts.lines.unwrap_or_default();
    let words = [parts.literals.words, found.big_words, lines.name_words, lines.names];
    let words = words.iter().fold(0_u64, |sum, words| sum.saturating_add(*words));
    let kept = [b"StrT", b"Attr", b"CInf", b"DbgB"].map(|id| parts.chunks.get(id));
    let kept = kept.iter().flatten().map(|chunk| chunk.len() as u64).sum();
    let sizes = [
        words.saturating_mul(WORD),
        parts.literals.binaries,
        found.instructions.saturating_mul(INSTRUCTION),
        found.operands.saturating_mul(OPERAND),
        (found.labels.len() as u64).saturating_mul(LABEL),
        functions.saturating_mul(FUNCTION),
        lines.items.saturating_add(lines.instructions).saturating_mul(LINE),
        kept,
    ];
    sizes.iter().fold(0, |sum, size| sum.saturating_add(*size))
}
