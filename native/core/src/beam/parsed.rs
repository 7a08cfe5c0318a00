//! A module together with the file it was read from.

use std::borrow::Cow;

use super::damage::Damage;
use super::functions::Functions;
use super::verify::{Bounds, Verified};
use super::{Failure, Module, gzip};
use crate::budget::Budget;
use crate::options::{ChunkId, LoadLimits};

/// What two versions of a module are compared by: all that the releases we know hash.
const SIGNIFICANT: [ChunkId; 11] = [
    *b"Atom", *b"AtU8", *b"Code", *b"StrT", *b"ImpT", *b"ExpT", *b"FunT", *b"LitT", *b"Meta",
    *b"Recs", *b"DbgB",
];

/// A module and its uncompressed file.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) module: Module,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Parsed<'a> {
    pub(crate) fn read(bytes: &'a [u8], budget: &Budget) -> Result<Self, Damage> {
        let bytes = unpacked(bytes, budget)?;
        let module = module(&bytes, budget)?;
        if budget.take(module.table_bytes()) {
            Ok(Parsed { module, bytes })
        } else {
            Err(Damage::OutOfMemory)
        }
    }

    /// Its functions; `None` if it has instructions that are unknown here.
    pub(crate) fn functions(&self, budget: &Budget) -> Result<Option<Functions<'_>>, Damage> {
        Functions::read(&self.bytes, budget)
    }

    /// Whether nothing differs that the VM tells versions apart by.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.module.md5 == other.module.md5 && self.module.vsn == other.module.vsn
    }
}

fn module(bytes: &[u8], budget: &Budget) -> Result<Module, Damage> {
    let bounds = Bounds { limits: &LoadLimits::default(), unpacked: budget };
    match Verified::read(bytes, bounds) {
        Ok(verified) => Module::new(&verified, &SIGNIFICANT),
        Err(Failure::Damage(damage)) => Err(damage),
        Err(Failure::OverBudget) => Err(Damage::OutOfMemory),
    }
}

fn unpacked<'a>(bytes: &'a [u8], budget: &Budget) -> Result<Cow<'a, [u8]>, Damage> {
    if !gzip::is_gzip(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let size = gzip::claimed_size(bytes).ok_or(Damage::Gzip)?;
    if !budget.take(size.into()) {
        return Err(Damage::OutOfMemory);
    }
    Ok(Cow::Owned(gzip::unpack(bytes, size)?))
}
