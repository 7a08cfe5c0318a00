//! Shadows: copies of modules under other names, which behave as the modules do.
//!
//! The state of suspended processes is converted by the new code before any of it is current.
//! While the old module still has the name, the new one goes under another.
//!
//! A module's name stands first in its atom table, and the code refers to atoms by their places.
//! So the first name is changed, the old one appended, and whatever named the first place as data
//! names the last. Calls go by the table of imports, where the names of all modules of the set
//! are changed: among themselves shadows call shadows. Calls by a name that is known only when the
//! code runs go to a helper, if one is named, which looks whether that module has a shadow; else
//! they lead to the module that is current.

mod by_name;
mod closed;
mod code;
mod leaving;
mod literals;
mod names;
mod reason;
mod tables;

use std::borrow::Cow;

pub use reason::Reason;

use crate::budget::Budget;
use crate::chunk::ChunkId;
use crate::damage::Failure;
use crate::effort::Effort;
use crate::functions::{Call, Effects, Functions, Together, effects};
use crate::limits::{LoadLimits, MOST_UNPACKED};
use crate::stop::Stop;
use crate::verify::{Bounds, Verified};
use crate::{gzip, iff};
use by_name::Calls;
use closed::Ways;
use names::{Names, Renamed};

/// A copy of a module under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Its name.
    pub name: String,
    /// An uncompressed BEAM file without attributes, documentation and debug information.
    pub bytes: Vec<u8>,
    /// Whether it can make funs that lead to a shadow: it has local funs, or literals with
    /// external funs of modules of the set. Such funs must not outlive the shadows.
    pub lambdas: bool,
    /// Whether it calls modules by names that are known only when it runs: they may be any.
    pub by_name: bool,
    /// What the callbacks that convert states lead to.
    pub effects: Effects,
}

/// How shadows are named, and what helps them.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// What stands behind the name of a module in that of its shadow.
    pub suffix: &'a str,
    /// The module that carries out calls by names known only when the code runs. It has a function
    /// `call` for any number of arguments, which are followed by a module and a function, and those
    /// that [go by a name](self) they are given. Without one such calls stay as they are.
    pub helper: Option<&'a str>,
    /// Whether the set is closed: all that leads out of it goes through the helper, which decides
    /// what becomes of it. Calls of other modules are calls of its `call`, those of funs of its
    /// `call_fun`, which takes the fun behind the arguments; what is sent goes to its `send`. What
    /// receives is its `receives`, a function with an instruction that makes atoms its `makes_atoms`.
    pub closed: bool,
}

/// What the loader wants of a file and that needs no change: strings, lines, types, and the
/// features the module was compiled with.
const COPIED: [ChunkId; 4] = [*b"StrT", *b"Line", *b"Type", *b"Meta"];

/// Makes the shadows of modules that belong together. They refer to each other, so that they are of
/// use only if all could be made.
pub fn make(modules: &[&[u8]], naming: &Naming<'_>) -> Vec<Result<Shadow, Reason>> {
    make_until(&Stop::default(), modules, naming)
}

/// The same as long as `stop` is not raised. Once it is, what is left is left out, so that what
/// comes must not be used.
pub fn make_until(
    stop: &Stop,
    modules: &[&[u8]],
    naming: &Naming<'_>,
) -> Vec<Result<Shadow, Reason>> {
    let most = MOST_UNPACKED;
    let [files, literals] = [(); 2].map(|()| Budget::new(most));
    let bounds = Bounds { limits: &LoadLimits::NONE, unpacked: &literals };
    let files: Vec<Result<Cow<'_, [u8]>, Reason>> =
        going_on(stop, modules).map(|bytes| unpacked(bytes, &files)).collect();
    let sources: Vec<Result<Verified<'_>, Reason>> =
        going_on(stop, &files).map(|file| verified(file.as_deref(), bounds)).collect();
    let names = Names::new(sources.iter().flatten().map(|source| source.atoms().module()), naming);
    let effort = Effort::new(stop, most, STEPS);
    let functions: Vec<Functions<'_>> = going_on(stop, &files)
        .filter_map(|file| Functions::read(file.as_deref().ok()?, &effort).ok())
        .collect();
    let together: Together<'_, '_> = functions.iter().map(|one| (one.module(), one)).collect();
    let made = |source: &Result<Verified<'_>, Reason>| {
        let source = source.as_ref().map_err(Reason::clone)?;
        shadow(source, &names, found(source, &together, naming, &effort))
    };
    going_on(stop, &sources).map(made).collect()
}

/// The most steps for finding effects in all modules.
const STEPS: u64 = 100_000_000;

fn found(
    module: &Verified<'_>,
    together: &Together<'_, '_>,
    naming: &Naming<'_>,
    effort: &Effort,
) -> Effects {
    let goes_by_name = |call: &Call<'_>| {
        naming.helper.is_some()
            && by_name::goes_by_name(call.module, call.function, call.arity.into())
    };
    let name = module.atoms().module();
    if together.contains_key(name) {
        return effects(name, together, &goes_by_name, effort);
    }
    Effects { first: Some("code that could not be looked at".to_owned()), funs: true }
}

/// The items as long as somebody waits for what is made of them.
fn going_on<'i, T>(stop: &'i Stop, items: &'i [T]) -> impl Iterator<Item = &'i T> {
    items.iter().take_while(|_| !stop.is_raised())
}

fn verified<'a>(
    file: Result<&'a [u8], &Reason>,
    bounds: Bounds<'_>,
) -> Result<Verified<'a>, Reason> {
    Verified::read(file.map_err(Reason::clone)?, bounds).map_err(|failure| match failure {
        Failure::Damage(damage) => damage.into(),
        Failure::OverBudget => Reason::TooLarge,
    })
}

fn unpacked<'a>(bytes: &'a [u8], budget: &Budget) -> Result<Cow<'a, [u8]>, Reason> {
    gzip::plain(bytes, |size| budget.take(size).then_some(()).ok_or(Reason::TooLarge))
}

/// The copy of a module.
fn shadow(module: &Verified<'_>, names: &Names<'_>, effects: Effects) -> Result<Shadow, Reason> {
    let chunks = module.chunks();
    if chunks.get(b"Recs").is_some() {
        return Err(Reason::NativeRecords);
    }
    let mut renamed = Renamed::new(module.atoms(), names)?;
    let imported = chunks.required(b"ImpT")?;
    let mut calls = Calls::new(tables::count(imported));
    let out = if names.closed() { Some(Ways::new(module, names)?) } else { None };
    let code = chunks.required(b"Code")?;
    let code = code::rewrite(code, module.code(), &renamed, out.as_ref(), &mut calls)?;
    let (imports, by_name) = tables::imports(imported, &calls, &mut renamed)?;
    let exports = tables::exports(chunks.required(b"ExpT")?, &renamed)?;
    let lambdas = chunks.get(b"FunT").map(|chunk| tables::lambdas(chunk, &renamed)).transpose()?;
    let literals = match chunks.get(b"LitT") {
        Some(chunk) => Some(literals::rewrite(chunk, module.literals(), names)?),
        None => None,
    };
    let makes_funs = !module.lambdas().is_empty() || matches!(literals, Some(Cow::Owned(_)));
    let mut parts: Vec<(ChunkId, Cow<'_, [u8]>)> = vec![
        (*b"AtU8", renamed.table()?.into()),
        (*b"Code", code.into()),
        (*b"ImpT", imports.into()),
        (*b"ExpT", exports.into()),
    ];
    parts.extend(lambdas.map(|table| (*b"FunT", table.into())));
    parts.extend(literals.map(|table| (*b"LitT", table)));
    parts.extend(COPIED.iter().filter_map(|id| Some((*id, chunks.get(id)?.into()))));
    Ok(Shadow {
        name: renamed.module().to_owned(),
        bytes: iff::write(&parts)?.into_bytes(),
        lambdas: makes_funs,
        by_name,
        effects,
    })
}
