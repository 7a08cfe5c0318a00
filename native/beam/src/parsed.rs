//! A module together with the file it was read from.

use std::borrow::Cow;

use crate::budget::Budget;
use crate::chunk::ChunkId;
use crate::damage::Damage;
use crate::damage::Failure;
use crate::effort::Effort;
use crate::functions::{Functions, Unread};
use crate::gzip;
use crate::limits::{LoadLimits, MOST_UNPACKED};
use crate::module::Module;
use crate::opcodes;
use crate::verify::LoaderRule;
use crate::verify::{Bounds, Verified};

/// What two versions of a module are compared by: all that the releases we know hash.
const SIGNIFICANT: [ChunkId; 11] = [
    *b"Atom", *b"AtU8", *b"Code", *b"StrT", *b"ImpT", *b"ExpT", *b"FunT", *b"LitT", *b"Meta",
    *b"Recs", *b"DbgB",
];

/// A module and its uncompressed file.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// What was read of it.
    pub module: Module,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Parsed<'a> {
    /// Reads a file, packed or not. It must keep the rules of the loader.
    pub fn read(bytes: &'a [u8], effort: &Effort) -> Result<Self, Unread> {
        effort.work(1)?;
        let bytes = unpacked(bytes, effort)?;
        let module = module(&bytes)?;
        effort.memory(module.table_bytes())?;
        Ok(Parsed { module, bytes })
    }

    /// Its functions.
    pub fn functions(&self, effort: &Effort) -> Result<Functions<'_>, Unread> {
        Functions::read(&self.bytes, effort)
    }

    /// Whether nothing differs that the VM tells versions apart by.
    pub fn is_same(&self, other: &Self) -> bool {
        self.module.md5 == other.module.md5 && self.module.vsn == other.module.vsn
    }
}

/// The module, if it keeps the rules of the loader. What its literals unpack to is not kept.
fn module(bytes: &[u8]) -> Result<Module, Unread> {
    let literals = Budget::new(MOST_UNPACKED);
    let bounds = Bounds { limits: &LoadLimits::NONE, unpacked: &literals };
    match Verified::read(bytes, bounds) {
        Ok(verified) => Ok(Module::new(&verified, &SIGNIFICANT)?),
        Err(Failure::Damage(damage)) => Err(newer(&damage).unwrap_or(Unread::Damaged(damage))),
        Err(Failure::OverBudget) => Err(Unread::Exhausted),
    }
}

/// An instruction beyond those that are known here is that of a newer OTP.
fn newer(damage: &Damage) -> Option<Unread> {
    let Damage::Breach(breach) = damage else { return None };
    let opcode = breach.opcode.filter(|opcode| opcodes::is_newer(*opcode))?.into();
    (breach.rule == LoaderRule::CodeUnknown).then_some(Unread::Newer { opcode })
}

fn unpacked<'a>(bytes: &'a [u8], effort: &Effort) -> Result<Cow<'a, [u8]>, Unread> {
    gzip::plain(bytes, |size| Ok(effort.memory(size)?))
}
