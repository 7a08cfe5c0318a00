//! What one function is made of, with everything numbered put back to what it means.

use std::collections::BTreeSet;

use super::decode::{self, Arg, Bounds, Place};
use super::tables::Tables;
use super::{Digest, Function};
use crate::beam::opcodes::{self, op};
use crate::beam::reader::Reader;
use crate::digest;

/// Reads the function at `bounds`, the one at `index` of the module; `None` if something in it is
/// unknown.
pub(super) fn function(
    code: &[u8],
    bounds: &Bounds,
    index: usize,
    tables: &Tables<'_>,
) -> Option<Function> {
    let mut meaning = Meaning {
        index,
        tables,
        text: Vec::new(),
        function: Function {
            name: tables.atoms.text(bounds.name).to_owned(),
            arity: bounds.arity,
            digest: Digest::default(),
            calls: BTreeSet::new(),
            atoms: BTreeSet::new(),
            keys: BTreeSet::new(),
            imports: BTreeSet::new(),
            literals: Vec::new(),
            place: bounds.place.clone(),
        },
    };
    let mut reader = Reader::new(code.get(bounds.place.clone())?);
    let mut args = Vec::new();
    while !reader.rest().is_empty() {
        let opcode = decode::read(&mut reader, &tables.atoms, &mut args)?;
        meaning.instruction(opcode, &args)?;
    }
    meaning.function.digest = *digest::sha256(&meaning.text).first_chunk()?;
    Some(meaning.function)
}

struct Meaning<'t, 'a> {
    index: usize,
    tables: &'t Tables<'a>,
    text: Vec<u8>,
    function: Function,
}

impl Meaning<'_, '_> {
    fn instruction(&mut self, opcode: u8, args: &[Arg<'_>]) -> Option<()> {
        // Lines say where the source stood, not what it says.
        if matches!(opcode, op::LINE | op::EXECUTABLE_LINE | op::DEBUG_LINE) {
            return Some(());
        }
        self.text.push(opcode);
        if opcode == opcodes::LABEL {
            let Some(Arg::Number(label)) = args.first() else { return None };
            return self.label(*label);
        }
        let import = import_place(opcode);
        let fun = matches!(opcode, op::MAKE_FUN2 | op::MAKE_FUN3 | op::CALL_FUN2);
        for (place, arg) in args.iter().enumerate() {
            match arg {
                Arg::Number(index) if import == Some(place) => self.import(*index)?,
                Arg::Number(index) if fun && place == 0 => self.fun(*index)?,
                Arg::Number(_) if is_string(opcode, args, place) => {}
                arg => self.arg(arg)?,
            }
        }
        self.strings(opcode, args)?;
        self.keys(opcode, args);
        Some(())
    }

    fn arg(&mut self, arg: &Arg<'_>) -> Option<()> {
        match arg {
            Arg::Number(value) => self.tagged(b'u', *value),
            Arg::Integer(bytes) => {
                self.tagged(b'i', bytes.len() as u64);
                self.text.extend_from_slice(bytes);
            }
            Arg::Nil => self.text.push(b'n'),
            Arg::Atom(id) => {
                self.function.atoms.insert(*id);
                self.name(b'a', self.tables.atoms.text(*id));
            }
            Arg::X(number) => self.tagged(b'x', *number),
            Arg::Y(number) => self.tagged(b'y', *number),
            Arg::Float(number) => self.tagged(b'f', *number),
            // No label at all: a failure is an exception.
            Arg::Label(0) => self.text.push(b'0'),
            Arg::Label(label) => return self.label(*label),
            Arg::Literal(index) => {
                let literal = self.tables.literals.get(*index)?;
                self.function.literals.push(*index);
                self.tagged(b'l', literal.bytes.len() as u64);
                self.text.extend_from_slice(&literal.bytes);
            }
            Arg::List(size) => self.tagged(b'(', *size),
            Arg::Allocation(size) => self.tagged(b'[', *size),
        }
        Some(())
    }

    /// A label by its number in this function, or by the name of another.
    fn label(&mut self, label: u64) -> Option<()> {
        let Place { function, number } = *self.tables.labels.get(&label)?;
        if function == self.index {
            self.tagged(b'j', number as u64);
            return Some(());
        }
        self.function.calls.insert(function);
        // The names of functions are not known before all are read, their labels are.
        let (name, arity) = self.tables.named.get(function)?;
        self.name(b'c', self.tables.atoms.text(*name));
        self.text.push(*arity);
        self.tagged(b'j', number as u64);
        Some(())
    }

    fn import(&mut self, index: u64) -> Option<()> {
        let index = usize::try_from(index).ok()?;
        let import = self.tables.imports.get(index)?;
        self.function.imports.insert(index);
        self.name(b'm', self.tables.atoms.text(import.module));
        self.name(b'a', self.tables.atoms.text(import.function));
        self.text.push(import.arity);
        Some(())
    }

    fn fun(&mut self, index: u64) -> Option<()> {
        let fun = self.tables.funs.get(usize::try_from(index).ok()?)?;
        if let Some(place) = self.tables.labels.get(&fun.label) {
            self.function.calls.insert(place.function);
        }
        self.name(b'm', self.tables.atoms.text(fun.function));
        self.tagged(b'u', fun.arity.into());
        self.tagged(b'u', fun.free.into());
        Some(())
    }

    /// The bytes of strings where they stand instead of their places.
    fn strings(&mut self, opcode: u8, args: &[Arg<'_>]) -> Option<()> {
        match (opcode, args) {
            (op::BS_PUT_STRING, [Arg::Number(size), Arg::Number(from)]) => {
                self.string(*from, *size)
            }
            (op::BS_MATCH_STRING, [_, _, Arg::Number(bits), Arg::Number(from)]) => {
                self.string(*from, bits.div_ceil(8))
            }
            (op::BS_CREATE_BIN, args) => {
                for segment in segments(args) {
                    if let [Arg::Atom(kind), _, _, _, Arg::Number(from), Arg::Integer(size)] =
                        segment
                        && self.tables.atoms.text(*kind) == "string"
                    {
                        self.string(*from, integer(size)?)?;
                    }
                }
                Some(())
            }
            _ => Some(()),
        }
    }

    fn string(&mut self, from: u64, size: u64) -> Option<()> {
        let from = usize::try_from(from).ok()?;
        let end = from.checked_add(usize::try_from(size).ok()?)?;
        let string = self.tables.strings.get(from..end)?;
        self.tagged(b's', size);
        self.text.extend_from_slice(string);
        Some(())
    }

    fn keys(&mut self, opcode: u8, args: &[Arg<'_>]) {
        let step = match opcode {
            op::PUT_MAP_ASSOC | op::PUT_MAP_EXACT | op::GET_MAP_ELEMENTS => 2,
            op::HAS_MAP_FIELDS => 1,
            _ => return,
        };
        for arg in behind_list(args).iter().step_by(step) {
            if let Arg::Atom(id) = arg {
                self.function.keys.insert(*id);
            }
        }
    }

    fn tagged(&mut self, tag: u8, value: u64) {
        self.text.push(tag);
        self.text.extend_from_slice(&value.to_be_bytes());
    }

    fn name(&mut self, tag: u8, name: &str) {
        self.tagged(tag, name.len() as u64);
        self.text.extend_from_slice(name.as_bytes());
    }
}

/// Which operand is the place of an import.
pub(super) fn import_place(opcode: u8) -> Option<usize> {
    match opcode {
        op::BIF0 => Some(0),
        op::CALL_EXT | op::CALL_EXT_LAST | op::CALL_EXT_ONLY | op::BIF1 | op::BIF2 => Some(1),
        op::GC_BIF1 | op::GC_BIF2 | op::GC_BIF3 => Some(2),
        _ => None,
    }
}

/// Whether the number at `place` is where a string begins.
fn is_string(opcode: u8, args: &[Arg<'_>], place: usize) -> bool {
    match opcode {
        op::BS_PUT_STRING => place == 1,
        op::BS_MATCH_STRING => place == 3,
        // A source of a segment is a plain number only in a string.
        op::BS_CREATE_BIN => {
            let list = args.len() - behind_list(args).len();
            place.checked_sub(list).is_some_and(|inside| inside % SEGMENT == 4)
        }
        _ => false,
    }
}

/// Kind, segment, unit, flags, source, size.
const SEGMENT: usize = 6;

fn segments<'s, 'a>(args: &'s [Arg<'a>]) -> impl Iterator<Item = &'s [Arg<'a>]> {
    behind_list(args).chunks(SEGMENT)
}

/// What is in the list with which an instruction ends.
pub(super) fn behind_list<'s, 'a>(args: &'s [Arg<'a>]) -> &'s [Arg<'a>] {
    let list = args.iter().position(|arg| matches!(arg, Arg::List(_)));
    list.and_then(|list| args.get(list + 1..)).unwrap_or_default()
}

/// A small integer that is not negative.
fn integer(bytes: &[u8]) -> Option<u64> {
    Reader::new(bytes).tagged()?.value
}
