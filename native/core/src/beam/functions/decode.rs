//! Instructions with their operands, and where each function stands among them.

use std::collections::HashMap;
use std::ops::Range;

use crate::beam::atoms::{AtomId, Atoms};
use crate::beam::opcodes;
use crate::beam::reader::Reader;

/// An operand. A list stands as its size, and behind that what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arg<'a> {
    /// A plain number; of a meaning that depends on the instruction.
    Number(u64),
    /// An integer, as its bytes.
    Integer(&'a [u8]),
    Nil,
    Atom(AtomId),
    X(u64),
    Y(u64),
    Float(u64),
    Label(u64),
    Literal(usize),
    List(u64),
    Allocation(u64),
}

/// A function's instructions: from behind its `func_info` to the label of the next one.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) name: AtomId,
    pub(super) arity: u8,
    pub(super) place: Range<usize>,
}

/// A label: the place of its function, and its number among the labels there. That of
/// `func_info` is 0, where the function begins is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) function: usize,
    pub(super) number: usize,
}

/// All functions and labels.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) functions: Vec<Bounds>,
    pub(super) labels: HashMap<u64, Place>,
}

/// The layout of the code; `None` if something in it is unknown.
pub(super) fn layout(code: &[u8], atoms: &Atoms) -> Option<Layout> {
    let mut layout = Layout { functions: Vec::new(), labels: HashMap::new() };
    let mut reader = Reader::new(code);
    let mut args = Vec::new();
    // The last label and where its instruction begins: if `func_info` follows, it is of that.
    let mut last = (0, 0);
    let mut number = 0;
    while !reader.rest().is_empty() {
        let at = code.len() - reader.rest().len();
        let opcode = read(&mut reader, atoms, &mut args)?;
        match (opcode, args.as_slice()) {
            (opcodes::LABEL, [Arg::Number(label)]) => {
                last = (*label, at);
                let function = layout.functions.len().saturating_sub(1);
                layout.labels.insert(*label, Place { function, number });
                number += 1;
            }
            (opcodes::FUNC_INFO, [_, Arg::Atom(name), Arg::Number(arity)]) => {
                close(&mut layout, last.1);
                let function = layout.functions.len();
                layout.labels.insert(last.0, Place { function, number: 0 });
                number = 1;
                let from = code.len() - reader.rest().len();
                let arity = u8::try_from(*arity).ok()?;
                layout.functions.push(Bounds { name: *name, arity, place: from..code.len() });
            }
            (opcodes::LABEL | opcodes::FUNC_INFO, _) => return None,
            (opcodes::INT_CODE_END, _) => {
                close(&mut layout, at);
                return Some(layout);
            }
            _ => {}
        }
    }
    None
}

fn close(layout: &mut Layout, end: usize) {
    if let Some(function) = layout.functions.last_mut() {
        function.place.end = end.max(function.place.start);
    }
}

/// Reads one instruction into `args`, and gives its opcode.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    atoms: &Atoms,
    args: &mut Vec<Arg<'a>>,
) -> Option<u8> {
    args.clear();
    let opcode = reader.u8()?;
    let mut left = u64::from(opcodes::operands(opcode)?);
    while let Some(less) = left.checked_sub(1) {
        let arg = operand(reader, atoms)?;
        // Each operand takes a byte at least, so a false count ends with the code.
        left = less.checked_add(match arg {
            Arg::List(size) => size,
            Arg::Allocation(size) => size.checked_mul(2)?,
            _ => 0,
        })?;
        args.push(arg);
    }
    Some(opcode)
}

fn operand<'a>(reader: &mut Reader<'a>, atoms: &Atoms) -> Option<Arg<'a>> {
    let from = reader.rest();
    let number = reader.tagged()?;
    Some(match number.tag {
        0 | 6 => Arg::Number(number.value?),
        1 => Arg::Integer(from.get(..from.len() - reader.rest().len())?),
        2 => match u32::try_from(number.value?).ok()? {
            0 => Arg::Nil,
            index => Arg::Atom(atoms.id(index)?),
        },
        3 => Arg::X(number.value?),
        4 => Arg::Y(number.value?),
        5 => Arg::Label(number.value?),
        _ => extended(reader, number.value?)?,
    })
}

fn extended<'a>(reader: &mut Reader<'a>, kind: u64) -> Option<Arg<'a>> {
    match kind {
        1 => plain(reader).map(Arg::List),
        2 => plain(reader).map(Arg::Float),
        3 => plain(reader).map(Arg::Allocation),
        4 => plain(reader).and_then(|index| usize::try_from(index).ok()).map(Arg::Literal),
        // A register with what the compiler knows of its type, which is no meaning.
        5 => {
            let register = reader.tagged()?;
            plain(reader)?;
            match register.tag {
                3 => register.value.map(Arg::X),
                4 => register.value.map(Arg::Y),
                _ => None,
            }
        }
        _ => None,
    }
}

fn plain(reader: &mut Reader<'_>) -> Option<u64> {
    let number = reader.tagged()?;
    if number.tag == 0 { number.value } else { None }
}
