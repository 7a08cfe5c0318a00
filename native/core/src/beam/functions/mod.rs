//! The functions of a module, one by one: what each is made of, and a digest of its meaning.
//!
//! The digest does not depend on how labels, literals, atoms, strings and funs happen to be
//! numbered, nor on line numbers, so that it is the same in two builds of a module as long as the
//! function itself is. It goes by instructions: a change elsewhere in the module that makes the
//! compiler know more of the arguments may change it.

mod decode;
mod digest;
mod outline;
mod tables;

use std::collections::BTreeSet;

use super::atoms::{AtomId, Atoms};
use super::code::Code;
use super::damage::Damage;
use super::iff::Chunks;
use crate::budget::Budget;
use crate::etf::{MapForm, Outline};
use tables::Tables;

/// The first 16 bytes of a SHA-256.
pub(crate) type Digest = [u8; 16];

/// A function.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) arity: u8,
    pub(crate) digest: Digest,
    /// Functions of the same module that it calls or makes funs of, by their places.
    pub(crate) calls: BTreeSet<usize>,
    /// Atoms it names, those of literals left out.
    atoms: BTreeSet<AtomId>,
    /// Atoms it uses as keys of maps.
    keys: BTreeSet<AtomId>,
    /// Functions of other modules that it calls, by their places among the imports.
    imports: BTreeSet<usize>,
    /// Literals in the order in which it uses them.
    literals: Vec<usize>,
    /// Where its instructions stand.
    place: std::ops::Range<usize>,
}

/// A function of another module, as it is called.
pub(crate) type Call<'f> = super::module::Import<'f>;

/// All functions of a module, in the order of the file.
#[derive(Debug)]
pub(crate) struct Functions<'a> {
    list: Vec<Function>,
    tables: Tables<'a>,
    code: &'a [u8],
}

impl<'a> Functions<'a> {
    /// Reads them out of an uncompressed file; `None` if an instruction is unknown.
    pub(crate) fn read(bytes: &'a [u8], budget: &Budget) -> Result<Option<Self>, Damage> {
        let chunks = Chunks::read(bytes)?;
        let atoms = Atoms::read(&chunks)?;
        let code = Code::read(chunks.required(b"Code")?)?.instructions();
        let Some(layout) = decode::layout(code, &atoms) else { return Ok(None) };
        let tables = Tables::read(&chunks, atoms, &layout, budget)?;
        let mut list = Vec::new();
        for bounds in &layout.functions {
            match digest::function(code, bounds, list.len(), &tables) {
                Some(function) => list.push(function),
                None => return Ok(None),
            }
        }
        Ok(Some(Functions { list, tables, code }))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Function> {
        self.list.iter()
    }

    pub(crate) fn get(&self, name: &str, arity: u8) -> Option<&Function> {
        self.list.iter().find(|function| function.arity == arity && function.name == name)
    }

    /// The function and those of the module that it reaches, each once.
    pub(crate) fn reached<'f>(&'f self, from: &'f Function) -> Vec<&'f Function> {
        let mut seen = BTreeSet::new();
        let mut found = vec![from];
        let mut waiting: Vec<usize> = from.calls.iter().copied().collect();
        while let Some(index) = waiting.pop() {
            let Some(function) = self.list.get(index) else { continue };
            if seen.insert(index) && !std::ptr::eq(function, from) {
                found.push(function);
                waiting.extend(&function.calls);
            }
        }
        found
    }

    /// A digest of a function and of all it reaches in the module.
    pub(crate) fn deep_digest(&self, name: &str, arity: u8) -> Option<BTreeSet<Digest>> {
        let function = self.get(name, arity)?;
        Some(self.reached(function).into_iter().map(|reached| reached.digest).collect())
    }

    /// The functions of other modules that the function calls or makes funs of.
    pub(crate) fn external<'f>(&'f self, from: &'f Function) -> Vec<Call<'f>> {
        let atoms = &self.tables.atoms;
        let imports = from.imports.iter().filter_map(|index| self.tables.imports.get(*index));
        let called = imports.map(|import| Call {
            module: atoms.text(import.module),
            function: atoms.text(import.function),
            arity: import.arity,
        });
        let terms = from.literals.iter().filter_map(|index| self.tables.literals.get(*index));
        let captured = terms.flat_map(|literal| &literal.externals);
        let captured =
            captured.map(|(module, function, arity)| Call { module, function, arity: *arity });
        called.chain(captured).collect()
    }

    /// Whether the function names this atom outside of literals.
    pub(crate) fn names(&self, function: &Function, atom: &str) -> bool {
        function.atoms.iter().any(|id| self.tables.atoms.text(*id) == atom)
    }

    /// All atoms that the function names, those in literals too.
    pub(crate) fn atoms<'f>(&'f self, function: &'f Function) -> impl Iterator<Item = &'f str> {
        let named = function.atoms.iter().map(|id| self.tables.atoms.text(*id));
        let terms = function.literals.iter().filter_map(|index| self.tables.literals.get(*index));
        named.chain(terms.flat_map(|term| &term.atoms).map(String::as_str))
    }

    /// The keys of maps that the function works with, those of literals too.
    pub(crate) fn keys<'f>(&'f self, function: &'f Function) -> BTreeSet<&'f str> {
        let named = function.keys.iter().map(|id| self.tables.atoms.text(*id));
        let maps = self.maps(function).flat_map(|map| &map.fields);
        named.chain(maps.map(|(key, _)| key.as_str())).collect()
    }

    /// The maps in the literals of the function.
    pub(crate) fn maps<'f>(&'f self, function: &'f Function) -> impl Iterator<Item = &'f MapForm> {
        let terms = function.literals.iter().filter_map(|index| self.tables.literals.get(*index));
        terms.flat_map(|literal| &literal.maps)
    }

    /// The outlines of the literals of the function, in the order of their use.
    pub(crate) fn outlines<'f>(&'f self, from: &'f Function) -> impl Iterator<Item = &'f Outline> {
        let terms = from.literals.iter().filter_map(|index| self.tables.literals.get(*index));
        terms.map(|literal| &literal.outline)
    }

    /// Whether all that the function does is to return `{ok, ...}` with arguments from the second
    /// on, as a `code_change` does that leaves the state as it is.
    pub(crate) fn gives_back(&self, function: &Function) -> bool {
        outline::gives_back(self, function) == Some(true)
    }

    /// What the function may return, as far as that can be told without running it.
    pub(crate) fn returns(&self, function: &Function) -> Vec<Outline> {
        outline::Returns::new(self).of(function)
    }
}
