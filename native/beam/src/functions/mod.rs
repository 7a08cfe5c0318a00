//! The functions of a module, one by one: what each is made of, and a digest of its meaning.
//!
//! The digest does not depend on how labels, literals, atoms, strings and funs happen to be
//! numbered, nor on line numbers, so that it is the same in two builds of a module as long as the
//! function itself is. It goes by instructions: a change elsewhere in the module that makes the
//! compiler know more of the arguments may change it.

mod constants;
mod decode;
mod digest;
mod effects;
mod funs;
mod outline;
mod tables;
mod unread;

pub(crate) use digest::import_place;

use std::collections::{BTreeSet, HashMap};

use crate::atoms::{AtomId, Atoms};
use crate::code::Code;
use crate::digest::Short;
use crate::effort::Effort;
use crate::etf::{Canonical, Outline, StructForm};
use crate::iff::Chunks;
use decode::Bounds;
use digest::Digests;
pub(crate) use effects::is_pure;
pub use effects::{Effects, Together, effects};
pub use funs::{Fun, Renewal, renewal};
pub use outline::{Find, Found, makes_struct};
use tables::Tables;
pub use unread::Unread;

/// The first 16 bytes of a SHA-256.
pub type Digest = Short;

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    name: AtomId,
    /// Its number of arguments.
    pub arity: u8,
    /// The digest of its meaning.
    pub digest: Digest,
    /// The same without the names of functions that the compiler has made, whose numbers change with
    /// what stands elsewhere in the module; these functions are in `made`, by their places, in the
    /// order in which they are named.
    body: Digest,
    made: Vec<u32>,
    /// Functions of the same module that it calls or makes funs of, by their places. These and the
    /// following are sorted, each once.
    calls: Vec<u32>,
    /// Atoms it names, those of literals left out.
    atoms: Vec<AtomId>,
    /// Atoms it uses as keys of maps.
    keys: Vec<AtomId>,
    /// Functions of other modules that it calls, by their places among the imports.
    imports: Vec<u32>,
    /// Literals that it uses, by their places.
    literals: Vec<u32>,
    /// What it does that is no call by name.
    acts: Acts,
    /// Where its instructions stand.
    place: std::ops::Range<usize>,
}

/// What a function does by instructions of its own rather than by calls that have a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acts {
    /// It sends a message.
    pub sends: bool,
    /// It looks into its mailbox, or waits.
    pub receives: bool,
    /// It calls a function whose module or name is known only when it runs. One without arguments does not
    /// count, because Elixir's `map.field` is such a call too.
    pub applies: bool,
    /// It calls a fun that it has been given.
    pub calls_funs: bool,
}

impl Function {
    fn new(bounds: &Bounds) -> Self {
        Function {
            name: bounds.name,
            arity: bounds.arity,
            digest: Digest::default(),
            body: Digest::default(),
            made: Vec::new(),
            calls: Vec::new(),
            atoms: Vec::new(),
            keys: Vec::new(),
            imports: Vec::new(),
            literals: Vec::new(),
            acts: Acts::default(),
            place: bounds.place.clone(),
        }
    }

    /// Once all instructions are read.
    fn finish(&mut self, digest: Digest, body: Digest) {
        self.digest = digest;
        self.body = body;
        self.made.shrink_to_fit();
        once(&mut self.calls);
        once(&mut self.atoms);
        once(&mut self.keys);
        once(&mut self.imports);
        once(&mut self.literals);
    }

    /// How many bytes it takes.
    fn size(&self) -> usize {
        let numbers = self.calls.len() + self.imports.len() + self.literals.len() + self.made.len();
        size_of::<Self>() + 4 * (numbers + self.atoms.len() + self.keys.len())
    }

    /// The functions of the same module that it calls or makes funs of, by their places.
    pub fn calls(&self) -> impl Iterator<Item = usize> {
        self.calls.iter().map(|place| *place as usize)
    }

    /// What it does that is no call by name.
    pub fn acts(&self) -> Acts {
        self.acts
    }

    /// The literals that it uses, by their places among those of the module.
    pub fn literals(&self) -> impl Iterator<Item = usize> {
        self.literals.iter().map(|place| *place as usize)
    }
}

fn once<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
    list.shrink_to_fit();
}

/// A function of another module, as it is called.
pub type Call<'f> = crate::module::Import<'f>;

/// All functions of a module, in the order of the file.
#[derive(Debug)]
pub struct Functions<'a> {
    list: Vec<Function>,
    by_name: HashMap<(AtomId, u8), usize>,
    tables: Tables<'a>,
    code: Code<'a>,
}

impl<'a> Functions<'a> {
    /// Reads them out of an uncompressed file.
    pub fn read(bytes: &'a [u8], effort: &Effort) -> Result<Self, Unread> {
        let chunks = Chunks::read(bytes)?;
        let atoms = Atoms::read(&chunks)?;
        let code = Code::read(chunks.required(b"Code")?)?;
        let mut layout = decode::layout(&code, &atoms, effort)?;
        let bounds = std::mem::take(&mut layout.functions);
        let tables = Tables::read(&chunks, atoms, layout, &bounds, effort)?;
        let mut list = Vec::new();
        let mut digests = Digests::new(&code, &tables, effort);
        for one in &bounds {
            list.push(digests.function(one, list.len())?);
        }
        let mut by_name = HashMap::new();
        for (place, function) in list.iter().enumerate() {
            by_name.entry((function.name, function.arity)).or_insert(place);
        }
        Ok(Functions { list, by_name, tables, code })
    }

    /// The name of the module.
    pub fn module(&self) -> &str {
        self.tables.atoms.module()
    }

    /// The functions, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        self.list.iter()
    }

    /// The name of one of them.
    pub fn name(&self, function: &Function) -> &str {
        self.tables.atoms.text(function.name)
    }

    /// The place of a function in the order of the file.
    pub fn place(&self, name: &str, arity: u8) -> Option<usize> {
        let places = self.tables.ids(name).iter().filter_map(|id| self.by_name.get(&(*id, arity)));
        places.copied().min()
    }

    /// A function, if the module has it.
    pub fn get(&self, name: &str, arity: u8) -> Option<&Function> {
        self.list.get(self.place(name, arity)?)
    }

    /// The function and those of the module that it reaches, each once.
    pub fn reached<'f>(&'f self, from: &'f Function) -> Vec<&'f Function> {
        let mut seen = vec![false; self.list.len()];
        let mut found = vec![from];
        let mut waiting: Vec<usize> = from.calls().collect();
        while let Some(index) = waiting.pop() {
            let Some(function) = self.list.get(index) else { continue };
            let seen = seen.get_mut(index).is_some_and(|seen| std::mem::replace(seen, true));
            if !seen && !std::ptr::eq(function, from) {
                found.push(function);
                waiting.extend(function.calls());
            }
        }
        found
    }

    /// The functions of other modules that the function calls or makes funs of.
    pub fn external<'f>(&'f self, from: &'f Function) -> Vec<Call<'f>> {
        let atoms = &self.tables.atoms;
        let imports =
            from.imports.iter().filter_map(|index| self.tables.imports.get(*index as usize));
        let called = imports.map(|import| Call {
            module: atoms.text(import.module),
            function: atoms.text(import.function),
            arity: import.arity,
        });
        let captured = self.terms(from).flat_map(|literal| &literal.externals);
        let captured =
            captured.map(|(module, function, arity)| Call { module, function, arity: *arity });
        called.chain(captured).collect()
    }

    /// The modules of all external funs in literals of the module.
    pub fn captured_modules(&self) -> impl Iterator<Item = &str> {
        let captured = self.tables.literals.iter().flat_map(|literal| &literal.externals);
        captured.map(|(module, _, _)| module.as_str())
    }

    /// The literals of the function.
    fn terms<'f>(&'f self, of: &'f Function) -> impl Iterator<Item = &'f Canonical> {
        of.literals().filter_map(|place| self.tables.literals.get(place))
    }

    /// Whether the function names this atom outside of literals.
    pub fn names(&self, function: &Function, atom: &str) -> bool {
        let mut ids = self.tables.ids(atom).iter();
        ids.any(|id| function.atoms.binary_search(id).is_ok())
    }

    /// The atoms that the function names outside of literals.
    pub fn named<'f>(&'f self, function: &'f Function) -> impl Iterator<Item = &'f str> {
        function.atoms.iter().map(|id| self.tables.atoms.text(*id))
    }

    /// All atoms that the function names, those in literals too.
    pub fn atoms<'f>(&'f self, function: &'f Function) -> impl Iterator<Item = &'f str> {
        let terms = self.terms(function).flat_map(|term| &term.atoms);
        self.named(function).chain(terms.map(String::as_str))
    }

    /// Whether the function, or a literal of it, names this atom.
    pub fn mentions(&self, function: &Function, atom: &str) -> bool {
        self.names(function, atom) || self.terms(function).any(|term| term.atoms.contains(atom))
    }

    /// Whether the function works with maps that have this key, those in its literals too.
    pub fn has_key(&self, function: &Function, key: &str) -> bool {
        let mut ids = self.tables.ids(key).iter();
        ids.any(|id| function.keys.binary_search(id).is_ok())
            || self.terms(function).any(|term| term.keys.contains(key))
    }

    /// The structs in each literal of the module, in their order.
    pub fn literal_structs(&self) -> impl Iterator<Item = &[StructForm]> {
        self.tables.literals.iter().map(|literal| literal.structs.as_slice())
    }

    /// The structs in the literals of the function.
    pub fn structs<'f>(&'f self, of: &'f Function) -> impl Iterator<Item = &'f StructForm> {
        self.terms(of).flat_map(|literal| &literal.structs)
    }

    /// The outlines of the literals of the function.
    pub fn outlines<'f>(&'f self, from: &'f Function) -> impl Iterator<Item = &'f Outline> {
        self.terms(from).map(|literal| &literal.outline)
    }

    /// The atoms that the function gives to functions of another module, by their names, for one of
    /// the arguments, counted from 0, as far as they are loaded just before the call.
    pub fn given<'f>(
        &'f self,
        function: &Function,
        to: (&str, &[&str]),
        argument: u64,
    ) -> BTreeSet<&'f str> {
        constants::given(self, function, to, argument)
    }

    /// The outline of the literal that the function returns for this atom, where it does nothing but
    /// to choose among atoms.
    pub fn for_atom(&self, function: &Function, atom: &str) -> Option<&Outline> {
        constants::for_atom(self, function, atom)
    }

    /// Whether all that the function does is to return `{ok, ...}` with these of its arguments,
    /// counted from 0, as a `code_change` does that leaves the state as it is.
    pub fn gives_back(&self, function: &Function, arguments: &[u64]) -> bool {
        outline::gives_back(self, function, arguments) == Some(true)
    }
}

/// What a function may return, as far as that can be told without running it. What it calls in
/// other modules is looked for by `find`.
pub fn returns<'f, 'a>(
    function: Found<'f, 'a>,
    find: Find<'f, 'a>,
    effort: &'f Effort,
) -> Vec<Outline> {
    outline::Returns::new(find, effort).of(function)
}
