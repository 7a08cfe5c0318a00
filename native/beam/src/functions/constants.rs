//! Values that stand in the code: what a function hands to others, and what it returns for an atom.

use std::collections::BTreeSet;

use super::decode::{self, Arg};
use super::{Function, Functions};
use crate::etf::Outline;
use crate::opcodes::{self, op};
use crate::reader::Reader;

/// The atoms that a function gives to functions of another module, for one of the arguments, counted
/// from 0, as far as they are loaded just before the call.
pub(super) fn given<'f>(
    functions: &'f Functions<'_>,
    function: &Function,
    (module, names): (&str, &[&str]),
    argument: u64,
) -> BTreeSet<&'f str> {
    let mut found = BTreeSet::new();
    let mut last = None;
    let atoms = &functions.tables.atoms;
    let wanted = |import: u64| {
        let import =
            usize::try_from(import).ok().and_then(|place| functions.tables.imports.get(place));
        import.is_some_and(|import| {
            atoms.text(import.module) == module && names.contains(&atoms.text(import.function))
        })
    };
    each(functions, function, |opcode, args| match (opcode, args) {
        (op::MOVE, [from, Arg::X(to)]) if *to == argument => {
            last = if let Arg::Atom(id) = from { Some(*id) } else { None };
        }
        (op::CALL_EXT, [_, Arg::Number(import)])
        | (op::CALL_EXT_ONLY, [_, Arg::Number(import)])
        | (op::CALL_EXT_LAST, [_, Arg::Number(import), _]) => {
            found.extend(last.take().filter(|_| wanted(*import)).map(|id| atoms.text(id)));
        }
        (op::CALL, _) | (opcodes::LABEL, _) => last = None,
        _ => {}
    });
    found
}

/// The literal that a function of one argument returns for this atom, where it does nothing but to
/// choose among atoms; `None` of the empty list, too.
pub(super) fn for_atom<'f>(
    functions: &'f Functions<'_>,
    function: &Function,
    atom: &str,
) -> Option<&'f Outline> {
    let (mut label, mut here, mut found) = (None, false, None);
    each(functions, function, |opcode, args| match (opcode, args) {
        (op::SELECT_VAL, [Arg::X(0), _, Arg::List(_), cases @ ..]) => {
            let mut cases = cases.chunks_exact(2).filter_map(|case| match case {
                [Arg::Atom(id), Arg::Label(label)] => Some((*id, *label)),
                _ => None,
            });
            let case = cases.find(|(id, _)| functions.tables.atoms.text(*id) == atom);
            label = case.map(|(_, label)| label);
        }
        (opcodes::LABEL, [Arg::Number(number)]) => here |= label == Some(*number),
        (op::MOVE, [Arg::Literal(place), Arg::X(0)]) if here && found.is_none() => {
            found = functions.tables.literals.get(*place).map(|literal| &literal.outline);
        }
        (op::RETURN, _) if here => {
            label = None;
            here = false;
        }
        _ => {}
    });
    found
}

/// Hands on each instruction, up to one that cannot be read.
pub(super) fn each<'a>(
    functions: &Functions<'a>,
    function: &Function,
    mut with: impl FnMut(u8, &[Arg<'a>]),
) -> Option<()> {
    let code: &'a [u8] = functions.code.instructions();
    let mut reader = Reader::new(code.get(function.place.clone())?);
    let mut args = Vec::new();
    while !reader.rest().is_empty() {
        let opcode = decode::read(&mut reader, &functions.tables.atoms, &mut args).ok()?;
        with(opcode, &args);
    }
    Some(())
}
