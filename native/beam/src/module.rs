//! What was read of a module.

use crate::atoms::Atoms;
use crate::chunk::{Chunk, ChunkId};
use crate::damage::Damage;
use crate::digest::Md5Sum;
use crate::tables::{FunctionEntry, ImportEntry};
use crate::verify::{Load, Names, Verified};
use crate::{md5, opcodes};

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// What `code:module_md5/1` gives. It does not cover attributes, so that two versions which
    /// differ only in `vsn` have the same.
    pub md5: Md5Sum,
    /// The values of the attribute `vsn`, as an encoded term.
    pub vsn: Option<Vec<u8>>,
    /// All attributes, as an encoded term.
    pub attributes: Vec<u8>,
    /// The modules in its attributes `behaviour` and `behavior`.
    pub behaviours: Vec<String>,
    /// Its chunks, in the order of the file.
    pub chunks: Vec<Chunk>,
    /// Whether code runs when it is loaded.
    pub on_load: bool,
    /// Whether it imports `erlang:load_nif/2`.
    pub load_nif: bool,
    /// The first OTP release known to load it, as far as that shows.
    pub needs_otp: Option<u32>,
    /// The version of the compiler application that made it.
    pub compiler: Option<String>,
    /// Whether the file is compressed with gzip.
    pub compressed: bool,
    /// What it takes in the VM that loads it.
    pub load: Load,
    atoms: Atoms,
    exports: Vec<FunctionEntry>,
    imports: Vec<ImportEntry>,
    names: Names,
}

/// A function a module offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export<'m> {
    /// Its name.
    pub function: &'m str,
    /// Its number of arguments.
    pub arity: u8,
}

/// A function of another module that a module calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Import<'m> {
    /// The other module.
    pub module: &'m str,
    /// The function's name.
    pub function: &'m str,
    /// Its number of arguments.
    pub arity: u8,
}

impl Module {
    /// What is told of a module that keeps all rules.
    pub(crate) fn new(verified: &Verified<'_>, significant: &[ChunkId]) -> Result<Self, Damage> {
        let (chunks, atoms) = (verified.chunks(), verified.atoms());
        let attributes = verified.attributes();
        let load_nif = verified.imports().iter().any(|import| {
            atoms.text(import.module) == "erlang"
                && atoms.text(import.function) == "load_nif"
                && import.arity == 2
        });
        let (load, names) = verified.load();
        Ok(Module {
            md5: md5::of_module(chunks, significant)?,
            vsn: attributes.vsn.clone(),
            attributes: attributes.all.clone(),
            behaviours: attributes.behaviours.clone(),
            chunks: chunks.sizes(),
            on_load: verified.on_load(),
            load_nif,
            needs_otp: opcodes::release_of(verified.code().max_opcode, atoms.is_long_format()),
            compiler: verified.compiler().map(str::to_owned),
            compressed: false,
            load,
            atoms: atoms.clone(),
            exports: verified.exports().to_vec(),
            imports: verified.imports().to_vec(),
            names: names.clone(),
        })
    }

    /// The names of the atoms and functions that it brings to a VM.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.atoms.module()
    }

    /// The functions it offers, in the order of the file.
    pub fn exports(&self) -> impl ExactSizeIterator<Item = Export<'_>> {
        self.exports.iter().map(|export| Export {
            function: self.atoms.text(export.function),
            arity: export.arity,
        })
    }

    /// The functions of other modules it calls, in the order of the file.
    pub fn imports(&self) -> impl ExactSizeIterator<Item = Import<'_>> {
        self.imports.iter().map(|import| Import {
            module: self.atoms.text(import.module),
            function: self.atoms.text(import.function),
            arity: import.arity,
        })
    }

    /// All atoms it names, but for those in literals.
    pub fn atoms(&self) -> impl Iterator<Item = &str> {
        self.atoms.names()
    }

    /// Whether it offers a function.
    pub fn offers(&self, function: &str, arity: u8) -> bool {
        self.exports().any(|export| export.arity == arity && export.function == function)
    }

    /// About how many bytes its tables take when their names are written out.
    pub(crate) fn table_bytes(&self) -> u64 {
        const EACH: usize = 16;
        let exports: usize = self.exports().map(|export| export.function.len() + EACH).sum();
        let imports: usize =
            self.imports().map(|import| import.module.len() + import.function.len() + EACH).sum();
        (exports + imports + self.attributes.len()) as u64
    }
}
