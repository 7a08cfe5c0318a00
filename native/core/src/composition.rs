//! What an accepted archive holds.

use std::borrow::Cow;

use crate::manifest::{Declared, Signature};
use hot_patch_beam::digest::Sha256Sum;
use hot_patch_beam::{Load, Module};

/// An accepted archive: what was validated is what is here, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composition<'a> {
    /// The SHA-256 of the archive itself.
    pub sha256: Sha256Sum,
    /// The size of the archive itself, in bytes.
    pub size: u64,
    /// The files, in the order of the archive's directory. Folders are not listed, nor are the
    /// manifest and its signature.
    pub files: Vec<File<'a>>,
    /// What its modules take together in the VM that loads them.
    pub load: Load,
    /// Files that are left out, because they are only what the Mac adds to an archive.
    pub left_out: Vec<&'a str>,
    /// What the one who built it says of it; it fits the files.
    pub manifest: Option<Box<Declared>>,
    /// By whom the manifest claims to be signed. It is not verified.
    pub signature: Option<Signature>,
}

/// One file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its path: relative, with slashes, safe to join to a folder.
    pub path: &'a str,
    /// Its CRC-32, verified.
    pub crc32: u32,
    /// Its SHA-256.
    pub sha256: Sha256Sum,
    /// Its content; borrowed from the archive where it was stored there as it is.
    pub bytes: Cow<'a, [u8]>,
    /// Whether the archive says that its owner may run it.
    pub executable: bool,
    /// What it is.
    pub kind: Kind,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither named nor written like an Erlang module.
    Other,
    /// An Erlang module.
    Beam(Box<Module>),
    /// Named or written like an Erlang module, but not one that can be loaded under its name.
    Damaged(Fault),
}

/// Why a file is no module that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The name of the rule that it breaks, in `snake_case`; it is stable.
    pub rule: &'static str,
    /// What is wrong, as a sentence for people.
    pub reason: String,
}
