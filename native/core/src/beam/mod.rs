//! Reads one BEAM file: what a module is called, what it offers and needs, and its MD5.
//!
//! Everything is checked that a loader takes on trust, see [`verify`]: nothing else of the core
//! reads a module. Names stay text: no atom is made.

mod atoms;
mod code;
mod damage;
pub(crate) mod functions;
pub mod funs;
mod gzip;
mod iff;
mod info;
mod md5;
mod module;
mod opcodes;
mod operands;
mod ops;
mod parsed;
mod reader;
mod role;
pub mod shadow;
mod tables;
pub mod verify;
mod writer;

pub use damage::Damage;
pub use module::{Chunk, Export, Import, Module};
pub use verify::{Breach, Load, LoaderRule};

pub(crate) use parsed::Parsed;

use std::borrow::Cow;

use crate::budget::Budget;
use crate::options::Options;
use verify::{Bounds, Verified};

/// What a file turned out to be.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Neither named nor written like a module.
    Other,
    /// A module under its own name.
    Module(Box<Module>),
    /// No module that can be loaded.
    Damaged(Damage),
    /// The limit on unpacked bytes was reached.
    OverBudget,
}

/// By what the files of an archive are read.
#[derive(Debug)]
pub(crate) struct Judge<'o> {
    options: &'o Options,
    /// The bytes that may still be made out of the archive.
    files: Budget,
    /// The bytes that literals may still unpack to. They are not kept.
    literals: Budget,
}

impl<'o> Judge<'o> {
    /// For an archive whose files have `declared` bytes.
    pub(crate) fn new(options: &'o Options, declared: u64) -> Self {
        let most = options.max_unpacked_bytes;
        let files = Budget::new(most.saturating_sub(declared));
        Judge { options, files, literals: Budget::new(most) }
    }

    /// Reads the file `bytes` found at `path`.
    pub(crate) fn read_file(&self, path: &str, bytes: &[u8]) -> Reading {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !name.ends_with(".beam") && !iff::is_beam(bytes) {
            return Reading::Other;
        }
        let module = match self.read(bytes) {
            Ok(module) => module,
            Err(Failure::Damage(damage)) => return Reading::Damaged(damage),
            Err(Failure::OverBudget) => return Reading::OverBudget,
        };
        if name.strip_suffix(".beam") != Some(module.name()) {
            let module = crate::text::printable(module.name().as_bytes());
            return Reading::Damaged(Damage::OtherName { module, file: name.to_owned() });
        }
        // The tables repeat names, so they can be much larger than the file they were read from.
        if !self.files.take(module.table_bytes()) {
            return Reading::OverBudget;
        }
        Reading::Module(Box::new(module))
    }

    fn read(&self, bytes: &[u8]) -> Result<Module, Failure> {
        let room = |size| self.files.take(size).then_some(()).ok_or(Failure::OverBudget);
        let plain = gzip::plain(bytes, room)?;
        let mut module = self.module(&plain)?;
        module.compressed = matches!(plain, Cow::Owned(_));
        Ok(module)
    }

    fn module(&self, bytes: &[u8]) -> Result<Module, Failure> {
        let bounds = Bounds { limits: &self.options.load, unpacked: &self.literals };
        let verified = Verified::read(bytes, bounds)?;
        Ok(Module::new(&verified, &self.options.significant_chunks)?)
    }
}

/// Why there is no module.
#[derive(Debug)]
pub(crate) enum Failure {
    Damage(Damage),
    OverBudget,
}

impl<D: Into<Damage>> From<D> for Failure {
    fn from(damage: D) -> Self {
        Failure::Damage(damage.into())
    }
}
