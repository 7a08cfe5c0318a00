//! What is left in a closed set instead of being carried out: receiving, for nobody else's mailbox is there to be
//! looked into, and instructions that make atoms.
//!
//! What receives is left where it stands, so that the other ways through a function are open: all clauses of a callback are one
//! function. The call stands in the place of the instruction and takes the function's part of the
//! stack with it, so it has to be known how much that is, by every way that leads there. Nothing is taken
//! where something is caught: the VM counts what it has to find. Then the whole function is left, where it
//! begins, as is one with an instruction that makes atoms.

use std::collections::HashMap;

use super::Reason;
use super::closed::{MAKES_ATOMS, RECEIVES, fails};
use super::code::{PLAIN, UNREADABLE};
use crate::opcodes::{self, op};
use crate::operands::{LABEL, Operands};
use crate::reader::Reader;
use crate::tables::ImportEntry;
use crate::verify::Verified;

/// What an instruction may name besides operators, of `erlang`: none of them has an effect.
const GUARDS: &str = " abs/1 binary_part/2 binary_part/3 bit_size/1 byte_size/1 ceil/1 element/2 float/1 \
    floor/1 get/1 hd/1 is_atom/1 is_binary/1 is_bitstring/1 is_boolean/1 is_float/1 is_function/1 \
    is_function/2 is_integer/1 is_integer/3 is_list/1 is_map/1 is_map_key/2 is_number/1 is_pid/1 is_port/1 \
    is_record/2 is_record/3 is_reference/1 is_tuple/1 length/1 map_get/2 map_size/1 max/2 min/2 node/0 \
    node/1 round/1 self/0 size/1 tl/1 trunc/1 tuple_size/1 and/2 or/2 xor/2 not/1 band/2 bor/2 bxor/2 \
    bnot/1 bsl/2 bsr/2 div/2 rem/2 */2 +/1 +/2 -/1 -/2 //2 /=/2 </2 =/=/2 =:=/2 =</2 ==/2 >/2 >=/2 ";

/// How much of the stack a function has taken, if it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stack(pub(super) Option<u32>);

/// Places by the length of what is left of the code there.
#[derive(Default)]
pub(super) struct Leaving {
    /// The labels with which functions begin that are left there, and what they do.
    begins: HashMap<usize, &'static str>,
    /// Instructions that receive.
    receives: HashMap<usize, Stack>,
}

impl Leaving {
    /// Finds them. No other instruction has an effect: that is made sure of on the way.
    pub(super) fn read(module: &Verified<'_>) -> Result<Self, Reason> {
        let mut leaving = Leaving::default();
        let mut function = Function::default();
        let mut reader = Reader::new(module.code().instructions());
        loop {
            let from = reader.rest().len();
            let Some(opcode) = reader.u8() else { break };
            if opcode == opcodes::FUNC_INFO {
                leaving.add(std::mem::take(&mut function))?;
            }
            function.instruction(opcode, from, &mut reader, module)?;
        }
        leaving.add(function)?;
        Ok(leaving)
    }

    fn add(&mut self, function: Function) -> Result<(), Reason> {
        let sure = !function.catches && !function.torn;
        let receives: Option<Vec<(usize, Stack)>> =
            function.receives.iter().map(|(place, stack)| Some((*place, (*stack)?))).collect();
        let what = match receives {
            _ if function.makes_atoms => MAKES_ATOMS,
            Some(receives) if sure || receives.is_empty() => {
                self.receives.extend(receives);
                return Ok(());
            }
            _ => RECEIVES,
        };
        self.begins.insert(function.begins.ok_or(UNREADABLE)?, what);
        Ok(())
    }

    /// What a function does, which is left where it begins: with the label that stands here.
    pub(super) fn begins(&self, label: &[u8]) -> Option<&'static str> {
        self.begins.get(&label.len()).copied()
    }

    /// Whether the instruction that stands here receives, and is left.
    pub(super) fn receives(&self, instruction: &[u8]) -> Option<Stack> {
        self.receives.get(&instruction.len()).copied()
    }
}

/// A function, from its `func_info` on, as far as it was read.
#[derive(Default)]
struct Function {
    /// Where it begins, which is the label behind `func_info`.
    begins: Option<usize>,
    told: bool,
    receives: Vec<(usize, Option<Stack>)>,
    makes_atoms: bool,
    catches: bool,
    /// What it has of the stack here; nothing is known where only a jump from further on leads.
    here: Option<Stack>,
    labels: HashMap<u64, Stack>,
    /// Ways that meet have not the same of the stack: something was not understood.
    torn: bool,
}

impl Function {
    fn instruction(
        &mut self,
        opcode: u8,
        from: usize,
        reader: &mut Reader<'_>,
        module: &Verified<'_>,
    ) -> Result<(), Reason> {
        if receives_or_more(opcodes::find(opcode).ok_or(UNREADABLE)?.name) {
            self.receives.push((from, self.here));
        }
        self.catches |= matches!(opcode, op::TRY | op::CATCH);
        let named = crate::functions::import_place(opcode);
        let calls = matches!(opcode, op::CALL_EXT..=op::CALL_EXT_LAST | op::CALL_EXT_ONLY);
        let mut plain = [None; 2];
        let mut ends = ends(opcode);
        let count = opcodes::operands(opcode).unwrap_or_default();
        for (place, operand) in Operands::new(reader, count).enumerate() {
            let number = operand.ok_or(UNREADABLE)?.number;
            if let Some(plain) = plain.get_mut(place)
                && number.tag == PLAIN
            {
                *plain = number.value;
            }
            if number.tag == LABEL && !matches!(opcode, op::CALL..=op::CALL_ONLY) {
                self.jump(number.value.ok_or(UNREADABLE)?);
            }
            if named == Some(place) && calls {
                ends |= import(module, number.value).is_some_and(|import| fails(module, import));
            } else if named == Some(place) {
                self.makes_atoms |= makes_atoms(module, number.value)?;
            }
        }
        self.behind(opcode, from, plain, ends);
        Ok(())
    }

    /// What the function has of the stack behind an instruction.
    fn behind(&mut self, opcode: u8, from: usize, plain: [Option<u64>; 2], ends: bool) {
        let words = |number: Option<u64>| Some(Stack(Some(u32::try_from(number?).ok()?)));
        match opcode {
            opcodes::FUNC_INFO => (self.told, self.here) = (true, None),
            opcodes::LABEL if self.told => {
                (self.begins, self.told, self.here) = (Some(from), false, Some(Stack(None)));
                self.label(plain[0]);
            }
            opcodes::LABEL => self.label(plain[0]),
            op::ALLOCATE..=op::ALLOCATE_HEAP_ZERO => self.here = words(plain[0]),
            op::TRIM => self.here = words(plain[1]),
            op::DEALLOCATE => self.here = Some(Stack(None)),
            _ if ends => self.here = None,
            _ => {}
        }
    }

    fn label(&mut self, label: Option<u64>) {
        let Some(label) = label else { return self.torn = true };
        match self.here {
            Some(_) => self.jump(label),
            None => self.here = self.labels.get(&label).copied(),
        }
    }

    fn jump(&mut self, label: u64) {
        if label != 0
            && let Some(here) = self.here
        {
            self.torn |= *self.labels.entry(label).or_insert(here) != here;
        }
    }
}

/// Whether nothing goes on behind an instruction, but by a label.
fn ends(opcode: u8) -> bool {
    matches!(
        opcode,
        op::CALL_LAST
            | op::CALL_ONLY
            | op::CALL_EXT_LAST
            | op::CALL_EXT_ONLY
            | op::APPLY_LAST
            | op::RETURN
            | op::JUMP
            | op::SELECT_VAL
            | op::SELECT_TUPLE_ARITY
            | op::BADMATCH
            | op::CASE_END
            | op::IF_END
            | op::TRY_CASE_END
            | op::BADRECORD
            | op::LOOP_REC_END
            | op::WAIT
    )
}

/// Whether an instruction has to do with receiving, or begins what has effects.
fn receives_or_more(name: &str) -> bool {
    matches!(name, "remove_message" | "timeout" | "wait" | "wait_timeout" | "nif_start" | "on_load")
        || name.starts_with("loop_rec")
        || name.starts_with("recv_")
}

fn import(module: &Verified<'_>, place: Option<u64>) -> Option<ImportEntry> {
    module.imports().get(usize::try_from(place?).ok()?).copied()
}

/// Whether a function that an instruction names makes atoms; else it must be one that may stand in
/// guards, or have no effects.
fn makes_atoms(module: &Verified<'_>, place: Option<u64>) -> Result<bool, Reason> {
    let import = import(module, place).ok_or(UNREADABLE)?;
    let [of, function] = [import.module, import.function].map(|id| module.atoms().text(id));
    let name = format!("{function}/{}", import.arity);
    let may_guard = !name.contains(' ') && GUARDS.contains(&format!(" {name} "));
    // OTP 29 has instructions call others that only work something out.
    if of == "erlang" && (may_guard || crate::functions::is_pure(of, function, import.arity)) {
        return Ok(matches!(function, "list_to_atom" | "binary_to_atom" | "binary_to_term"));
    }
    Err(Reason::Instruction(format!("{of}:{name}")))
}
