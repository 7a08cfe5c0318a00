//! What a file is.

use std::borrow::Cow;

use crate::budget::Budget;
use crate::chunk::ChunkId;
use crate::damage::{Damage, Failure};
use crate::iff;
use crate::limits::LoadLimits;
use crate::module::Module;
use crate::verify::{Bounds, Verified};
use crate::{gzip, text};

/// What a file turned out to be.
#[derive(Debug)]
pub enum Reading {
    /// Neither named nor written like a module.
    Other,
    /// A module under its own name.
    Module(Box<Module>),
    /// No module that can be loaded.
    Damaged(Damage),
    /// The limit on unpacked bytes was reached.
    OverBudget,
}

/// By what files that come together are read.
#[derive(Debug)]
pub struct Judge<'o> {
    limits: &'o LoadLimits,
    significant: &'o [ChunkId],
    /// The bytes that may still be made out of the files.
    files: Budget,
    /// The bytes that literals may still unpack to. They are not kept.
    literals: Budget,
}

impl<'o> Judge<'o> {
    /// By these limits, with the MD5 over these chunks. Of the files no more than `most` bytes are
    /// made, of which the files themselves take `declared`.
    pub fn new(
        limits: &'o LoadLimits,
        significant: &'o [ChunkId],
        most: u64,
        declared: u64,
    ) -> Self {
        let files = Budget::new(most.saturating_sub(declared));
        Judge { limits, significant, files, literals: Budget::new(most) }
    }

    /// Reads the file `bytes` found at `path`.
    pub fn read_file(&self, path: &str, bytes: &[u8]) -> Reading {
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
            let module = text::printable(module.name().as_bytes());
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
        let bounds = Bounds { limits: self.limits, unpacked: &self.literals };
        let verified = Verified::read(bytes, bounds)?;
        Ok(Module::new(&verified, self.significant)?)
    }
}
