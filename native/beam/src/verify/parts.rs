//! The parts of a module that a loader reads, and whether they fit each other.

use std::collections::HashSet;

use super::code::{self, Found, Named};
use super::labels::Labels;
use super::lambdas::{self, Lambda};
use super::lines::{self, Lines};
use super::lists::Words;
use super::literals::Literals;
use super::load::{Load, Names};
use super::rule::{Breach, LoaderRule};
use super::{Bounds, tables, terms, types};
use crate::atoms::Atoms;
use crate::chunk::ChunkId;
use crate::code::Code;
use crate::damage::{Damage, Failure};
use crate::etf::{Scale, Weighed as _};
use crate::iff::Chunks;
use crate::info::{self, Attributes};
use crate::limits::LoadLimits;
use crate::tables::{self as functions, FunctionEntry, ImportEntry};

/// The parts, each read to its end.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) chunks: Chunks<'a>,
    pub(super) atoms: Atoms,
    pub(super) code: Code<'a>,
    pub(super) strings: &'a [u8],
    pub(super) imports: Vec<ImportEntry>,
    pub(super) exports: Vec<FunctionEntry>,
    pub(super) locals: Vec<FunctionEntry>,
    pub(super) lambdas: Vec<Lambda>,
    pub(super) literals: Literals<'a>,
    pub(super) lines: Option<Lines>,
    pub(super) types: Option<u64>,
    pub(super) debug: Option<u64>,
    pub(super) attributes: Attributes,
    pub(super) compiler: Option<String>,
}

impl<'a> Parts<'a> {
    /// Reads a file; the names in its literals go to `names`.
    pub(super) fn read(
        bytes: &'a [u8],
        bounds: Bounds<'_>,
        names: &mut Names,
    ) -> Result<Self, Failure> {
        let chunks = Chunks::read(bytes)?;
        let atoms = Atoms::read(&chunks)?;
        let locals = chunks.get(b"LocT").unwrap_or(&[0; 4]);
        Ok(Parts {
            code: Code::read(chunks.required(b"Code")?)?,
            strings: chunks.required(b"StrT")?,
            imports: functions::imports(chunks.required(b"ImpT")?, &atoms)?,
            exports: functions::functions(*b"ExpT", chunks.required(b"ExpT")?, &atoms)?,
            locals: functions::functions(*b"LocT", locals, &atoms)?,
            lambdas: lambdas::read(chunks.get(b"FunT"))?,
            literals: Literals::read(chunks.get(b"LitT"), bounds, names)?,
            lines: lines::read(chunks.get(b"Line"))?,
            types: types::read(chunks.get(b"Type"))?,
            debug: tables::debug_count(chunks.get(b"DbgB"))?,
            attributes: Attributes::read(chunks.get(b"Attr"))?,
            compiler: info::compiler_version(chunks.get(b"CInf"))?,
            chunks,
            atoms,
        })
    }

    /// Checks the code, and the tables against it.
    pub(super) fn check(&self) -> Result<Found, Breach> {
        let words = Words::new(&self.atoms);
        let free: Vec<u8> = self.lambdas.iter().map(|lambda| lambda.free).collect();
        let named = Named {
            atoms: self.atoms.len(),
            words: &words,
            imports: &self.imports,
            free: &free,
            literals: self.literals.count,
            strings: self.strings.len() as u64,
            types: self.types,
            lines: self.lines.map(|lines| lines.items),
            debug: self.debug,
        };
        let found = code::check(&self.code, &named)?;
        distinct(&found.labels, &self.atoms)?;
        if self.lines.is_some_and(|lines| lines.instructions > found.lines) {
            return Err(Breach::of(b"Line", LoaderRule::LineCount));
        }
        lambdas::check(&self.lambdas, &found)?;
        entries(b"ExpT", &self.exports, &found.labels)?;
        entries(b"LocT", &self.locals, &found.labels)?;
        let chunk = |id| self.chunks.get(id).filter(|chunk| !chunk.is_empty());
        let debug = self.debug.and_then(|_| chunk(b"DbgB"));
        debug.map_or(Ok(()), |chunk| tables::debug(chunk, &named))?;
        chunk(b"Recs").map_or(Ok(()), |chunk| tables::records(chunk, &named))?;
        chunk(b"Meta").map_or(Ok(()), terms::meta)?;
        Ok(found)
    }

    /// Adds the names that do not stand in literals.
    pub(super) fn name_all(&self, names: &mut Names) -> Result<(), Damage> {
        self.atoms.names().for_each(|name| names.atom(name));
        for import in &self.imports {
            let [module, name] = [import.module, import.function].map(|id| self.atoms.text(id));
            names.function(module, name, import.arity);
        }
        for export in &self.exports {
            let [module, name] = [self.atoms.module(), self.atoms.text(export.function)];
            names.function(module, name, export.arity);
        }
        for id in [b"Attr", b"CInf"] {
            let Some(chunk) = self.chunks.get(id).filter(|chunk| !chunk.is_empty()) else {
                continue;
            };
            let malformed = |_| Damage::Malformed { chunk: *id, what: "it is no plain term" };
            Scale::new(info::LIMITS.depth).weigh(chunk, names).map_err(malformed)?;
        }
        names.settle();
        Ok(())
    }

    /// The literals that the loader makes: file names, large integers, sets of keys.
    pub(super) fn added(&self, found: &Found) -> u64 {
        found.added + self.lines.map_or(0, |lines| lines.names)
    }

    /// Whether what the module takes is within the limits.
    pub(super) fn within(&self, load: Load, limits: &LoadLimits) -> Result<(), Breach> {
        let added = u64::from(limits.added_literals);
        let functions = u64::from(limits.module_functions);
        let rules: [(&ChunkId, _, _); 4] = [
            (b"AtU8", load.atoms > limits.module_atoms.into(), LoaderRule::ModuleAtoms),
            (b"ImpT", load.functions > functions, LoaderRule::ModuleFunctions),
            (b"Code", load.added_literals > added, LoaderRule::ModuleAdded),
            (b"Code", load.memory > limits.module_memory, LoaderRule::ModuleMemory),
        ];
        let broken = rules.iter().find(|(_, is_broken, _)| *is_broken);
        broken.map_or(Ok(()), |(chunk, _, rule)| Err(Breach::of(chunk, *rule)))
    }
}

/// Checks that no function is there twice, by its name as text: a table of atoms may have one twice.
/// The loader takes the last, and who compares modules might take another.
fn distinct(labels: &Labels, atoms: &Atoms) -> Result<(), Breach> {
    let mut seen = HashSet::with_capacity(labels.functions().len());
    for function in labels.functions() {
        let name = atoms.id(function.name).map(|id| atoms.text(id));
        if !seen.insert((name, function.arity)) {
            return Err(Breach::of(b"Code", LoaderRule::CodeFunctionTwice));
        }
    }
    Ok(())
}

/// Checks that each entry of a table is of the function at its label, and none there twice.
fn entries(id: &ChunkId, list: &[FunctionEntry], labels: &Labels) -> Result<(), Breach> {
    for (place, entry) in list.iter().enumerate() {
        let function = labels.function_at(entry.label);
        let fits = function.is_some_and(|function| {
            function.name == entry.function.place() && function.arity == entry.arity
        });
        if !fits {
            return Err(Breach::of(id, LoaderRule::FunctionEntry).at(place));
        }
    }
    let mut labels: Vec<u32> = list.iter().map(|entry| entry.label).collect();
    labels.sort_unstable();
    match labels.is_sorted_by(|one, other| one < other) {
        true => Ok(()),
        false => Err(Breach::of(id, LoaderRule::FunctionTwice)),
    }
}
