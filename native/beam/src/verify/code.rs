//! The instructions: each known, each operand of a kind and within the bounds that its instruction
//! takes, all in functions, and all labels defined.
//!
//! The loader decodes them as they are here (beam_file.c, `beamcodereader_next`), makes machine code
//! of each by its kind of operands (ops.tab), and there believes what it is given.

use super::labels::{Call, Labels};
use super::lists::Words;
use super::rule::{Breach, Check, LoaderRule};
use crate::code::Code;
use crate::opcodes;
use crate::operands::{self, Operands};
use crate::reader::Reader;
use crate::role::{Role, kind};
use crate::tables::ImportEntry;

/// What instructions can name.
#[derive(Debug)]
pub(super) struct Named<'t> {
    pub(super) atoms: u32,
    pub(super) words: &'t Words,
    pub(super) imports: &'t [ImportEntry],
    /// The numbers of free variables of the local funs.
    pub(super) free: &'t [u8],
    pub(super) literals: u64,
    /// The size of the chunk of strings.
    pub(super) strings: u64,
    /// How many types there are, if the loader will look.
    pub(super) types: Option<u64>,
    pub(super) lines: Option<u64>,
    pub(super) debug: Option<u64>,
}

/// What was found in the code.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) labels: Labels,
    pub(super) on_load: bool,
    /// Of each local fun, whether an instruction makes it.
    pub(super) made: Vec<bool>,
    /// Instructions that are places of lines.
    pub(super) lines: u64,
    /// What the loader adds to the literals, comparing each with all before it.
    pub(super) added: u64,
    /// Words of integers that become literals.
    pub(super) big_words: u64,
    pub(super) instructions: u64,
    /// Operands, and what is made of one for each word of the stack.
    pub(super) operands: u64,
}

/// An operand: the bit of its kind, and its number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arg {
    pub(super) kind: u32,
    pub(super) value: u64,
}

/// `MAX_ARG`, and the registers `x`, `y`, and those of floats.
const ARITY: u64 = 255;
const REGISTERS: u64 = 1024;
/// `MAX_ARITYVAL`: the most elements of a tuple. Words of the heap have the same bound here.
pub(super) const TUPLE: u64 = (1 << 24) - 1;
/// The largest unit of bits, and all flags of segments.
pub(super) const UNIT: u64 = 256;
const FLAGS: u64 = 31;
/// Sizes in bits become 32-bit displacements.
pub(super) const BITS: u64 = (1 << 31) - 1;

/// Checks all instructions.
pub(super) fn check(code: &Code<'_>, named: &Named<'_>) -> Result<Found, Breach> {
    let breach = |rule| Breach::of(b"Code", rule);
    let labels = Labels::new(code).map_err(breach)?;
    let mut pass = Pass::new(Reader::new(code.instructions()), labels, named);
    while let Some(opcode) = pass.next_opcode().map_err(|rule| breach(rule).at(pass.at))? {
        pass.instruction(opcode)
            .map_err(|rule| Breach { opcode: Some(opcode), ..breach(rule).at(pass.at) })?;
    }
    let highest = pass.highest;
    let found = pass.found;
    if u64::from(code.max_opcode) < u64::from(highest) {
        return Err(breach(LoaderRule::CodeHighestOpcode));
    }
    found.labels.finish(code)?;
    if !found.labels.are_dense() {
        named_labels(code, &found.labels)?;
    }
    Ok(found)
}

/// Checks that each label that is named is defined. Where labels are numbered without gaps nobody
/// need look.
fn named_labels(code: &Code<'_>, labels: &Labels) -> Result<(), Breach> {
    let all = code.instructions();
    let mut reader = Reader::new(all);
    loop {
        let at = all.len() - reader.rest().len();
        let Some(opcode) = reader.u8() else { return Ok(()) };
        for operand in Operands::new(&mut reader, opcodes::operands(opcode).unwrap_or_default()) {
            let number = operand.map(|operand| operand.number);
            let is_missing = number.is_some_and(|number| {
                number.tag == operands::LABEL && number.value.is_some_and(|it| labels.lacks(it))
            });
            if is_missing {
                let breach = Breach::of(b"Code", LoaderRule::CodeLabel).at(at);
                return Err(Breach { opcode: Some(opcode), ..breach });
            }
        }
    }
}

/// As many as an instruction has that is loaded.
const OPERANDS: usize = 8;

/// What of a function's beginning was just read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Nothing: a function must begin.
    Start,
    /// A label that is not where a function begins.
    Label(u64),
    /// That, and a line.
    Line(u64),
    /// `func_info` behind that label: the next label must follow, where the function begins.
    Info(u64),
    /// That label.
    Entry,
    /// Anything else.
    Inside,
}

pub(super) struct Pass<'t, 'a> {
    pub(super) named: &'t Named<'t>,
    all: &'a [u8],
    pub(super) reader: Reader<'a>,
    /// Where the instruction begins.
    at: usize,
    args: [Arg; OPERANDS],
    /// The size of a string whose place is still to come.
    string: u64,
    shape: Shape,
    highest: u8,
    pub(super) found: Found,
}

impl<'t, 'a> Pass<'t, 'a> {
    fn new(reader: Reader<'a>, labels: Labels, named: &'t Named<'t>) -> Self {
        Pass {
            named,
            all: reader.rest(),
            reader,
            at: 0,
            args: [Arg::default(); OPERANDS],
            string: 0,
            shape: Shape::Start,
            highest: 0,
            found: Found { labels, made: vec![false; named.free.len()], ..Found::default() },
        }
    }

    /// For a table that is written as instructions are.
    pub(super) fn of_table(reader: Reader<'a>, named: &'t Named<'t>) -> Self {
        Pass::new(reader, Labels::default(), named)
    }

    /// Reads the opcode of such an entry.
    pub(super) fn expect_opcode(&mut self, expected: u8) -> Check {
        match self.reader.u8() {
            Some(opcode) if opcode == expected => Ok(()),
            _ => Err(LoaderRule::CodeUnknown),
        }
    }

    /// The next opcode; `None` behind the last instruction.
    fn next_opcode(&mut self) -> Check<Option<u8>> {
        self.at = self.all.len() - self.reader.rest().len();
        match self.reader.u8() {
            Some(opcodes::INT_CODE_END) if self.reader.rest().is_empty() => self.end(),
            Some(opcodes::INT_CODE_END) | None => Err(LoaderRule::CodeEnd),
            Some(opcode) => Ok(Some(opcode)),
        }
    }

    fn end(&self) -> Check<Option<u8>> {
        if self.shape == Shape::Inside { Ok(None) } else { Err(LoaderRule::CodeEnd) }
    }

    fn instruction(&mut self, opcode: u8) -> Check {
        let op = opcodes::find(opcode).ok_or(LoaderRule::CodeUnknown)?;
        if op.last == 0 {
            return Err(LoaderRule::CodeObsolete);
        }
        self.highest = self.highest.max(opcode);
        self.found.instructions += 1;
        self.found.operands += op.roles.len() as u64;
        for (place, role) in op.roles.iter().enumerate() {
            let arg = self.operand()?;
            if let Some(slot) = self.args.get_mut(place) {
                *slot = arg;
            }
            self.role(*role, arg)?;
        }
        self.shape(opcode)
    }

    /// The value of an operand that was read.
    pub(super) fn value(&self, place: usize) -> u64 {
        self.args.get(place).map_or(0, |arg| arg.value)
    }

    /// Functions, one after the other; what stands where they begin.
    fn shape(&mut self, opcode: u8) -> Check {
        let label = self.value(0);
        self.shape = match (opcode, self.shape) {
            // Loaders look for the beginning of a function at the number behind (x86, emit_i_nif_padding).
            (opcodes::LABEL, Shape::Info(before)) if label == before + 1 => {
                self.found.labels.entry(label)?;
                Shape::Entry
            }
            (opcodes::LABEL, Shape::Info(_)) => return Err(LoaderRule::CodeFunction),
            // Before the first function there is nothing but where it begins.
            (opcodes::LABEL, Shape::Label(_) | Shape::Line(_)) if self.is_before_functions() => {
                return Err(LoaderRule::CodeFunction);
            }
            (opcodes::LABEL, _) => {
                self.found.labels.define(label)?;
                Shape::Label(label)
            }
            (opcodes::op::LINE, Shape::Label(label)) => Shape::Line(label),
            (opcodes::FUNC_INFO, Shape::Label(label) | Shape::Line(label)) => {
                self.found.labels.function(self.value(1), self.value(2))?;
                Shape::Info(label)
            }
            (opcodes::FUNC_INFO, _) | (_, Shape::Info(_) | Shape::Start) => {
                return Err(LoaderRule::CodeFunction);
            }
            (opcodes::ON_LOAD, Shape::Entry) if !self.found.on_load => {
                self.found.on_load = true;
                Shape::Inside
            }
            (opcodes::ON_LOAD, _) => return Err(LoaderRule::CodeOnLoad),
            _ if self.is_before_functions() => return Err(LoaderRule::CodeFunction),
            _ => Shape::Inside,
        };
        Ok(())
    }

    fn is_before_functions(&self) -> bool {
        self.found.labels.functions().is_empty()
    }

    /// Reads an operand, which may name only what there is.
    pub(super) fn operand(&mut self) -> Check<Arg> {
        let from = self.reader.rest();
        let number = self.reader.tagged().ok_or(LoaderRule::CodeOperand)?;
        let value = number.value.unwrap_or(u64::MAX);
        match number.tag {
            0 if value >> 63 == 0 => Ok(Arg { kind: kind::NUMBER, value }),
            0 => Ok(Arg { kind: kind::HUGE, value }),
            1 => self.integer(from, value),
            2 if value == 0 => Ok(Arg { kind: kind::NIL, value }),
            2 if value <= self.named.atoms.into() => Ok(Arg { kind: kind::ATOM, value }),
            2 => Err(LoaderRule::CodeAtom),
            3 => register(kind::X, value),
            4 => register(kind::Y, value),
            5 if value == 0 => Ok(Arg { kind: kind::EXCEPTION, value }),
            5 if self.found.labels.has_number(value) => Ok(Arg { kind: kind::LABEL, value }),
            5 => Err(LoaderRule::CodeLabel),
            7 => self.extended(value),
            _ => Err(LoaderRule::CodeOperand),
        }
    }

    /// An integer that was read, and began at `from`. One beyond 60 bits becomes a literal.
    fn integer(&mut self, from: &[u8], value: u64) -> Check<Arg> {
        let size = from.len() - self.reader.rest().len() - 1;
        if size < 8 {
            return Ok(Arg { kind: kind::SMALL, value });
        }
        let digits = if size == 8 { from.get(1..9) } else { long_digits(from) };
        let digits = digits.ok_or(LoaderRule::CodeOperand)?;
        let top = value.cast_signed() >> 59;
        if digits.len() == 8 && (top == 0 || top == -1) {
            return Ok(Arg { kind: kind::SMALL, value });
        }
        if let [first, second, ..] = digits
            && matches!((first, second >> 7), (0, 0) | (0xff, 1))
        {
            return Err(LoaderRule::CodeInteger);
        }
        self.found.added += 1;
        self.found.big_words += digits.len() as u64 / 8 + 3;
        Ok(Arg { kind: kind::BIG, value: digits.len() as u64 })
    }

    fn extended(&mut self, which: u64) -> Check<Arg> {
        match which {
            1 => Ok(Arg { kind: kind::LIST, value: self.number()? }),
            2 => register(kind::FLOAT, self.number()?),
            3 => Ok(Arg { kind: kind::NEED, value: self.need()? }),
            4 => match self.number()? {
                value if value < self.named.literals => Ok(Arg { kind: kind::LITERAL, value }),
                _ => Err(LoaderRule::CodeLiteral),
            },
            5 => self.typed_register(),
            _ => Err(LoaderRule::CodeOperand),
        }
    }

    /// A register with what the compiler knows of its type.
    fn typed_register(&mut self) -> Check<Arg> {
        let number = self.reader.tagged().ok_or(LoaderRule::CodeOperand)?;
        let value = number.value.unwrap_or(u64::MAX);
        let arg = match number.tag {
            3 => register(kind::X, value)?,
            4 => register(kind::Y, value)?,
            _ => return Err(LoaderRule::CodeOperand),
        };
        let index = self.number()?;
        match self.named.types {
            Some(count) if index >= count => Err(LoaderRule::CodeType),
            _ => Ok(arg),
        }
    }

    /// What is needed of the heap: pairs of a kind and a number (`marshal_allocation_list`).
    fn need(&mut self) -> Check<u64> {
        let count = self.number()?;
        if count > 3 {
            return Err(LoaderRule::CodeList);
        }
        let mut sum: u64 = 0;
        for _ in 0..count {
            // A word, a float, a fun with its environment.
            let words = match self.number()? {
                0 => 1,
                1 => 2,
                2 => 8,
                _ => return Err(LoaderRule::CodeList),
            };
            sum = sum.saturating_add(self.number()?.saturating_mul(words));
        }
        Ok(sum)
    }

    /// A number without a tag.
    fn number(&mut self) -> Check<u64> {
        match self.reader.tagged().map(|number| (number.tag, number.value)) {
            Some((0, Some(value))) if value >> 63 == 0 => Ok(value),
            _ => Err(LoaderRule::CodeOperand),
        }
    }

    /// Checks an operand by what it must be.
    fn role(&mut self, role: Role, arg: Arg) -> Check {
        let Arg { kind, value } = arg;
        if role.kinds() & kind == 0 {
            return Err(LoaderRule::CodeKind);
        }
        match role {
            Role::Module if value != 1 => Err(LoaderRule::CodeFunction),
            Role::Arity => within(value, ARITY),
            Role::Entry => {
                let arity = self.value(0);
                self.found.labels.call(Call { label: value, arity, at: self.at });
                Ok(())
            }
            Role::Import => self.import(value, self.value(0)),
            Role::Bif0 => self.import(value, 0),
            Role::Bif1 => self.import(value, 1),
            Role::Bif2 => self.import(value, 2),
            Role::Bif3 => self.import(value, 3),
            Role::Fun => {
                self.fun(value)?;
                let made = usize::try_from(value).ok().and_then(|at| self.found.made.get_mut(at));
                made.into_iter().for_each(|made| *made = true);
                Ok(())
            }
            Role::FunTag if kind == kind::NUMBER => self.fun(value),
            Role::Stack | Role::Live => within(value, REGISTERS - 1),
            Role::ZeroedStack => {
                self.found.operands += value;
                within(value, REGISTERS - 1)
            }
            Role::Heap | Role::TupleSize | Role::TupleIndex => within(value, TUPLE),
            Role::Unit if value == 0 => Err(LoaderRule::CodeNumber),
            Role::Unit => within(value, UNIT),
            Role::Flags => within(value, FLAGS),
            Role::Bits | Role::SizeOrSource if kind == kind::NUMBER => within(value, BITS),
            Role::StringBits => {
                self.string = value.div_ceil(8);
                Ok(())
            }
            Role::StringBytes => {
                self.string = value;
                Ok(())
            }
            Role::StringOffset => self.string(value, self.string),
            Role::Line => self.line(value),
            Role::ExecutableLine if self.named.lines.is_none() => Err(LoaderRule::CodeLine),
            Role::ExecutableLine => self.line(value),
            Role::DebugIndex => match self.named.debug {
                Some(count) if value == 0 || value > count => Err(LoaderRule::CodeDebug),
                _ => Ok(()),
            },
            role if kind == kind::LIST => {
                if value > self.reader.rest().len() as u64 {
                    return Err(LoaderRule::CodeList);
                }
                self.found.operands += value;
                self.list(role, value)
            }
            _ => Ok(()),
        }
    }

    fn import(&self, index: u64, arity: u64) -> Check {
        let import = usize::try_from(index).ok().and_then(|index| self.named.imports.get(index));
        match import {
            Some(import) if u64::from(import.arity) == arity => Ok(()),
            _ => Err(LoaderRule::CodeImport),
        }
    }

    /// How many free variables a local fun has.
    pub(super) fn free(&self, index: u64) -> Check<u64> {
        let free = usize::try_from(index).ok().and_then(|index| self.named.free.get(index));
        free.map(|free| u64::from(*free)).ok_or(LoaderRule::CodeFun)
    }

    fn fun(&self, index: u64) -> Check {
        self.free(index).map(|_| ())
    }

    /// A string of so many bytes that begins here.
    pub(super) fn string(&self, from: u64, bytes: u64) -> Check {
        let end = from.checked_add(bytes);
        if end.is_some_and(|end| end <= self.named.strings) {
            Ok(())
        } else {
            Err(LoaderRule::CodeString)
        }
    }

    fn line(&mut self, index: u64) -> Check {
        self.found.lines += 1;
        match self.named.lines {
            Some(count) if index > count => Err(LoaderRule::CodeLine),
            _ => Ok(()),
        }
    }
}

fn register(kind: u32, value: u64) -> Check<Arg> {
    if value < REGISTERS { Ok(Arg { kind, value }) } else { Err(LoaderRule::CodeRegister) }
}

pub(super) fn within(value: u64, most: u64) -> Check {
    if value <= most { Ok(()) } else { Err(LoaderRule::CodeNumber) }
}

/// The bytes of an integer of nine or more: its size stands before them, less nine.
fn long_digits(from: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(from.get(1..)?);
    let size = usize::try_from(reader.tagged()?.value?).ok()?.checked_add(9)?;
    reader.take(size)
}
