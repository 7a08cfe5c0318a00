//! The modules before and after a change.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use super::Request;
use super::change::Change;
use super::version::Version;
use crate::workers;
use hot_patch_beam::Parsed;
use hot_patch_beam::effort::Effort;
use hot_patch_beam::functions::Unread;

/// What was read.
pub(super) struct Sources<'a> {
    before: Vec<Parsed<'a>>,
    after: Vec<Parsed<'a>>,
    deleted: BTreeSet<String>,
    compiled_with: &'a [(&'a str, &'a str)],
    down: bool,
    unread: Unreadable,
}

/// Files that could not be read, and why.
#[derive(Default)]
pub(super) struct Unreadable {
    pub(super) before: Vec<Unread>,
    pub(super) after: Vec<Unread>,
}

impl<'a> Sources<'a> {
    /// Reads all files.
    pub(super) fn read(request: &Request<'a>, effort: &Effort) -> Self {
        let mut unread = Unreadable::default();
        let before = parse(request.before, effort, &mut unread.before);
        let after = parse(request.after, effort, &mut unread.after);
        let mut deleted: BTreeSet<String> =
            request.deleted.iter().map(|name| (*name).to_owned()).collect();
        if request.whole {
            let names: BTreeSet<&str> = after.iter().map(|one| one.module.name()).collect();
            let all = before.iter().map(|parsed| parsed.module.name());
            deleted.extend(all.filter(|name| !names.contains(name)).map(str::to_owned));
        }
        let Request { compiled_with, down, .. } = *request;
        Sources { before, after, deleted, compiled_with, down, unread }
    }
}

fn parse<'a>(files: &[&'a [u8]], effort: &Effort, unread: &mut Vec<Unread>) -> Vec<Parsed<'a>> {
    let workers = workers::worth(files.iter().map(|file| file.len() / 4).sum());
    let read = |(): &mut (), file: &&'a [u8]| Ok::<_, ()>(Parsed::read(file, effort));
    let outcomes = workers::in_order(workers, files, || (), || (), read);
    let outcomes = outcomes.map_or_else(|()| Vec::new(), |((), parsed)| parsed);
    let mut parsed = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(one) => parsed.push(one),
            Err(why) => unread.push(why),
        }
    }
    parsed
}

/// The system before the change, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
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
    /// Files that could not be read.
    pub(super) unread: &'s Unreadable,
    pub(super) effort: &'s Effort,
    /// For each module the modules outside that call it.
    callers: OnceCell<BTreeMap<&'s str, Vec<&'s str>>>,
}

impl<'s> System<'s> {
    pub(super) fn new(sources: &'s Sources<'s>, effort: &'s Effort) -> Self {
        let mut before: BTreeMap<&str, &Parsed<'_>> =
            sources.before.iter().map(|parsed| (parsed.module.name(), parsed)).collect();
        let mut changes = BTreeMap::new();
        let mut unchanged = Vec::new();
        for new in &sources.after {
            let name = new.module.name();
            match before.get(name) {
                Some(old) if old.is_same(new) => unchanged.push(name),
                _ => {
                    let old = before.remove(name).map(|old| Version::new(old, effort));
                    let new = Some(Version::new(new, effort));
                    changes.insert(name, Change { name, old, new });
                }
            }
        }
        for name in &sources.deleted {
            if let Some(old) = before.remove(name.as_str()) {
                let name = old.module.name();
                let old = Some(Version::new(old, effort));
                changes.insert(name, Change { name, old, new: None });
            }
        }
        let outside = before.into_iter().map(|(name, one)| (name, Version::new(one, effort)));
        System {
            outside: outside.collect(),
            changes: changes.into_values().collect(),
            unchanged,
            compiled_with: sources.compiled_with,
            down: sources.down,
            unread: &sources.unread,
            effort,
            callers: OnceCell::new(),
        }
    }

    /// The change of a module.
    pub(super) fn change(&self, module: &str) -> Option<&Change<'s>> {
        let place = self.changes.binary_search_by(|change| change.name.cmp(module)).ok()?;
        self.changes.get(place)
    }

    /// The module as it is after the change.
    pub(super) fn now(&self, module: &str) -> Option<&Version<'s>> {
        self.version(module, Side::After)
    }

    /// All modules as they are after the change.
    pub(super) fn all_now(&self) -> impl Iterator<Item = &Version<'s>> {
        self.changes.iter().filter_map(|change| change.new.as_ref()).chain(self.outside.values())
    }

    /// The module as it is before or after the change.
    pub(super) fn version(&self, module: &str, side: Side) -> Option<&Version<'s>> {
        match (self.change(module), side) {
            (None, _) => self.outside.get(module),
            (Some(change), Side::Before) => change.old.as_ref(),
            (Some(change), Side::After) => change.new.as_ref(),
        }
    }

    /// On which side of the change a version of a module of the change is.
    pub(super) fn side(&self, version: &Version<'s>) -> Side {
        let new = self.change(version.name()).and_then(|own| own.new.as_ref());
        let is_new = new.is_some_and(|new| std::ptr::eq(new, version));
        if is_new { Side::After } else { Side::Before }
    }

    /// The modules outside that call a module of the change, themselves or through others outside.
    pub(super) fn reaching(&self) -> impl Iterator<Item = &Version<'s>> {
        let mut waiting: Vec<&str> = self.changes.iter().map(|change| change.name).collect();
        let mut reaching = BTreeMap::new();
        while let Some(module) = waiting.pop() {
            for caller in self.callers(module) {
                if reaching.insert(caller.name(), caller).is_none() {
                    waiting.push(caller.name());
                }
            }
        }
        reaching.into_values()
    }

    /// The modules outside that call a module by name.
    pub(super) fn callers(&self, module: &str) -> impl Iterator<Item = &Version<'s>> {
        let callers = self.callers.get_or_init(|| self.all_callers()).get(module);
        callers.into_iter().flatten().filter_map(|name| self.outside.get(name))
    }

    fn all_callers(&self) -> BTreeMap<&'s str, Vec<&'s str>> {
        let mut callers = BTreeMap::<&str, Vec<&str>>::new();
        for version in self.outside.values() {
            for module in version.called() {
                callers.entry(module).or_default().push(version.name());
            }
        }
        callers
    }
}
