//! The modules before and after a change.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::finding::{Finding, Kind};
use super::role::{self, Role};
use super::{Request, text};
use crate::beam::functions::{Function, Functions};
use crate::beam::{Damage, Parsed};
use crate::budget::Budget;
use crate::workers;

/// What was read.
pub(super) struct Sources<'a> {
    before: Vec<Parsed<'a>>,
    after: Vec<Parsed<'a>>,
    deleted: BTreeSet<String>,
    compiled_with: &'a [(&'a str, &'a str)],
    down: bool,
    unreadable: Vec<Damage>,
}

impl<'a> Sources<'a> {
    /// Reads all files. Of those before the change, what cannot be read is left out.
    pub(super) fn read(request: &Request<'a>, budget: &Budget) -> Self {
        let before: Vec<Parsed<'_>> = parse(request.before, budget).into_iter().flatten().collect();
        let (mut after, mut unreadable) = (Vec::<Parsed<'_>>::new(), Vec::new());
        for outcome in parse(request.after, budget) {
            match outcome {
                Ok(parsed) => after.push(parsed),
                Err(damage) => unreadable.push(damage),
            }
        }
        let mut deleted: BTreeSet<String> =
            request.deleted.iter().map(|name| (*name).to_owned()).collect();
        if request.whole {
            let names: BTreeSet<&str> = after.iter().map(|one| one.module.name()).collect();
            let all = before.iter().map(|parsed| parsed.module.name());
            deleted.extend(all.filter(|name| !names.contains(name)).map(str::to_owned));
        }
        let Request { compiled_with, down, .. } = *request;
        Sources { before, after, deleted, compiled_with, down, unreadable }
    }
}

fn parse<'a>(files: &[&'a [u8]], budget: &Budget) -> Vec<Result<Parsed<'a>, Damage>> {
    let workers = workers::worth(files.iter().map(|file| file.len() / 4).sum());
    let read = |(): &mut (), file: &&'a [u8]| Ok::<_, ()>(Parsed::read(file, budget));
    let outcome = workers::in_order(workers, files, || (), || (), read);
    outcome.map_or_else(|()| Vec::new(), |((), parsed)| parsed)
}

/// One version of a module.
pub(super) struct Version<'s> {
    pub(super) parsed: &'s Parsed<'s>,
    pub(super) roles: Vec<Role>,
    functions: OnceCell<Option<Functions<'s>>>,
    budget: &'s Budget,
}

impl<'s> Version<'s> {
    fn new(parsed: &'s Parsed<'s>, budget: &'s Budget) -> Self {
        let roles = role::roles(&parsed.module);
        Version { parsed, roles, functions: OnceCell::new(), budget }
    }

    pub(super) fn name(&self) -> &'s str {
        self.parsed.module.name()
    }

    pub(super) fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Its functions, read when they are asked for; `None` if they cannot be.
    pub(super) fn functions(&self) -> Option<&Functions<'s>> {
        let read = || self.parsed.functions(self.budget).ok().flatten();
        self.functions.get_or_init(read).as_ref()
    }

    pub(super) fn function(&self, name: &str, arity: u8) -> Option<(&Functions<'s>, &Function)> {
        let functions = self.functions()?;
        Some((functions, functions.get(name, arity)?))
    }

    /// Whether an atom is in its table. Those that are only in literals are not.
    pub(super) fn has_atom(&self, atom: &str) -> bool {
        self.parsed.module.atoms().any(|other| other == atom)
    }

    /// Whether it has literals, whose atoms are in no table.
    pub(super) fn has_literals(&self) -> bool {
        self.parsed.module.chunks.iter().any(|chunk| chunk.id == *b"LitT")
    }

    /// Whether it calls a module by name.
    pub(super) fn calls(&self, module: &str) -> bool {
        self.parsed.module.imports().any(|import| import.module == module)
    }

    /// The modules that it calls by name or makes external funs of, itself left out.
    pub(super) fn called_modules(&self) -> BTreeSet<&str> {
        let imported = self.parsed.module.imports().map(|import| import.module);
        let functions = self.functions().into_iter();
        let captured = functions.flat_map(|functions| {
            functions.iter().flat_map(|function| functions.external(function))
        });
        let called: BTreeSet<&str> = imported.chain(captured.map(|call| call.module)).collect();
        called.into_iter().filter(|module| *module != self.name()).collect()
    }
}

/// All modules, and what becomes of them.
pub(super) struct System<'s> {
    /// The modules of the change that are new, other, or go, by name.
    pub(super) changes: Vec<Change<'s>>,
    /// The modules that stay as they are.
    pub(super) outside: BTreeMap<&'s str, Version<'s>>,
    /// Modules of the change that are the same as before.
    pub(super) unchanged: Vec<&'s str>,
    pub(super) compiled_with: &'s [(&'s str, &'s str)],
    /// Whether the change leads to an older version.
    pub(super) down: bool,
    unreadable: &'s [Damage],
}

impl<'s> System<'s> {
    pub(super) fn new(sources: &'s Sources<'s>, budget: &'s Budget) -> Self {
        let mut before: BTreeMap<&str, &Parsed<'_>> =
            sources.before.iter().map(|parsed| (parsed.module.name(), parsed)).collect();
        let mut changes = BTreeMap::new();
        let mut unchanged = Vec::new();
        for new in &sources.after {
            let name = new.module.name();
            match before.get(name) {
                Some(old) if old.is_same(new) => unchanged.push(name),
                _ => {
                    let old = before.remove(name).map(|old| Version::new(old, budget));
                    let new = Some(Version::new(new, budget));
                    changes.insert(name, Change { name, old, new });
                }
            }
        }
        for name in &sources.deleted {
            if let Some(old) = before.remove(name.as_str()) {
                let name = old.module.name();
                let old = Some(Version::new(old, budget));
                changes.insert(name, Change { name, old, new: None });
            }
        }
        let outside = before.into_iter().map(|(name, one)| (name, Version::new(one, budget)));
        System {
            outside: outside.collect(),
            changes: changes.into_values().collect(),
            unchanged,
            compiled_with: sources.compiled_with,
            down: sources.down,
            unreadable: &sources.unreadable,
        }
    }

    /// The change of a module.
    pub(super) fn change(&self, module: &str) -> Option<&Change<'s>> {
        let place = self.changes.binary_search_by(|change| change.name.cmp(module)).ok()?;
        self.changes.get(place)
    }

    /// The module as it is after the change.
    pub(super) fn now(&self, module: &str) -> Option<&Version<'s>> {
        match self.change(module) {
            Some(change) => change.new.as_ref(),
            None => self.outside.get(module),
        }
    }

    /// All modules as they are after the change.
    pub(super) fn all_now(&self) -> impl Iterator<Item = &Version<'s>> {
        self.changes.iter().filter_map(|change| change.new.as_ref()).chain(self.outside.values())
    }

    /// The functions of modules outside that call a function, as they are read.
    pub(super) fn outside_callers(&self, module: &str, function: &str, arity: u8) -> Vec<String> {
        let mut callers = Vec::new();
        for version in self.outside.values().filter(|version| version.calls(module)) {
            callers.extend(callers_in(version, module, function, arity));
        }
        callers
    }

    /// What could not be read, and what was not worth reading.
    pub(super) fn about_files(&self) -> Vec<Finding> {
        let damaged = self.unreadable.iter().map(|damage| Finding {
            kind: Kind::ModuleUnreadable,
            module: String::new(),
            items: Vec::new(),
            message: damage.to_string(),
        });
        let unchanged = self.unchanged.iter().map(|name| Finding {
            kind: Kind::ModuleUnchanged,
            module: (*name).to_owned(),
            items: Vec::new(),
            message: format!("{} is the module that runs already.", text::module(name)),
        });
        damaged.chain(unchanged).collect()
    }
}

fn callers_in(version: &Version<'_>, module: &str, function: &str, arity: u8) -> Vec<String> {
    let imports = version.parsed.module.imports().any(|import| {
        import.module == module && import.function == function && import.arity == arity
    });
    if !imports {
        return Vec::new();
    }
    let Some(functions) = version.functions() else { return vec![text::module(version.name())] };
    let calls = |caller: &&Function| {
        functions
            .external(caller)
            .iter()
            .any(|call| call.module == module && call.function == function && call.arity == arity)
    };
    let callers = functions.iter().filter(calls);
    callers.map(|caller| text::qualified(version.name(), &caller.name, caller.arity)).collect()
}
