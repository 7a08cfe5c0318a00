//! Calls of modules by names that are known only when the code runs.
//!
//! They would lead to the module that is current, which is the version before. In a shadow they go
//! to a helper instead, which looks for the shadow of the module first: `apply` of a module's
//! function, which is an instruction of its own, becomes a call of the helper's `call`, with the
//! module and the function behind the arguments, where they stand already; and functions that are
//! given a module's name and call it become functions of the helper with the same name and number
//! of arguments.

use std::collections::BTreeMap;

use super::Reason;
use crate::damage::Damage;

/// The functions that are known to call a module whose name they are given, or to tell of it.
const FUNCTIONS: [(&str, &str, u8); 11] = [
    ("erlang", "apply", 3),
    ("erlang", "make_fun", 3),
    ("erlang", "function_exported", 3),
    ("Elixir.Function", "capture", 3),
    ("Elixir.Kernel", "struct", 1),
    ("Elixir.Kernel", "struct", 2),
    ("Elixir.Kernel", "struct!", 1),
    ("Elixir.Kernel", "struct!", 2),
    ("Elixir.Map", "from_struct", 1),
    ("Elixir.Code", "ensure_loaded?", 1),
    // What Elixir from 1.17 on makes of `state.field`, should the state be a module's name.
    ("elixir_erl_pass", "no_parens_remote", 2),
];

/// Whether a function goes by the name of a module that it is given.
pub(super) fn goes_by_name(module: &str, function: &str, arity: u32) -> bool {
    FUNCTIONS
        .iter()
        .any(|(of, name, count)| *of == module && *name == function && u32::from(*count) == arity)
}

/// The name of the helper's function for calls of functions with any number of arguments.
pub(super) const CALL: &str = "call";

/// The most arguments that such a call may have.
const MOST: u64 = 32;

/// The imports of the helper's functions that a shadow has got: one for each function and number of
/// arguments, behind those that the module had.
#[derive(Debug)]
pub(super) struct Calls {
    /// How many imports the module had.
    imports: u32,
    places: BTreeMap<(&'static str, u32), u32>,
}

impl Calls {
    pub(super) fn new(imports: u32) -> Self {
        Calls { imports, places: BTreeMap::new() }
    }

    /// The number of arguments with what stands behind them, and the import, for a call of the
    /// helper's function that takes `more` behind so many arguments.
    pub(super) fn import(
        &mut self,
        function: &'static str,
        arguments: Option<u64>,
        more: u32,
    ) -> Result<(u32, u32), Reason> {
        let arguments = arguments.filter(|count| *count <= MOST);
        let arity = arguments.and_then(|count| u32::try_from(count).ok()?.checked_add(more));
        let arity = arity.ok_or(Reason::ManyArguments(MOST))?;
        let next = u32::try_from(self.places.len()).ok().and_then(|n| self.imports.checked_add(n));
        let next = next.ok_or(Damage::OutOfMemory)?;
        Ok((arity, *self.places.entry((function, arity)).or_insert(next)))
    }

    /// The functions with their numbers of arguments, in the order of the imports.
    pub(super) fn functions(&self) -> Vec<(&'static str, u32)> {
        let mut places: Vec<(u32, (&'static str, u32))> =
            self.places.iter().map(|(function, place)| (*place, *function)).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, function)| function).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{CALL, Calls, Reason};

    #[test]
    fn each_number_of_arguments_has_one_import() {
        let mut calls = Calls::new(5);
        assert_eq!(calls.import(CALL, Some(3), 2), Ok((5, 5)));
        assert_eq!(calls.import(CALL, Some(0), 2), Ok((2, 6)));
        assert_eq!(calls.import(CALL, Some(3), 2), Ok((5, 5)));
        assert_eq!(calls.import("send", Some(2), 0), Ok((2, 7)));
        assert_eq!(calls.import(CALL, Some(32), 2), Ok((34, 8)));
        assert_eq!(calls.import(CALL, Some(33), 2), Err(Reason::ManyArguments(32)));
        assert_eq!(calls.import(CALL, None, 2), Err(Reason::ManyArguments(32)));
        assert_eq!(calls.functions(), [(CALL, 5), (CALL, 2), ("send", 2), (CALL, 34)]);
    }
}
