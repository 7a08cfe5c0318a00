//! The judge before the loader: one parse of a module, which proves that OTP's loaders can take it
//! without harm to the VM.
//!
//! The loader believes what it reads. Counts become allocations, places become addresses, and what
//! is impossible is an assertion that ends the VM. So all of that is checked here, by the rules of
//! [`LoaderRule`], for all releases from OTP 25 on at once; what differs from release to release
//! and is refused by the loader without harm is left to it.
//!
//! It proves form, not safety: live registers, words of the heap, frames of the stack and types are
//! believed as the compiler wrote them. A patch is code that runs.

mod code;
mod labels;
mod lambdas;
mod lines;
mod lists;
mod literals;
mod load;
mod memory;
mod parts;
pub(crate) mod rule;
mod tables;
mod terms;
mod types;

pub(super) use lambdas::{Lambda, read as read_lambdas};
pub use load::Load;
pub use load::Names;
pub use rule::{Breach, LoaderRule};

use crate::atoms::Atoms;
use crate::budget::Budget;
use crate::code::Code;
use crate::damage::{Damage, Failure};
use crate::iff::Chunks;
use crate::info::Attributes;
use crate::limits::{LoadLimits, MOST_UNPACKED};
use crate::opcodes;
use crate::tables::{FunctionEntry, ImportEntry};
use parts::Parts;

/// Judges an uncompressed module by the rules alone, and gives what it takes in a VM.
pub fn judge(bytes: &[u8], limits: &LoadLimits) -> Result<Load, Damage> {
    let unpacked = Budget::new(MOST_UNPACKED);
    match Verified::read(bytes, Bounds { limits, unpacked: &unpacked }) {
        Ok(verified) => Ok(verified.load),
        Err(Failure::Damage(damage)) => Err(damage),
        Err(Failure::OverBudget) => Err(Damage::OutOfMemory),
    }
}

/// How many operands the instruction with this opcode has, if it is known.
pub fn operands(opcode: u8) -> Option<u8> {
    opcodes::operands(opcode)
}

/// The name of the instruction with this opcode, if it is known.
pub fn instruction(opcode: u8) -> Option<&'static str> {
    opcodes::find(opcode).map(|op| op.name)
}

/// By what a module is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<'o> {
    pub(crate) limits: &'o LoadLimits,
    /// The bytes that literals may still unpack to.
    pub(crate) unpacked: &'o Budget,
}

/// A module that keeps all rules. There is no other way to make one than to read it, so that who
/// has one need not look again.
#[derive(Debug)]
pub(crate) struct Verified<'a> {
    parts: Parts<'a>,
    on_load: bool,
    load: Load,
    names: Names,
}

impl<'a> Verified<'a> {
    /// Reads an uncompressed file.
    pub(crate) fn read(bytes: &'a [u8], bounds: Bounds<'_>) -> Result<Self, Failure> {
        let mut names = Names::default();
        let parts = Parts::read(bytes, bounds, &mut names)?;
        let found = parts.check()?;
        parts.name_all(&mut names)?;
        let load = Load {
            atoms: names.atoms(),
            functions: names.functions(),
            literal_words: parts.literals.words,
            added_literals: parts.added(&found),
            memory: memory::of(&found, &parts, names.functions()),
        };
        parts.within(load, bounds.limits)?;
        Ok(Verified { parts, on_load: found.on_load, load, names })
    }

    /// Its chunks.
    pub(super) fn chunks(&self) -> &Chunks<'a> {
        &self.parts.chunks
    }

    pub(super) fn atoms(&self) -> &Atoms {
        &self.parts.atoms
    }

    pub(super) fn code(&self) -> Code<'a> {
        self.parts.code
    }

    pub(super) fn imports(&self) -> &[ImportEntry] {
        &self.parts.imports
    }

    pub(super) fn exports(&self) -> &[FunctionEntry] {
        &self.parts.exports
    }

    pub(super) fn lambdas(&self) -> &[Lambda] {
        &self.parts.lambdas
    }

    /// The table of literals, unpacked: a count, and as many terms, each with its size; nothing if
    /// there are none.
    pub(super) fn literals(&self) -> &[u8] {
        self.parts.literals.table()
    }

    pub(super) fn attributes(&self) -> &Attributes {
        &self.parts.attributes
    }

    /// The version of the compiler that made it.
    pub(super) fn compiler(&self) -> Option<&str> {
        self.parts.compiler.as_deref()
    }

    /// Whether code runs when it is loaded.
    pub(super) fn on_load(&self) -> bool {
        self.on_load
    }

    /// What it takes in a VM, and the names that it brings.
    pub(super) fn load(&self) -> (Load, &Names) {
        (self.load, &self.names)
    }
}
