//! Where functions lead: what they call, within given modules and out of them.
//!
//! It goes by what stands in the files, as [`analysis`](crate::analysis) does: calls by name are
//! followed, one whose name is known only when it runs is named as such.

use std::collections::{BTreeSet, HashMap, HashSet};

use hot_patch_beam::effort::Effort;
use hot_patch_beam::etf::Term;
use hot_patch_beam::functions::{Acts, Call, Functions};
use hot_patch_beam::{Parsed, Stop};

/// The most bytes that are made of all modules together.
const MOST_BYTES: u64 = 256 << 20;

/// The most steps of work.
const MOST_STEPS: u64 = 1 << 28;

/// A function, by its module, its name and its number of arguments.
pub type Name = (String, String, u8);

/// Where one function leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leads {
    /// Functions that it calls or makes funs of, directly or not, and that are in none of the
    /// modules. Of Erlang itself `!` and `receive` are among them, and `apply` and `fun` for calls
    /// whose name is known only when they run.
    pub out: BTreeSet<Name>,
    /// Why some of it is not known, each a clause.
    pub unknown: BTreeSet<String>,
}

/// For each function where it leads; the modules are files, packed or not.
pub fn leads(modules: &[&[u8]], from: &[Name]) -> Vec<Leads> {
    leads_until(&Stop::default(), modules, from)
}

/// The same as long as `stop` is not raised.
pub(crate) fn leads_until(stop: &Stop, modules: &[&[u8]], from: &[Name]) -> Vec<Leads> {
    let effort = Effort::new(stop, MOST_BYTES, MOST_STEPS);
    let parsed = modules.iter().map(|bytes| Parsed::read(bytes, &effort));
    let (mut known, mut damaged) = (Vec::new(), BTreeSet::new());
    for one in parsed {
        match one {
            Ok(one) => known.push(one),
            Err(why) => {
                damaged.insert(why.to_string());
            }
        }
    }
    let mut functions = HashMap::new();
    for one in &known {
        let name = one.module.name();
        match one.functions(&effort) {
            Ok(read) => {
                functions.insert(name, read);
            }
            Err(why) => {
                damaged.insert(format!("{name} {why}"));
            }
        }
    }
    from.iter().map(|name| lead(name, &functions, &damaged, &effort)).collect()
}

fn lead(
    from: &Name,
    modules: &HashMap<&str, Functions<'_>>,
    damaged: &BTreeSet<String>,
    effort: &Effort,
) -> Leads {
    let mut leads = Leads { unknown: damaged.clone(), ..Leads::default() };
    let mut seen: HashSet<(&str, usize)> = HashSet::new();
    let mut waiting: Vec<(&str, usize)> = Vec::new();
    match place(&from.0, &from.1, from.2, modules) {
        Some(start) => waiting.push(start),
        None => {
            leads.out.insert(from.clone());
        }
    }
    while let Some((module, index)) = waiting.pop() {
        if !seen.insert((module, index)) {
            continue;
        }
        let Some(functions) = modules.get(module) else { continue };
        let Some(function) = functions.iter().nth(index) else { continue };
        let external = functions.external(function);
        if !effort.goes_on(1 + external.len()) {
            leads.unknown.insert("there is more of it than is looked at".to_owned());
            break;
        }
        waiting.extend(function.calls().map(|place| (module, place)));
        act(function.acts(), &mut leads.out);
        for Call { module, function, arity } in external {
            match place(module, function, arity, modules) {
                Some(inside) => waiting.push(inside),
                None => {
                    leads.out.insert((module.to_owned(), function.to_owned(), arity));
                }
            }
        }
    }
    leads
}

fn place<'m>(
    module: &str,
    name: &str,
    arity: u8,
    modules: &HashMap<&'m str, Functions<'_>>,
) -> Option<(&'m str, usize)> {
    let (module, functions) = modules.get_key_value(module)?;
    Some((module, functions.place(name, arity)?))
}

/// What has no name of its own gets one.
fn act(acts: Acts, out: &mut BTreeSet<Name>) {
    let named = [
        (acts.sends, "!", 2),
        (acts.receives, "receive", 0),
        (acts.applies, "apply", 3),
        (acts.calls_funs, "fun", 0),
    ];
    for (_, name, arity) in named.iter().filter(|(does, _, _)| *does) {
        out.insert(("erlang".to_owned(), (*name).to_owned(), *arity));
    }
}

/// All as one term: for each `{[{module, name, arity}], [why some is not known]}`.
pub(crate) fn with_term<R>(all: &[Leads], take: impl FnOnce(&Term<'_>) -> R) -> R {
    take(&Term::List(all.iter().map(term).collect(), None))
}

fn term(leads: &Leads) -> Term<'_> {
    let out = leads.out.iter().map(|(module, name, arity)| {
        let arity = Term::Integer(i64::from(*arity));
        Term::Tuple(vec![Term::Binary(module.as_bytes()), Term::Binary(name.as_bytes()), arity])
    });
    let unknown = leads.unknown.iter().map(|why| Term::Binary(why.as_bytes()));
    Term::Tuple(vec![Term::List(out.collect(), None), Term::List(unknown.collect(), None)])
}
