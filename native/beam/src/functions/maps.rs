//! What a function reads from maps that stand in maps.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::Arg;
use super::{Function, Functions, constants};
use crate::atoms::Atoms;
use crate::opcodes::{self, op};

/// The last of the tests that stand one after the other; they write nothing.
const LAST_TEST: u8 = 58;

/// The atoms by which a function reads from maps that stand in others under a key, as
/// `socket.assigns.count` does for the key `assigns`, as far as one run of its instructions does both.
pub(super) fn read_below<'f>(
    functions: &'f Functions<'_>,
    function: &Function,
    key: &str,
) -> BTreeSet<&'f str> {
    let atoms = &functions.tables.atoms;
    let mut reading = Reading {
        atoms,
        key,
        holding: Vec::new(),
        joined: BTreeMap::new(),
        found: BTreeSet::new(),
    };
    constants::each(functions, function, |opcode, args| reading.step(opcode, args));
    reading.found
}

struct Reading<'f, 'k> {
    atoms: &'f Atoms,
    key: &'k str,
    /// Registers that hold a map that stood under the key.
    holding: Vec<Register>,
    /// What is held where somebody jumps to a label further on.
    joined: BTreeMap<u64, Vec<Register>>,
    found: BTreeSet<&'f str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    X(u64),
    Y(u64),
}

fn register(arg: &Arg<'_>) -> Option<Register> {
    match *arg {
        Arg::X(number) => Some(Register::X(number)),
        Arg::Y(number) => Some(Register::Y(number)),
        _ => None,
    }
}

impl Reading<'_, '_> {
    fn step(&mut self, opcode: u8, args: &[Arg<'_>]) {
        match (opcode, args) {
            (op::GET_MAP_ELEMENTS, [_, from, Arg::List(_), pairs @ ..]) => {
                self.elements(from, pairs)
            }
            (op::MOVE, [from, to]) => {
                let holds = register(from).is_some_and(|from| self.holding.contains(&from));
                self.write(to, holds);
            }
            (op::JUMP, [Arg::Label(label)]) => {
                let held = std::mem::take(&mut self.holding);
                add(self.joined.entry(*label).or_default(), held);
            }
            (opcodes::LABEL, [Arg::Number(label)]) => {
                let held = self.joined.remove(label).unwrap_or_default();
                add(&mut self.holding, held);
            }
            (op::CALL | op::CALL_EXT | op::CALL_FUN | op::CALL_FUN2 | op::APPLY, _) => {
                self.holding.retain(|one| matches!(one, Register::Y(_)));
            }
            // They give other numbers to registers, or do not go on here.
            (
                op::TRIM | op::RETURN | op::SELECT_VAL | op::SELECT_TUPLE_ARITY | op::APPLY_LAST,
                _,
            )
            | (op::CALL_LAST | op::CALL_ONLY | op::CALL_EXT_LAST | op::CALL_EXT_ONLY, _) => {
                self.holding.clear();
            }
            (op::IS_LT..=LAST_TEST | op::IS_MAP | op::HAS_MAP_FIELDS | op::IS_TAGGED_TUPLE, _) => {}
            // Of the others it is not looked at what they write.
            _ => {
                for arg in args {
                    self.write(arg, false);
                }
            }
        }
    }

    fn elements(&mut self, from: &Arg<'_>, pairs: &[Arg<'_>]) {
        let below = register(from).is_some_and(|from| self.holding.contains(&from));
        for pair in pairs.chunks_exact(2) {
            let [key, to] = pair else { continue };
            let name = if let Arg::Atom(id) = key { Some(self.atoms.text(*id)) } else { None };
            if below {
                self.found.extend(name);
            }
            self.write(to, !below && name == Some(self.key));
        }
    }

    fn write(&mut self, to: &Arg<'_>, holds: bool) {
        if let Some(to) = register(to) {
            self.holding.retain(|one| *one != to);
            if holds {
                self.holding.push(to);
            }
        }
    }
}

fn add(to: &mut Vec<Register>, more: Vec<Register>) {
    for one in more {
        if !to.contains(&one) {
            to.push(one);
        }
    }
}
