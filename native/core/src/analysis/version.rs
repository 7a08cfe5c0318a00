//! One version of a module, with what is asked of it more than once.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};

use super::graph;
use super::role::{self, Role};
use hot_patch_beam::Parsed;
use hot_patch_beam::digest::Hasher;
use hot_patch_beam::effort::Effort;
use hot_patch_beam::functions::{Digest, Function, Functions, Unread};

/// One version of a module. What takes time is worked out when it is asked for the first time.
pub(super) struct Version<'s> {
    pub(super) parsed: &'s Parsed<'s>,
    pub(super) roles: Vec<Role>,
    pub(super) effort: &'s Effort,
    functions: OnceCell<Result<Functions<'s>, Unread>>,
    offered: OnceCell<HashSet<(&'s str, u8)>>,
    called: OnceCell<BTreeSet<&'s str>>,
    deep: OnceCell<Vec<Digest>>,
    /// The forms of its states beside the modules of before and after the change, see
    /// [`state`](super::state).
    pub(super) forms: [OnceCell<BTreeSet<String>>; 2],
}

impl<'s> Version<'s> {
    pub(super) fn new(parsed: &'s Parsed<'s>, effort: &'s Effort) -> Self {
        let roles = role::roles(&parsed.module);
        Version {
            parsed,
            roles,
            effort,
            functions: OnceCell::new(),
            offered: OnceCell::new(),
            called: OnceCell::new(),
            deep: OnceCell::new(),
            forms: Default::default(),
        }
    }

    pub(super) fn name(&self) -> &'s str {
        self.parsed.module.name()
    }

    /// Whether its processes have states that it makes.
    pub(super) fn has_states(&self) -> bool {
        self.roles.iter().any(|role| role.has_states())
    }

    /// Whether structs may be in a state of its own, be it in a process of its own or, as that of a
    /// component, in one of another module.
    pub(super) fn holds_states(&self) -> bool {
        self.has_states() || self.is(Role::LiveComponent)
    }

    pub(super) fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Its functions; `None` if they cannot be told.
    pub(super) fn functions(&self) -> Option<&Functions<'s>> {
        let read = || self.parsed.functions(self.effort);
        self.functions.get_or_init(read).as_ref().ok()
    }

    /// Why its functions cannot be told, if somebody has asked for them.
    pub(super) fn unread(&self) -> Option<&Unread> {
        self.functions.get()?.as_ref().err()
    }

    pub(super) fn function(&self, name: &str, arity: u8) -> Option<(&Functions<'s>, &Function)> {
        let functions = self.functions()?;
        Some((functions, functions.get(name, arity)?))
    }

    /// A digest of a function and of all it reaches in the module.
    pub(super) fn deep_digest(&self, name: &str, arity: u8) -> Option<Digest> {
        let functions = self.functions()?;
        let place = functions.place(name, arity)?;
        self.deep.get_or_init(|| deep(functions)).get(place).copied()
    }

    /// Whether it offers a function.
    pub(super) fn offers(&self, function: &str, arity: u8) -> bool {
        let exports = || self.parsed.module.exports();
        let offered = || exports().map(|export| (export.function, export.arity)).collect();
        self.offered.get_or_init(offered).contains(&(function, arity))
    }

    /// Whether an atom is in its table. Those that are only in literals are not.
    pub(super) fn has_atom(&self, atom: &str) -> bool {
        self.parsed.module.atoms().any(|other| other == atom)
    }

    /// Whether it has literals, whose atoms are in no table.
    pub(super) fn has_literals(&self) -> bool {
        self.parsed.module.chunks.iter().any(|chunk| chunk.id == *b"LitT")
    }

    /// The modules that it calls by name, itself among them.
    pub(super) fn called(&self) -> &BTreeSet<&'s str> {
        let imports = || self.parsed.module.imports();
        self.called.get_or_init(|| imports().map(|import| import.module).collect())
    }

    /// The modules that it calls by name or makes external funs of, itself left out.
    pub(super) fn called_modules(&self) -> BTreeSet<&str> {
        let mut called: BTreeSet<&str> = self.called().iter().copied().collect();
        if let Some(functions) = self.functions() {
            called.extend(functions.captured_modules());
        }
        called.remove(self.name());
        called
    }
}

/// For each function a digest of itself and of all it reaches. Functions that reach each other have
/// one in common.
fn deep(functions: &Functions<'_>) -> Vec<Digest> {
    let edges: Vec<Vec<usize>> = functions.iter().map(|one| one.calls().collect()).collect();
    let own: Vec<Digest> = functions.iter().map(|one| one.digest).collect();
    let of = |list: &[Digest], places: &BTreeSet<usize>| -> BTreeSet<Digest> {
        places.iter().filter_map(|place| list.get(*place)).copied().collect()
    };
    let mut deep = vec![Digest::default(); own.len()];
    // Whatever a group reaches comes before it.
    for group in graph::components(&edges) {
        let members: BTreeSet<usize> = group.iter().copied().collect();
        let called = group.iter().filter_map(|member| edges.get(*member)).flatten().copied();
        let called: BTreeSet<usize> = called.filter(|called| !members.contains(called)).collect();
        let mut whole = Hasher::default();
        for digests in [of(&own, &members), of(&deep, &called)] {
            whole.tagged(b'#', digests.len() as u64);
            digests.iter().for_each(|digest| whole.put(digest));
        }
        let digest = whole.finish();
        for member in members {
            if let Some(of) = deep.get_mut(member) {
                *of = digest;
            }
        }
    }
    deep
}
