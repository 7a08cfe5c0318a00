//! Reads one BEAM file: what a module is called, what it offers and needs, and its MD5.
//!
//! Everything is checked that can be without running it; the VM's own loader remains the judge
//! of the code itself. Names stay text: no atom is made.

mod atoms;
mod code;
mod damage;
pub(crate) mod functions;
mod gzip;
mod iff;
mod info;
mod md5;
mod module;
mod opcodes;
mod operands;
mod parsed;
mod reader;
pub mod shadow;
mod tables;
mod writer;

pub use damage::Damage;
pub use module::{Chunk, Export, Import, Module};

pub(crate) use parsed::Parsed;

use crate::budget::Budget;
use crate::options::ChunkId;
use atoms::Atoms;
use code::Code;
use iff::Chunks;

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

/// Reads the file `bytes` found at `path`.
pub(crate) fn read_file(
    path: &str,
    bytes: &[u8],
    significant: &[ChunkId],
    budget: &Budget,
) -> Reading {
    let name = path.rsplit('/').next().unwrap_or(path);
    if !name.ends_with(".beam") && !iff::is_beam(bytes) {
        return Reading::Other;
    }
    let module = match read(bytes, significant, budget) {
        Ok(module) => module,
        Err(Failure::Damage(damage)) => return Reading::Damaged(damage),
        Err(Failure::OverBudget) => return Reading::OverBudget,
    };
    if name.strip_suffix(".beam") != Some(module.name()) {
        let module = crate::text::printable(module.name().as_bytes());
        return Reading::Damaged(Damage::OtherName { module, file: name.to_owned() });
    }
    // The tables repeat names, so they can be much larger than the file they were read from.
    if !budget.take(module.table_bytes()) {
        return Reading::OverBudget;
    }
    Reading::Module(Box::new(module))
}

/// Why there is no module.
enum Failure {
    Damage(Damage),
    OverBudget,
}

impl<D: Into<Damage>> From<D> for Failure {
    fn from(damage: D) -> Self {
        Failure::Damage(damage.into())
    }
}

fn read(bytes: &[u8], significant: &[ChunkId], budget: &Budget) -> Result<Module, Failure> {
    if !gzip::is_gzip(bytes) {
        return Ok(parse(bytes, significant)?);
    }
    let size = gzip::claimed_size(bytes).ok_or(Damage::Gzip)?;
    if !budget.take(size.into()) {
        return Err(Failure::OverBudget);
    }
    let mut module = parse(&gzip::unpack(bytes, size)?, significant)?;
    module.compressed = true;
    Ok(module)
}

/// Reads an uncompressed BEAM file.
fn parse(bytes: &[u8], significant: &[ChunkId]) -> Result<Module, Damage> {
    let chunks = Chunks::read(bytes)?;
    let atoms = Atoms::read(&chunks)?;
    let code = Code::read(chunks.required(b"Code")?)?;
    chunks.required(b"StrT")?;
    let imports = tables::imports(chunks.required(b"ImpT")?, &atoms)?;
    let exports = tables::functions(*b"ExpT", chunks.required(b"ExpT")?, &atoms, &code)?;
    if let Some(locals) = chunks.get(b"LocT") {
        tables::functions(*b"LocT", locals, &atoms, &code)?;
    }
    let attributes = info::Attributes::read(chunks.get(b"Attr"))?;
    let compiler = info::compiler_version(chunks.get(b"CInf"))?;
    let load_nif = imports.iter().any(|import| {
        atoms.text(import.module) == "erlang"
            && atoms.text(import.function) == "load_nif"
            && import.arity == 2
    });
    Ok(Module {
        md5: md5::of_module(&chunks, significant)?,
        vsn: attributes.vsn,
        attributes: attributes.all,
        behaviours: attributes.behaviours,
        chunks: chunks.sizes(),
        on_load: code.has_on_load(),
        load_nif,
        needs_otp: opcodes::release_of(code.max_opcode, atoms.is_long_format()),
        compiler,
        compressed: false,
        atoms,
        exports,
        imports,
    })
}
