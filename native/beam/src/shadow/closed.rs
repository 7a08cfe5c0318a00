//! Ways out of a closed set: calls of modules that are not of it, calls of funs, messages.
//!
//! Each becomes a call of a function of the helper. A call kills the registers that an instruction
//! in its place would have killed, and its arguments stand where they stood; what is to be said
//! besides is moved behind them, where nothing lives at a call:
//!
//! | instruction | becomes |
//! |---|---|
//! | `call_ext`, `call_ext_only`, `call_ext_last` of `M:F/A` | `call(X0, .., M, F)`, in the same way |
//! | `call_fun`, `call_fun2` | `call_fun(X0, .., Fun)` |
//! | `send` | `send(X0, X1)` |
//! | what has to do with receiving | `receives()`, or where the function begins, see [`leaving`](super::leaving) |
//! | a function with an instruction that makes atoms (OTP 29) | `makes_atoms()`, where it begins |
//!
//! What ends in an exception is left as it is: the compiler relies on it that it does not return. So
//! are instructions for functions that may stand in guards. The other functions that an instruction can
//! name are none that code could do without: a module with one is refused.

use super::Reason;
use super::by_name::{self, Calls};
use super::code::{PLAIN, UNREADABLE};
use super::leaving::{Leaving, Stack};
use super::names::Names;
use crate::damage::Damage;
use crate::opcodes::op;
use crate::operands::{self, Operands};
use crate::reader::Reader;
use crate::tables::ImportEntry;
use crate::verify::Verified;
use crate::writer::Writer;

/// The functions of the helper for calls of funs, messages, and what receives.
const CALL_FUN: &str = "call_fun";
const SEND: &str = "send";
pub(super) const RECEIVES: &str = "receives";
pub(super) const MAKES_ATOMS: &str = "makes_atoms";

/// What ends in an exception, of `erlang`.
const EXCEPTIONS: [(&str, u8); 7] = [
    ("error", 1),
    ("error", 2),
    ("error", 3),
    ("exit", 1),
    ("throw", 1),
    ("nif_error", 1),
    ("nif_error", 2),
];

/// The tag of an X register.
const X: u8 = 3;

/// What a call leads to.
#[derive(Clone, Copy)]
enum Lead {
    /// To what may stay as it is.
    Within,
    /// To a module that is not of the set: the places of its name and the function's.
    Out(u32, u32),
}

/// Where the code of a module leads out of the set.
pub(super) struct Ways {
    imports: Vec<Lead>,
    /// What is left, and where.
    pub(super) leaving: Leaving,
}

impl Ways {
    pub(super) fn new(module: &Verified<'_>, names: &Names<'_>) -> Result<Self, Reason> {
        if module.on_load() {
            return Err(Reason::OnLoad);
        }
        let atoms = module.atoms();
        let imports = module.imports().iter().map(|import| {
            if fails(module, *import) || names.has(atoms.text(import.module)) {
                Lead::Within
            } else {
                Lead::Out(import.module.place(), import.function.place())
            }
        });
        Ok(Ways { imports: imports.collect(), leaving: Leaving::read(module)? })
    }

    /// The way out that an instruction is, if it is one; `reader` stands at its operands.
    pub(super) fn out<'a>(
        &self,
        opcode: u8,
        mut reader: Reader<'a>,
    ) -> Result<Option<Way<'a>>, Reason> {
        let found = match opcode {
            op::CALL_EXT | op::CALL_EXT_ONLY | op::CALL_EXT_LAST => self.call(opcode, &mut reader),
            op::CALL_FUN => number(&mut reader).map(|arguments| Some(Lent::Fun(arguments, None))),
            op::CALL_FUN2 => given_fun(&mut reader).map(Some),
            op::SEND => Some(Some(Lent::Send)),
            _ => return Ok(None),
        };
        let lent = found.ok_or(UNREADABLE)?;
        Ok(lent.map(|lent| Way { lent, behind: reader.rest() }))
    }

    fn call<'a>(&self, opcode: u8, reader: &mut Reader<'a>) -> Option<Option<Lent<'a>>> {
        let arguments = number(reader)?;
        let import = usize::try_from(number(reader)?).ok()?;
        let deallocate = match opcode {
            op::CALL_EXT_LAST => Some(u32::try_from(number(reader)?).ok()?),
            _ => None,
        };
        Some(match self.imports.get(import)? {
            Lead::Within => None,
            Lead::Out(module, function) => {
                Some(Lent::Call { opcode, arguments, names: [*module, *function], deallocate })
            }
        })
    }
}

/// Whether a function that is imported ends in an exception.
pub(super) fn fails(module: &Verified<'_>, import: ImportEntry) -> bool {
    let [of, function] = [import.module, import.function].map(|id| module.atoms().text(id));
    of == "erlang" && EXCEPTIONS.contains(&(function, import.arity))
}

/// A call of a fun that is named where it is called: how many arguments, and where it is.
fn given_fun<'a>(reader: &mut Reader<'a>) -> Option<Lent<'a>> {
    let _tag = reader.tagged()?;
    let arguments = number(reader)?;
    let from = reader.rest();
    for operand in Operands::new(reader, 1) {
        operand?;
    }
    let size = from.len().checked_sub(reader.rest().len())?;
    Some(Lent::Fun(arguments, from.get(..size)))
}

fn number(reader: &mut Reader<'_>) -> Option<u64> {
    let number = reader.tagged()?;
    if number.tag == PLAIN { number.value } else { None }
}

/// A way out, and the code behind it.
pub(super) struct Way<'a> {
    lent: Lent<'a>,
    pub(super) behind: &'a [u8],
}

/// What is done by the helper.
enum Lent<'a> {
    Call {
        opcode: u8,
        arguments: u64,
        names: [u32; 2],
        deallocate: Option<u32>,
    },
    /// With so many arguments; the operand that is the fun, where it does not stand behind them.
    Fun(u64, Option<&'a [u8]>),
    Send,
}

impl Way<'_> {
    pub(super) fn write(&self, out: &mut Writer, calls: &mut Calls) -> Result<(), Reason> {
        match &self.lent {
            Lent::Call { opcode, arguments, names, deallocate } => {
                let (arity, import) = calls.import(by_name::CALL, Some(*arguments), 2)?;
                for (name, behind) in names.iter().zip([2, 1]) {
                    out.put(&[op::MOVE])?;
                    out.tagged(operands::ATOM, *name)?;
                    out.tagged(X, arity.saturating_sub(behind))?;
                }
                call(out, *opcode, arity, import)?;
                if let Some(words) = deallocate {
                    out.tagged(PLAIN, *words)?;
                }
            }
            Lent::Fun(arguments, fun) => {
                let (arity, import) = calls.import(CALL_FUN, Some(*arguments), 1)?;
                if let Some(fun) = fun {
                    out.put(&[op::MOVE])?;
                    out.put(fun)?;
                    out.tagged(X, arity.saturating_sub(1))?;
                }
                call(out, op::CALL_EXT, arity, import)?;
            }
            Lent::Send => {
                let (arity, import) = calls.import(SEND, Some(2), 0)?;
                call(out, op::CALL_EXT, arity, import)?;
            }
        }
        Ok(())
    }
}

fn call(out: &mut Writer, opcode: u8, arity: u32, import: u32) -> Result<(), Damage> {
    out.put(&[opcode])?;
    out.tagged(PLAIN, arity)?;
    out.tagged(PLAIN, import)
}

/// What a function does instead that is left where it begins. Nothing leads to the rest of it.
pub(super) fn leave(what: &'static str, out: &mut Writer, calls: &mut Calls) -> Result<(), Reason> {
    let (arity, import) = calls.import(what, Some(0), 0)?;
    Ok(call(out, op::CALL_EXT_ONLY, arity, import)?)
}

/// The same in the middle of a function, where it has this much of the stack: that goes, for nobody comes back.
pub(super) fn receive(stack: Stack, out: &mut Writer, calls: &mut Calls) -> Result<(), Reason> {
    let Stack(Some(words)) = stack else { return leave(RECEIVES, out, calls) };
    let (arity, import) = calls.import(RECEIVES, Some(0), 0)?;
    call(out, op::CALL_EXT_LAST, arity, import)?;
    Ok(out.tagged(PLAIN, words)?)
}

/// Has the header of a chunk say that there are instructions which may have come in.
pub(super) fn raise_highest(code: &mut [u8]) {
    let highest = u32::from(op::CALL_EXT_ONLY).to_be_bytes();
    if let Some(word) = code.get_mut(8..12)
        && &*word < highest.as_slice()
    {
        word.copy_from_slice(&highest);
    }
}
