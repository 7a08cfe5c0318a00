//! Instructions with their operands, and where each function stands among them.

use std::ops::Range;

use super::Unread;
use crate::atoms::{AtomId, Atoms};
use crate::code::Code;
use crate::damage::Damage;
use crate::effort::Effort;
use crate::opcodes;
use crate::reader::Reader;

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
    pub(super) function: u32,
    pub(super) number: u32,
}

/// Where labels stand, by their numbers.
#[derive(Debug)]
pub(super) struct Labels(Vec<Option<Place>>);

impl Labels {
    /// Room for those that the header announces; each takes two bytes of the code at least.
    fn new(count: u32, code: &[u8], effort: &Effort) -> Result<Self, Unread> {
        let count = usize::try_from(count).ok().filter(|count| *count <= code.len());
        let count =
            count.ok_or(malformed("its header announces more labels than it has room for"))?;
        effort.memory((count * size_of::<Option<Place>>()) as u64)?;
        Ok(Labels(vec![None; count]))
    }

    pub(super) fn get(&self, label: u64) -> Option<Place> {
        *self.0.get(usize::try_from(label).ok()?)?
    }

    fn set(&mut self, label: u64, place: Place) -> Option<()> {
        *self.0.get_mut(usize::try_from(label).ok()?)? = Some(place);
        Some(())
    }
}

/// All functions and labels.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) functions: Vec<Bounds>,
    pub(super) labels: Labels,
}

/// Why an instruction cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclear;

/// What an instruction that is unclear means. One of a newer OTP has been told before.
pub(super) fn unclear() -> Damage {
    malformed("an instruction in it is none")
}

pub(super) fn malformed(what: &'static str) -> Damage {
    Damage::Malformed { chunk: *b"Code", what }
}

/// The layout of the code.
pub(super) fn layout(code: &Code<'_>, atoms: &Atoms, effort: &Effort) -> Result<Layout, Unread> {
    let instructions = code.instructions();
    let labels = Labels::new(code.label_count, instructions, effort)?;
    let mut layout = Layout { functions: Vec::new(), labels };
    let mut reader = Reader::new(instructions);
    let mut args = Vec::new();
    let mut meter = effort.meter();
    // The last label and where its instruction begins: if `func_info` follows, it is of that.
    let mut last = (0, 0);
    let mut number = 0;
    while !reader.rest().is_empty() {
        let at = instructions.len() - reader.rest().len();
        let opcode = read(&mut reader, atoms, &mut args).map_err(|Unclear| unclear())?;
        match (opcode, args.as_slice()) {
            (opcodes::LABEL, [Arg::Number(label)]) => {
                last = (*label, at);
                let function = place(layout.functions.len().saturating_sub(1))?;
                layout.put(*label, Place { function, number })?;
                number += 1;
            }
            (opcodes::FUNC_INFO, [_, Arg::Atom(name), Arg::Number(arity)]) => {
                close(&mut layout, last.1);
                let function = place(layout.functions.len())?;
                layout.put(last.0, Place { function, number: 0 })?;
                number = 1;
                let from = instructions.len() - reader.rest().len();
                let arity = u8::try_from(*arity)
                    .map_err(|_| malformed("a function has more than 255 arguments"))?;
                meter.memory(2 * size_of::<Bounds>())?;
                layout.functions.push(Bounds {
                    name: *name,
                    arity,
                    place: from..instructions.len(),
                });
            }
            (opcodes::LABEL | opcodes::FUNC_INFO, _) => {
                return Err(malformed("a label or the head of a function is none").into());
            }
            (opcodes::INT_CODE_END, _) => {
                close(&mut layout, at);
                return Ok(layout);
            }
            _ => {}
        }
    }
    Err(malformed("it is cut off").into())
}

impl Layout {
    fn put(&mut self, label: u64, place: Place) -> Result<(), Unread> {
        let unknown = malformed("a label has a number that its header does not announce");
        self.labels.set(label, place).ok_or(unknown.into())
    }
}

/// Places are numbers of four bytes, as all in a file.
fn place(index: usize) -> Result<u32, Unread> {
    u32::try_from(index).map_err(|_| malformed("it has too many functions").into())
}

fn close(layout: &mut Layout, end: usize) {
    if let Some(function) = layout.functions.last_mut() {
        function.place.end = end.max(function.place.start);
    }
}

/// The most operands of one instruction: an operand takes much more room here than in a file. No
/// compiler makes tables for jumps that come near to it.
const MOST_OPERANDS: usize = 1 << 20;

/// Reads one instruction into `args`, and gives its opcode.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    atoms: &Atoms,
    args: &mut Vec<Arg<'a>>,
) -> Result<u8, Unclear> {
    args.clear();
    instruction(reader, atoms, args).ok_or(Unclear)
}

fn instruction<'a>(reader: &mut Reader<'a>, atoms: &Atoms, args: &mut Vec<Arg<'a>>) -> Option<u8> {
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
        if args.len() >= MOST_OPERANDS {
            return None;
        }
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
