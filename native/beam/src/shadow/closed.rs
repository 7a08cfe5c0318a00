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
//! | a function that receives | `receives()`, where it begins |
//! | a function with an instruction that makes atoms (OTP 29) | `makes_atoms()`, where it begins |
//!
//! What ends in an exception is left as it is: the compiler relies on it that it does not return. So
//! are instructions for functions that may stand in guards. The other functions that an instruction can
//! name are none that code could do without: a module with one is refused.

use std::collections::HashMap;

use super::Reason;
use super::by_name::{self, Calls};
use super::code::{PLAIN, UNREADABLE};
use super::names::Names;
use crate::damage::Damage;
use crate::opcodes::{self, op};
use crate::operands::{self, Operands};
use crate::reader::Reader;
use crate::verify::Verified;
use crate::writer::Writer;

/// The functions of the helper for calls of funs, messages, and functions that receive.
const CALL_FUN: &str = "call_fun";
const SEND: &str = "send";
const RECEIVES: &str = "receives";
const MAKES_ATOMS: &str = "makes_atoms";

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

/// What an instruction may name besides operators, of `erlang`: none of them has an effect.
const GUARDS: &str = " abs/1 binary_part/2 binary_part/3 bit_size/1 byte_size/1 ceil/1 element/2 float/1 \
    floor/1 get/1 hd/1 is_atom/1 is_binary/1 is_bitstring/1 is_boolean/1 is_float/1 is_function/1 \
    is_function/2 is_integer/1 is_integer/3 is_list/1 is_map/1 is_map_key/2 is_number/1 is_pid/1 is_port/1 \
    is_record/2 is_record/3 is_reference/1 is_tuple/1 length/1 map_get/2 map_size/1 max/2 min/2 node/0 \
    node/1 round/1 self/0 size/1 tl/1 trunc/1 tuple_size/1 and/2 or/2 xor/2 not/1 band/2 bor/2 bxor/2 \
    bnot/1 bsl/2 bsr/2 div/2 rem/2 */2 +/1 +/2 -/1 -/2 //2 /=/2 </2 =/=/2 =:=/2 =</2 ==/2 >/2 >=/2 ";

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
    /// What functions do that are left where they begin, by the length of what is left of the code there.
    leaving: HashMap<usize, &'static str>,
}

impl Ways {
    pub(super) fn new(module: &Verified<'_>, names: &Names<'_>) -> Result<Self, Reason> {
        if module.on_load() {
            return Err(Reason::OnLoad);
        }
        let atoms = module.atoms();
        let imports = module.imports().iter().map(|import| {
            let [of, function] = [import.module, import.function].map(|id| atoms.text(id));
            let fails = of == "erlang" && EXCEPTIONS.contains(&(function, import.arity));
            if fails || names.has(of) {
                Lead::Within
            } else {
                Lead::Out(import.module.place(), import.function.place())
            }
        });
        let leaving = leaving(module)?;
        Ok(Ways { imports: imports.collect(), leaving })
    }

    /// What a function does, which is left where it begins: with the label that stands here.
    pub(super) fn leaves(&self, label: &[u8]) -> Option<&'static str> {
        self.leaving.get(&label.len()).copied()
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

/// Has the header of a chunk say that there are instructions which may have come in.
pub(super) fn raise_highest(code: &mut [u8]) {
    let highest = u32::from(op::CALL_EXT_ONLY).to_be_bytes();
    if let Some(word) = code.get_mut(8..12)
        && &*word < highest.as_slice()
    {
        word.copy_from_slice(&highest);
    }
}

/// Functions that are left where they begin. No other instruction has an effect: that is made sure of on
/// the way.
fn leaving(module: &Verified<'_>) -> Result<HashMap<usize, &'static str>, Reason> {
    let mut found = HashMap::new();
    let mut reader = Reader::new(module.code().instructions());
    // Where the function begins, which is the label behind `func_info`.
    let mut begins = None;
    let mut told = false;
    loop {
        let from = reader.rest().len();
        let Some(opcode) = reader.u8() else { return Ok(found) };
        match opcode {
            opcodes::FUNC_INFO => (begins, told) = (None, true),
            opcodes::LABEL if told => (begins, told) = (Some(from), false),
            _ => {}
        }
        if receives_or_more(opcodes::find(opcode).ok_or(UNREADABLE)?.name) {
            found.insert(begins.ok_or(UNREADABLE)?, RECEIVES);
        }
        let named = crate::functions::import_place(opcode);
        let named = named
            .filter(|_| !matches!(opcode, op::CALL_EXT..=op::CALL_EXT_LAST | op::CALL_EXT_ONLY));
        let count = opcodes::operands(opcode).unwrap_or_default();
        for (place, operand) in Operands::new(&mut reader, count).enumerate() {
            let operand = operand.ok_or(UNREADABLE)?;
            if named == Some(place) && makes_atoms(module, operand.number.value)? {
                found.entry(begins.ok_or(UNREADABLE)?).or_insert(MAKES_ATOMS);
            }
        }
    }
}

/// Whether an instruction has to do with receiving, or begins what has effects.
fn receives_or_more(name: &str) -> bool {
    matches!(name, "remove_message" | "timeout" | "wait" | "wait_timeout" | "nif_start" | "on_load")
        || name.starts_with("loop_rec")
        || name.starts_with("recv_")
}

/// Whether a function that an instruction names makes atoms; else it must be one that may stand in
/// guards, or have no effects.
fn makes_atoms(module: &Verified<'_>, import: Option<u64>) -> Result<bool, Reason> {
    let import = import.and_then(|import| module.imports().get(usize::try_from(import).ok()?));
    let import = import.ok_or(UNREADABLE)?;
    let [of, function] = [import.module, import.function].map(|id| module.atoms().text(id));
    let name = format!("{function}/{}", import.arity);
    let may_guard = !name.contains(' ') && GUARDS.contains(&format!(" {name} "));
    // OTP 29 has instructions call others that only work something out.
    if of == "erlang" && (may_guard || crate::functions::is_pure(of, function, import.arity)) {
        return Ok(matches!(function, "list_to_atom" | "binary_to_atom" | "binary_to_term"));
    }
    Err(Reason::Instruction(format!("{of}:{name}")))
}
