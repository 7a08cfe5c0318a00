//! Whether a callback that converts a state may be called while others still run: what it leads to
//! has no effects, and reads nothing that somebody else may change meanwhile.
//!
//! Only what is known to be so counts. Followed are the calls within the modules that come
//! together; of other modules' functions those of a list are known, which is made of what OTP and
//! Elixir say of themselves. A function of the list that calls a fun is known where that fun is made
//! on the spot, so that its code is followed too. Calls by names that are known only when the code
//! runs are not judged here: in a shadow they go to a helper, which can refuse them.
//!
//! The clock, new references and unique integers are not counted as effects. Functions that go by
//! a protocol (`Enum`, `to_string`) are known for what they do with data; a state that has a stream
//! in it which reads a file is beyond what can be told from the code.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use super::decode::{self, Arg};
use super::{Call, Function, Functions};
use crate::effort::Effort;
use crate::opcodes::{self, op};
use crate::reader::Reader;

/// The callbacks that convert states.
const ROOTS: [(&str, u8); 3] = [("code_change", 3), ("code_change", 4), ("system_code_change", 4)];

/// What the callbacks of a module that convert states lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effects {
    /// What has an effect or is not known to have none, in words; `None` where there is nothing.
    pub first: Option<String>,
    /// Whether funs may be made, by what can be told.
    pub funs: bool,
}

/// The functions of modules that come together, by the modules' names.
pub type Together<'f, 'a> = HashMap<&'f str, &'f Functions<'a>>;

/// What is found of one of them. `goes_by_name` says of which functions the helper takes care.
pub fn effects(
    module: &str,
    together: &Together<'_, '_>,
    goes_by_name: &dyn Fn(&Call<'_>) -> bool,
    effort: &Effort,
) -> Effects {
    let mut search = Search {
        together,
        goes_by_name,
        effort,
        seen: HashSet::new(),
        waiting: Vec::new(),
        funs: false,
    };
    let roots = ROOTS.iter().filter_map(|(name, arity)| {
        let functions = *together.get(module)?;
        Some((functions, functions.place(name, *arity)?))
    });
    for (functions, place) in roots {
        search.waiting.push((functions, place));
    }
    let first = search.first();
    Effects { funs: search.funs || first.is_some(), first }
}

struct Search<'s, 'f, 'a> {
    together: &'s Together<'f, 'a>,
    goes_by_name: &'s dyn Fn(&Call<'_>) -> bool,
    effort: &'s Effort,
    seen: HashSet<(*const Functions<'a>, usize)>,
    waiting: Vec<(&'f Functions<'a>, usize)>,
    funs: bool,
}

const UNREAD: &str = "code that could not be looked at";

impl<'f, 'a> Search<'_, 'f, 'a> {
    fn first(&mut self) -> Option<String> {
        while let Some((functions, place)) = self.waiting.pop() {
            if !self.seen.insert((std::ptr::from_ref(functions), place)) {
                continue;
            }
            let Some(function) = functions.list.get(place) else { return Some(UNREAD.to_owned()) };
            if let Err(found) = self.function(functions, function) {
                return Some(found);
            }
            self.waiting.extend(function.calls().map(|place| (functions, place)));
        }
        None
    }

    fn function(
        &mut self,
        functions: &'f Functions<'a>,
        function: &Function,
    ) -> Result<(), String> {
        for (module, name, arity) in functions.terms(function).flat_map(|term| &term.externals) {
            self.funs = true;
            self.external(&Call { module, function: name, arity: *arity }, &Known::default())?;
        }
        let unread = || UNREAD.to_owned();
        let instructions = functions.code.instructions().get(function.place.clone());
        let mut reader = Reader::new(instructions.ok_or_else(unread)?);
        let mut args = Vec::new();
        let mut known = Known::default();
        while !reader.rest().is_empty() {
            self.effort.work(1).map_err(|_| unread())?;
            let opcode = decode::read(&mut reader, &functions.tables.atoms, &mut args)
                .map_err(|_| unread())?;
            self.instruction(opcode, &args, functions, &known)?;
            known.behind(opcode, &args);
        }
        Ok(())
    }

    fn instruction(
        &mut self,
        opcode: u8,
        args: &[Arg<'_>],
        functions: &'f Functions<'a>,
        known: &Known,
    ) -> Result<(), String> {
        let name = opcodes::find(opcode).ok_or_else(|| UNREAD.to_owned())?.name;
        match opcode {
            // The helper has these in a shadow.
            op::APPLY | op::APPLY_LAST => {
                self.funs = true;
                let call = Call { module: "erlang", function: "apply", arity: 3 };
                return self.external(&call, known);
            }
            op::CALL_FUN | op::CALL_FUN2 => return Err("a fun that it is given".to_owned()),
            op::MAKE_FUN2 | MAKE_FUN3 => self.funs = true,
            _ => {}
        }
        if is_effect(name) {
            let what = if opcode == op::SEND { "a message that it sends" } else { "receive" };
            return Err(what.to_owned());
        }
        let Some(place) = import_of(opcode) else { return Ok(()) };
        let import = match args.get(place) {
            Some(Arg::Number(import)) => usize::try_from(*import).ok(),
            _ => None,
        };
        let import = import.and_then(|import| functions.tables.imports.get(import));
        let import = import.ok_or_else(|| UNREAD.to_owned())?;
        let [module, function] =
            [import.module, import.function].map(|id| functions.tables.atoms.text(id));
        self.external(&Call { module, function, arity: import.arity }, known)
    }

    fn external(&mut self, call: &Call<'_>, known: &Known) -> Result<(), String> {
        if let Some(functions) = self.together.get(call.module) {
            // One that is not there is an exception, which is told.
            let place = functions.place(call.function, call.arity);
            self.waiting.extend(place.map(|place| (*functions, place)));
            return Ok(());
        }
        if (self.goes_by_name)(call) {
            self.funs = true;
            return Ok(());
        }
        match pure().get(&(call.module, call.function, call.arity)) {
            Some(funs) if funs.iter().all(|place| known.at(Arg::X(*place))) => Ok(()),
            Some(_) => Err(format!("{} with a fun that it is given", shown(call))),
            None => Err(shown(call)),
        }
    }
}

/// An effect of an instruction: what it sends, and all that has to do with receiving.
fn is_effect(name: &str) -> bool {
    matches!(name, "send" | "remove_message" | "timeout" | "wait" | "wait_timeout" | "nif_start")
        || name.starts_with("loop_rec")
        || name.starts_with("recv_")
        || name == "on_load"
}

const MAKE_FUN3: u8 = 171;

fn import_of(opcode: u8) -> Option<usize> {
    super::digest::import_place(opcode)
}

/// The registers of which it is known, at a place in the code, that they hold no fun but one of
/// which the code is followed.
#[derive(Default)]
struct Known(Vec<(bool, u64)>);

impl Known {
    fn register(arg: &Arg<'_>) -> Option<(bool, u64)> {
        match arg {
            Arg::X(number) => Some((true, *number)),
            Arg::Y(number) => Some((false, *number)),
            _ => None,
        }
    }

    fn at(&self, arg: Arg<'_>) -> bool {
        Self::register(&arg).is_some_and(|register| self.0.contains(&register))
    }

    /// What is known behind an instruction. Whatever is not understood is forgotten: every register
    /// that it names, and all where it may change others or where ways meet.
    fn behind(&mut self, opcode: u8, args: &[Arg<'_>]) {
        match (opcode, args) {
            (op::LINE | op::EXECUTABLE_LINE | op::DEBUG_LINE | op::TEST_HEAP, _) => {}
            (op::MOVE, [from, to]) => {
                let known = match from {
                    Arg::Literal(_) | Arg::Integer(_) | Arg::Nil => true,
                    Arg::X(_) | Arg::Y(_) => self.at(*from),
                    _ => false,
                };
                self.forget(to);
                if known {
                    self.0.extend(Self::register(to));
                }
            }
            (MAKE_FUN3, [_, to, ..]) => {
                self.forget(to);
                self.0.extend(Self::register(to));
            }
            (op::SWAP, [one, other]) => {
                let [first, second] = [self.at(*one), self.at(*other)];
                self.forget(one);
                self.forget(other);
                self.0.extend(Self::register(one).filter(|_| second));
                self.0.extend(Self::register(other).filter(|_| first));
            }
            // Tests change nothing, and what follows is where they went well.
            (op::IS_LT..=57, _) => {}
            (op::ALLOCATE..=op::ALLOCATE_HEAP_ZERO, _) => self.0.retain(|(is_x, _)| *is_x),
            // move, get_list, get_tuple_element, put_list, gc_bif1 and gc_bif2, bif1 and bif2, get_hd,
            // get_tl: what they write to is among what they name.
            (64..=66 | 69 | 124 | 125 | 10 | 11 | op::PUT_TUPLE2 | 162 | 163, _) => {
                args.iter().for_each(|arg| self.forget(arg));
            }
            _ => self.0.clear(),
        }
    }

    fn forget(&mut self, arg: &Arg<'_>) {
        if let Some(register) = Self::register(arg) {
            self.0.retain(|known| *known != register);
        }
    }
}

/// A call as Elixir writes it.
fn shown(call: &Call<'_>) -> String {
    let Call { module, function, arity } = call;
    match module.strip_prefix("Elixir.") {
        Some(module) => format!("{module}.{function}/{arity}"),
        None => format!(":{module}.{function}/{arity}"),
    }
}

/// A module, a function of it, and the number of its arguments.
type Name = (&'static str, &'static str, u8);

/// The places of those arguments that a function calls.
type Pure = HashMap<Name, Vec<u64>>;

/// Whether a function is known to have no effects, whatever it is given.
pub(crate) fn is_pure(module: &str, function: &str, arity: u8) -> bool {
    pure().get(&(module, function, arity)).is_some_and(Vec::is_empty)
}

/// The functions that are known to have no effects: a line for each module, with a word for each
/// function (`name/arity`, then the places of funs).
fn pure() -> &'static Pure {
    static PURE: OnceLock<Pure> = OnceLock::new();
    PURE.get_or_init(|| include_str!("pure.txt").lines().flat_map(of_module).collect())
}

fn of_module(line: &'static str) -> Vec<(Name, Vec<u64>)> {
    let mut words = line.split(' ');
    let module = words.next().unwrap_or_default();
    let function = |word: &'static str| {
        let (name, rest) = word.rsplit_once('/')?;
        let (arity, places) = rest.split_once(':').unwrap_or((rest, ""));
        let places = places.split(',').filter_map(|place| place.parse().ok()).collect();
        Some(((module, name, arity.parse().ok()?), places))
    };
    words.filter_map(function).collect()
}

#[cfg(test)]
mod tests {
    use super::pure;

    #[test]
    fn the_list_is_read() {
        assert_eq!(pure().get(&("Elixir.Enum", "map", 2)), Some(&vec![1]));
        assert_eq!(pure().get(&("maps", "update_with", 4)), Some(&vec![1]));
        assert_eq!(pure().get(&("erlang", "=:=", 2)), Some(&vec![]));
        assert_eq!(pure().get(&("erlang", "/", 2)), Some(&vec![]));
        for effect in [("erlang", "put", 2), ("erlang", "send", 2), ("Elixir.Enum", "random", 1)] {
            assert_eq!(pure().get(&effect), None);
        }
    }
}
