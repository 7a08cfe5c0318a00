//! What a function returns, as far as its form can be told without running it.
//!
//! The instructions are gone through once, from front to back, with what is known to be in each
//! register. Where ways meet, what differs is forgotten: the result may leave out what a function
//! returns, and does not make up what it does not. Calls are followed, into other modules too as far
//! as these are known.

use std::collections::HashMap;
use std::rc::Rc;

use super::decode::{self, Arg};
use super::digest::behind_list;
use super::{Function, Functions};
use crate::effort::Effort;
use crate::etf::Outline;
use crate::opcodes::{self, op};
use crate::reader::Reader;

/// How many functions deep calls are followed. Following recurses this deep.
const DEPTH: u32 = 6;

/// How many functions are gone through for one answer.
const FUNCTIONS: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Register {
    X(u64),
    Y(u64),
}

type Registers = HashMap<Register, Rc<Outline>>;

/// How much may be done for one answer, in registers and parts of values that are copied: code made
/// to be slow is left.
const COPIES: usize = 1_000_000;

/// How many parts of a value are remembered, and how deep: its form is that of its top.
const PARTS: usize = 256;
const LEVELS: u32 = 3;

/// A function and the module that it is of.
pub type Found<'f, 'a> = (&'f Functions<'a>, &'f Function);

/// Finds a function of another module, by module, name and arity.
pub type Find<'f, 'a> = &'f dyn Fn(&str, &str, u8) -> Option<Found<'f, 'a>>;

pub(super) struct Returns<'f, 'a> {
    find: Find<'f, 'a>,
    effort: &'f Effort,
    left: u32,
    copies: usize,
}

impl<'f, 'a> Returns<'f, 'a> {
    pub(super) fn new(find: Find<'f, 'a>, effort: &'f Effort) -> Self {
        Returns { find, effort, left: FUNCTIONS, copies: COPIES }
    }

    pub(super) fn of(mut self, function: Found<'f, 'a>) -> Vec<Outline> {
        self.function(function, DEPTH)
    }

    fn function(&mut self, (functions, function): Found<'f, 'a>, depth: u32) -> Vec<Outline> {
        let Some(left) = self.left.checked_sub(1) else { return Vec::new() };
        self.left = left;
        let mut pass = Pass {
            returns: self,
            functions,
            depth,
            known: Some(Registers::new()),
            at_labels: HashMap::new(),
            found: Vec::new(),
        };
        // What cannot be read was found to be so before; and what takes too long is left.
        let _ = pass.run(function);
        pass.found
    }

    /// What a function returns that is called by one of this depth.
    fn called(&mut self, function: Option<Found<'f, 'a>>, depth: u32) -> Vec<Outline> {
        match (function, depth.checked_sub(1)) {
            (Some(function), Some(depth)) => self.function(function, depth),
            _ => Vec::new(),
        }
    }

    /// Counts a value that is made anew and kept.
    fn made(&mut self, value: Option<&Rc<Outline>>) -> Option<()> {
        let new = value.filter(|value| Rc::strong_count(value) == 1);
        self.copy(new.map_or(1, |value| parts(value)))
    }

    /// Counts what is copied; `None` once it is too much.
    fn copy(&mut self, parts: usize) -> Option<()> {
        self.copies = self.copies.checked_sub(parts)?;
        Some(())
    }
}

/// Whether a function does nothing but to return `{ok, ...}` with these of its arguments, counted
/// from 0.
pub(super) fn gives_back(
    functions: &Functions<'_>,
    function: &Function,
    arguments: &[u64],
) -> Option<bool> {
    let mut reader = Reader::new(functions.code.instructions().get(function.place.clone())?);
    let mut args = Vec::new();
    let mut made = false;
    while !reader.rest().is_empty() {
        match decode::read(&mut reader, &functions.tables.atoms, &mut args).ok()? {
            opcodes::LABEL | op::LINE | op::TEST_HEAP => {}
            op::PUT_TUPLE2 if !made => match args.as_slice() {
                [Arg::X(0), Arg::List(_), Arg::Atom(ok), states @ ..] => {
                    let wanted = arguments.iter().map(|place| Arg::X(*place));
                    made = functions.tables.atoms.text(*ok) == "ok"
                        && states.iter().copied().eq(wanted);
                }
                _ => return Some(false),
            },
            op::RETURN => return Some(made),
            _ => return Some(false),
        }
    }
    None
}

/// Whether a function makes the struct of the module that it is given first, as that is when it runs.
pub fn makes_struct(module: &str, function: &str) -> bool {
    module == "Elixir.Kernel" && matches!(function, "struct" | "struct!")
}

/// One way through a function.
struct Pass<'r, 'f, 'a> {
    returns: &'r mut Returns<'f, 'a>,
    /// Those of the module that the function is of.
    functions: &'f Functions<'a>,
    depth: u32,
    /// What is in the registers; `None` where nothing leads to.
    known: Option<Registers>,
    /// What is in the registers at labels further on.
    at_labels: HashMap<u64, Registers>,
    found: Vec<Outline>,
}

impl<'f, 'a> Pass<'_, 'f, 'a> {
    fn run(&mut self, function: &Function) -> Option<()> {
        let functions = self.functions;
        let mut reader = Reader::new(functions.code.instructions().get(function.place.clone())?);
        let mut args = Vec::new();
        while !reader.rest().is_empty() {
            self.returns.effort.work(1).ok()?;
            let opcode = decode::read(&mut reader, &functions.tables.atoms, &mut args).ok()?;
            if let (opcodes::LABEL, [Arg::Number(label)]) = (opcode, args.as_slice()) {
                let jumped = self.at_labels.remove(label);
                self.known = meet(self.known.take(), jumped);
                continue;
            }
            if let Some(known) = self.known.take() {
                self.known = self.instruction(opcode, &args, known);
            }
        }
        Some(())
    }

    /// What is in the registers behind an instruction; `None` if it does not go on there.
    fn instruction(
        &mut self,
        opcode: u8,
        args: &[Arg<'_>],
        mut known: Registers,
    ) -> Option<Registers> {
        match opcode {
            op::RETURN => {
                let returned = known.remove(&Register::X(0))?;
                self.returns.copy(parts(&returned))?;
                self.found.push(Rc::unwrap_or_clone(returned));
                return None;
            }
            op::CALL_ONLY | op::CALL_LAST | op::CALL_EXT_ONLY | op::CALL_EXT_LAST => {
                let returned = self.called(args, &known);
                self.found.extend(returned);
                return None;
            }
            opcode if ends(opcode) => return None,
            _ => {}
        }
        self.change(opcode, args, &mut known)?;
        self.branch(opcode, args, &known)?;
        goes_on(opcode).then_some(known)
    }

    /// What a function returns that is called by an instruction with these arguments.
    fn called(&mut self, args: &[Arg<'_>], known: &Registers) -> Vec<Outline> {
        let function = match args {
            [_, Arg::Label(label), ..] => self.local(*label),
            [_, Arg::Number(import), ..] => self.external(*import, known),
            _ => None,
        };
        self.returns.called(function, self.depth)
    }

    fn local(&self, label: u64) -> Option<Found<'f, 'a>> {
        let place = self.functions.tables.labels.get(label)?;
        Some((self.functions, self.functions.list.get(place.function as usize)?))
    }

    fn external(&self, import: u64, known: &Registers) -> Option<Found<'f, 'a>> {
        let tables = &self.functions.tables;
        let import = tables.imports.get(usize::try_from(import).ok()?)?;
        let [module, function] = [import.module, import.function].map(|id| tables.atoms.text(id));
        if makes_struct(module, function) {
            // It calls this function of the module that it is given.
            let Some(Outline::Atom(of)) = known.get(&Register::X(0)).map(Rc::as_ref) else {
                return None;
            };
            return (self.returns.find)(of, "__struct__", 0);
        }
        (self.returns.find)(module, function, import.arity)
    }

    /// What an instruction does to the registers.
    fn change(&mut self, opcode: u8, args: &[Arg<'_>], known: &mut Registers) -> Option<()> {
        // What is called is known by what it is given, and leaves little of that.
        let returned = match opcode {
            op::CALL | op::CALL_EXT => self.called(args, known),
            _ => Vec::new(),
        };
        match (opcode, args) {
            (op::MOVE, [from, to]) => {
                let value = self.value(from, known);
                self.returns.made(value.as_ref())?;
                set(known, to, value);
            }
            (op::SWAP, [one, other]) => {
                let values = (self.value(one, known), self.value(other, known));
                set(known, one, values.1);
                set(known, other, values.0);
            }
            (op::TRIM, [Arg::Number(count), ..]) => {
                self.returns.copy(known.len())?;
                let all = std::mem::take(known).into_iter();
                *known = all.filter_map(|(at, is)| Some((at.down(*count)?, is))).collect();
            }
            (op::PUT_TUPLE2, [to, Arg::List(_), elements @ ..]) => {
                let tuple = self.tuple(elements, known);
                self.returns.made(tuple.as_ref())?;
                set(known, to, tuple);
            }
            (op::PUT_MAP_ASSOC | op::PUT_MAP_EXACT, [_, from, to, ..]) => {
                let map = self.map(from, behind_list(args), known);
                self.returns.made(map.as_ref())?;
                set(known, to, map);
            }
            _ if changes_nothing(opcode) => {}
            // Whatever else it does, only registers that it names can have changed, and those it
            // is known to change without naming them.
            _ => {
                for register in args.iter().filter_map(register) {
                    known.remove(&register);
                }
                if let Some(forgotten) = unnamed(opcode) {
                    self.returns.copy(known.len())?;
                    known.retain(|register, _| !forgotten.has(*register));
                }
            }
        }
        // Only what it returns always is what it has returned.
        let mut returned = returned.into_iter();
        if let (Some(only), None) = (returned.next(), returned.next()) {
            known.insert(Register::X(0), Rc::new(only));
        }
        Some(())
    }

    /// Where an instruction may lead, the same is known; where an exception leads to, only the
    /// stack is.
    fn branch(&mut self, opcode: u8, args: &[Arg<'_>], known: &Registers) -> Option<()> {
        if opcode == op::CALL {
            return Some(());
        }
        for arg in args {
            let Arg::Label(label) = arg else { continue };
            self.returns.copy(known.len() + 1)?;
            let mut there = known.clone();
            if matches!(opcode, op::TRY | op::CATCH) {
                there.retain(|register, _| !Forgotten::X.has(*register));
            }
            let met = meet(self.at_labels.remove(label), Some(there));
            self.at_labels.extend(met.map(|met| (*label, met)));
        }
        Some(())
    }

    fn value(&self, arg: &Arg<'_>, known: &Registers) -> Option<Rc<Outline>> {
        let tables = &self.functions.tables;
        match arg {
            Arg::Atom(id) => Some(Rc::new(Outline::Atom(tables.atoms.text(*id).to_owned()))),
            Arg::Literal(index) => {
                let literal = tables.literals.get(*index)?;
                cut(&literal.outline, LEVELS, &mut { PARTS }).map(Rc::new)
            }
            arg => known.get(&register(arg)?).cloned(),
        }
    }

    fn tuple(&self, elements: &[Arg<'_>], known: &Registers) -> Option<Rc<Outline>> {
        let mut parts = PARTS;
        let elements = elements.iter().map(|arg| self.part(arg, known, &mut parts));
        Some(Rc::new(Outline::Tuple(elements.collect::<Option<_>>()?)))
    }

    /// A map with more or other keys. One that is not known stays so.
    fn map(&self, from: &Arg<'_>, pairs: &[Arg<'_>], known: &Registers) -> Option<Rc<Outline>> {
        let map = self.value(from, known)?;
        let Outline::Map(fields) = map.as_ref() else { return None };
        let mut fields = fields.clone();
        let mut parts = PARTS.checked_sub(fields.len())?;
        let atoms = &self.functions.tables.atoms;
        for pair in pairs.chunks(2) {
            let [Arg::Atom(key), value] = pair else { continue };
            let key = atoms.text(*key).to_owned();
            let value = self.part(value, known, &mut parts)?;
            match fields.iter_mut().find(|(name, _)| *name == key) {
                Some(field) => field.1 = value,
                None => fields.push((key, value)),
            }
        }
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        Some(Rc::new(Outline::Map(fields)))
    }

    /// A part of a value; `None` if there are too many.
    fn part(&self, arg: &Arg<'_>, known: &Registers, parts: &mut usize) -> Option<Outline> {
        match self.value(arg, known) {
            Some(value) => cut(&value, LEVELS - 1, parts),
            None => cut(&Outline::Other, 0, parts),
        }
    }
}

/// Registers that an instruction changes without naming them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgotten {
    X0,
    X,
    Y,
    All,
}

impl Forgotten {
    fn has(self, register: Register) -> bool {
        match self {
            Forgotten::X0 => register == Register::X(0),
            Forgotten::X => matches!(register, Register::X(_)),
            Forgotten::Y => matches!(register, Register::Y(_)),
            Forgotten::All => true,
        }
    }
}

/// What each instruction changes without naming it (genop.tab, and beam_validator of OTP's
/// compiler, which follows the same registers).
fn unnamed(opcode: u8) -> Option<Forgotten> {
    match opcode {
        op::MAKE_FUN2 | op::BS_INIT_WRITABLE | op::BUILD_STACKTRACE | op::RAW_RAISE => {
            Some(Forgotten::X0)
        }
        // What is called leaves nothing in them; where an exception is caught, class, reason and
        // stack trace are in the first.
        op::CALL | op::CALL_EXT | op::CALL_FUN | op::CALL_FUN2 | op::APPLY | op::SEND => {
            Some(Forgotten::X)
        }
        op::CATCH_END | op::TRY_CASE => Some(Forgotten::X),
        // A stack frame comes or goes.
        op::ALLOCATE..=op::ALLOCATE_HEAP_ZERO | op::DEALLOCATE => Some(Forgotten::Y),
        // A tuple is changed in place, wherever else it is known.
        op::SET_TUPLE_ELEMENT => Some(Forgotten::All),
        _ => None,
    }
}

/// Tests, and what says nothing of registers.
fn changes_nothing(opcode: u8) -> bool {
    matches!(
        opcode,
        op::IS_LT..=op::JUMP
            | op::IS_BOOLEAN..=op::IS_FUNCTION2
            | op::IS_MAP
            | op::HAS_MAP_FIELDS
            | op::IS_TAGGED_TUPLE
            | op::TEST_HEAP
            | op::LINE
            | op::EXECUTABLE_LINE
            | op::DEBUG_LINE
    )
}

/// Where the function ends otherwise than by a value that is known here.
fn ends(opcode: u8) -> bool {
    matches!(
        opcode,
        op::APPLY_LAST | op::BADMATCH..=op::CASE_END | op::TRY_CASE_END | op::RAISE | op::BADRECORD
    )
}

/// Whether what stands behind an instruction may be next.
fn goes_on(opcode: u8) -> bool {
    !matches!(opcode, op::JUMP | op::SELECT_VAL | op::SELECT_TUPLE_ARITY)
}

/// How many parts a value has.
fn parts(value: &Outline) -> usize {
    match value {
        Outline::Tuple(elements) => 1 + elements.iter().map(parts).sum::<usize>(),
        Outline::Map(fields) => 1 + fields.iter().map(|(_, value)| parts(value)).sum::<usize>(),
        Outline::Functions(list) => 1 + list.len(),
        Outline::Atom(_) | Outline::Other => 1,
    }
}

/// A value down to a level; `None` if it has too many parts.
fn cut(value: &Outline, levels: u32, parts: &mut usize) -> Option<Outline> {
    *parts = parts.checked_sub(1)?;
    let less = levels.checked_sub(1);
    Some(match (value, less) {
        (Outline::Tuple(elements), Some(less)) => {
            let elements = elements.iter().map(|element| cut(element, less, parts));
            Outline::Tuple(elements.collect::<Option<_>>()?)
        }
        (Outline::Map(fields), Some(less)) => {
            let fields =
                fields.iter().map(|(key, value)| Some((key.clone(), cut(value, less, parts)?)));
            Outline::Map(fields.collect::<Option<_>>()?)
        }
        (Outline::Atom(name), _) => Outline::Atom(name.clone()),
        _ => Outline::Other,
    })
}

impl Register {
    /// The register when `count` of the stack are gone.
    fn down(self, count: u64) -> Option<Self> {
        match self {
            Register::X(_) => Some(self),
            Register::Y(number) => number.checked_sub(count).map(Register::Y),
        }
    }
}

fn register(arg: &Arg<'_>) -> Option<Register> {
    match arg {
        Arg::X(number) => Some(Register::X(*number)),
        Arg::Y(number) => Some(Register::Y(*number)),
        _ => None,
    }
}

fn set(known: &mut Registers, to: &Arg<'_>, value: Option<Rc<Outline>>) {
    let Some(to) = register(to) else { return };
    match value {
        Some(value) => known.insert(to, value),
        None => known.remove(&to),
    };
}

/// What is known on both ways, where there are two.
fn meet(one: Option<Registers>, other: Option<Registers>) -> Option<Registers> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.retain(|register, is| other.get(register) == Some(is));
            Some(one)
        }
        (one, other) => one.or(other),
    }
}
