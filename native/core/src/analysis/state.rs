//! What the states of processes look like, and what becomes of them.

use std::collections::BTreeSet;

use super::change::Change;
use super::role::Role;
use super::system::{Side, System};
use super::text;
use super::version::Version;
use hot_patch_beam::digest::Short;
use hot_patch_beam::etf::Outline;
use hot_patch_beam::functions::{self, Find};

/// What is known of the `code_change` that converts the states.
///
/// Only [`Absent`](Conversion::Absent) and [`Keeps`](Conversion::Keeps) say that nothing would come
/// of calling it. One whose text is as before may still do something else than before: what it
/// calls by a name that is known only when it runs, and what it is given, do not show in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conversion {
    /// There is none.
    Absent,
    /// All it does is to give back the state that it is given.
    Keeps,
    /// Its text is as it was before, and that of what it calls by name.
    Untouched,
    /// It is new, or another than before.
    Touched,
}

impl Conversion {
    /// Whether it has to be called for what may come of it.
    pub fn is_called(self) -> bool {
        matches!(self, Conversion::Untouched | Conversion::Touched)
    }
}

/// The functions by which modules convert states, each with those of its arguments that it gives
/// back where it leaves the state as it is: `{ok, State}` of a server and of an event handler,
/// `{ok, State, Data}` of a state machine, `{ok, Misc}` of a special process.
const CONVERTERS: [(&str, u8, &[u64]); 3] =
    [("code_change", 3, &[1]), ("code_change", 4, &[1, 2]), ("system_code_change", 4, &[0])];

/// What is known of the module's `code_change`. On the way down it is that of the newer version,
/// which runs.
pub(super) fn conversion(change: &Change<'_>, system: &System<'_>) -> Conversion {
    let by = if system.down { &change.old } else { &change.new };
    let Some(by) = by else { return Conversion::Absent };
    let mut found = Conversion::Absent;
    for (name, arity, arguments) in CONVERTERS {
        if by.offers(name, arity) {
            found = found.max(if gives_back(by, name, arity, arguments) {
                Conversion::Keeps
            } else if change.touches(name, arity) || helped(by, name, arity, system) {
                Conversion::Touched
            } else {
                Conversion::Untouched
            });
        }
    }
    found
}

fn gives_back(version: &Version<'_>, name: &str, arity: u8, arguments: &[u64]) -> bool {
    let function = version.function(name, arity);
    function.is_some_and(|(functions, function)| functions.gives_back(function, arguments))
}

/// Whether the code of the module that converts states shows that it knows the way back: it, or a
/// function of another module that it calls, names the atom by which it is told of that.
pub(super) fn knows_way_back<'s>(version: &Version<'s>, system: &System<'s>) -> bool {
    let within = |version: &Version<'_>, name: &str, arity: u8| names(version, name, arity, "down");
    CONVERTERS.iter().any(|(name, arity, _)| {
        within(version, name, *arity)
            || external(version, name, *arity).into_iter().any(|(module, function, arity)| {
                let helper = system.version(module, system.side(version));
                helper.is_some_and(|helper| within(helper, function, arity))
            })
    })
}

/// What a function, and those that it reaches in the module, call in other modules.
fn external<'v>(
    version: &'v Version<'_>,
    name: &str,
    arity: u8,
) -> BTreeSet<(&'v str, &'v str, u8)> {
    let Some((functions, function)) = version.function(name, arity) else {
        return BTreeSet::new();
    };
    let reached = functions.reached(function).into_iter();
    let calls = reached.flat_map(|one| functions.external(one));
    calls.map(|call| (call.module, call.function, call.arity)).collect()
}

/// Whether what a function calls in other modules has changed, or a struct that it makes by the name
/// of its module.
fn helped(version: &Version<'_>, name: &str, arity: u8, system: &System<'_>) -> bool {
    let others = || system.changes.iter().filter(|change| change.name != version.name());
    let touched = |module: &str, function: &str, arity: u8| {
        others().any(|change| change.name == module && change.touches(function, arity))
    };
    external(version, name, arity).into_iter().any(|(module, function, of)| {
        touched(module, function, of)
            || (functions::makes_struct(module, function)
                && others()
                    .filter(|change| change.touches("__struct__", 0))
                    .any(|change| names(version, name, arity, change.name)))
    })
}

/// Whether a function, or one that it reaches in the module, names this atom.
fn names(version: &Version<'_>, name: &str, arity: u8, atom: &str) -> bool {
    version.function(name, arity).is_some_and(|(functions, function)| {
        functions.reached(function).into_iter().any(|one| functions.mentions(one, atom))
    })
}

/// The functions of the change that are other than before and that a module outside reaches where it
/// makes the state of its processes.
pub(super) fn changed_makers<'s>(version: &Version<'s>, system: &System<'s>) -> BTreeSet<String> {
    let mut waiting: Vec<(&Version<'s>, &str, u8)> = if makes_state(version).is_some() {
        vec![(version, "init", 1)]
    } else {
        // Where a special process begins does not show.
        let functions = version.functions();
        let all = functions.into_iter().flat_map(|all| all.iter().map(move |one| (all, one)));
        all.map(|(all, one)| (version, all.name(one), one.arity)).collect()
    };
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    while let Some((version, name, arity)) = waiting.pop() {
        for (module, function, arity) in external(version, name, arity) {
            if !seen.insert((module, function, arity)) || !system.effort.goes_on(1) {
                continue;
            }
            if system.change(module).is_some_and(|change| change.touches(function, arity)) {
                found.insert(text::qualified(module, function, arity));
            } else if let Some(helper) = system.version(module, Side::Before) {
                waiting.push((helper, function, arity));
            }
        }
    }
    found
}

/// Whether the state of the module's processes changes, or may.
pub(super) fn moves<'s>(change: &Change<'s>, conversion: Conversion, system: &System<'s>) -> bool {
    conversion.is_called() || differs(change, system) == Some(true) || change.is(Role::Supervisor)
}

/// Whether the form of the state differs, if it shows in both versions.
pub(super) fn differs<'s>(change: &Change<'s>, system: &System<'s>) -> Option<bool> {
    let (old, new) = change.both()?;
    let (before, after) = (forms(old, Side::Before, system), forms(new, Side::After, system));
    if before.is_empty() || after.is_empty() { None } else { Some(before != after) }
}

/// The forms of the states that `init` makes, as they are read, such as `{state, _, _}` and
/// `%Call{from, to}`; none where it does not show.
///
/// What `init` calls in other modules is what these have on this side of the change.
pub(super) fn forms<'v, 's>(
    version: &'v Version<'s>,
    side: Side,
    system: &'v System<'s>,
) -> &'v BTreeSet<String> {
    let [before, after] = &version.forms;
    let known = if side == Side::Before { before } else { after };
    known.get_or_init(|| made_by_init(version, side, system))
}

/// The place of the state in what `init` returns, in modules of which that is known.
fn makes_state(version: &Version<'_>) -> Option<usize> {
    match version {
        one if one.is(Role::Statem) => Some(2),
        one if one.is(Role::Server) || one.is(Role::Event) => Some(1),
        _ => None,
    }
}

fn made_by_init<'s>(version: &Version<'s>, side: Side, system: &System<'s>) -> BTreeSet<String> {
    let init = makes_state(version).zip(version.function("init", 1));
    let Some((state, init)) = init else { return BTreeSet::new() };
    let find: Find<'_, 's> =
        &|module, name, arity| system.version(module, side)?.function(name, arity);
    let returned = functions::returns(init, find, version.effort);
    let states = returned.iter().filter_map(|outline| match outline {
        Outline::Tuple(elements) if elements.first() == Some(&Outline::Atom("ok".to_owned())) => {
            elements.get(state)
        }
        _ => None,
    });
    states.filter_map(form).collect()
}

fn form(state: &Outline) -> Option<String> {
    match state {
        Outline::Tuple(elements) => {
            let element = |(place, element): (usize, &Outline)| match element {
                Outline::Atom(tag) if place == 0 => tag.clone(),
                _ => "_".to_owned(),
            };
            let elements: Vec<_> = elements.iter().enumerate().map(element).collect();
            Some(format!("{{{}}}", elements.join(", ")))
        }
        Outline::Map(fields) => {
            let structure = fields.iter().find(|(key, _)| key == "__struct__");
            let name = match structure {
                Some((_, Outline::Atom(name))) => text::module(name),
                _ => String::new(),
            };
            let keys =
                fields.iter().map(|(key, _)| key.as_str()).filter(|key| *key != "__struct__");
            Some(format!("%{name}{{{}}}", keys.collect::<Vec<_>>().join(", ")))
        }
        _ => None,
    }
}

/// A struct's fields, each with a digest of its default.
pub(super) type Fields = std::collections::BTreeMap<String, Short>;

/// The fields of the struct that a module defines.
pub(super) fn fields(version: &Version<'_>) -> Option<Fields> {
    let (functions, function) = version.function("__struct__", 0)?;
    let own = functions.structs(function).find(|form| form.module == version.name())?;
    Some(own.fields.iter().filter(|(key, _)| key != "__struct__").cloned().collect())
}
