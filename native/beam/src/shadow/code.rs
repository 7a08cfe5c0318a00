//! The code of a shadow.

use super::Reason;
use super::by_name::{self, Calls};
use super::closed::{self, Ways};
use super::names::Renamed;
use crate::code::Code;
use crate::damage::Damage;
use crate::opcodes::{self, op};
use crate::operands::{self, Operands};
use crate::reader::Reader;
use crate::writer::{Copier, Writer};

/// The chunk `Code` with the module's name as data at its new place. Where a function begins,
/// `func_info` names the module itself: there it stays at the first place, and is the new name. Calls
/// by names that stand in registers become calls of the helper, if there is one. In a closed set all
/// [ways](Ways) out lead to it.
///
/// Jumps go to numbered labels, so nothing has to know that operands get longer.
pub(super) fn rewrite(
    chunk: &[u8],
    code: Code<'_>,
    atoms: &Renamed<'_>,
    ways: Option<&Ways>,
    calls: &mut Calls,
) -> Result<Vec<u8>, Reason> {
    let out = Writer::with_room_for(chunk.len().saturating_add(chunk.len() / 8))?;
    let mut copier = Copier::new(out, chunk);
    let mut reader = Reader::new(code.instructions());
    loop {
        let from = reader.rest();
        let Some(opcode) = reader.u8() else { break };
        if matches!(opcode, op::APPLY | op::APPLY_LAST) && atoms.has_helper() {
            let call = Call::read(opcode, &mut reader).ok_or(UNREADABLE)?;
            call.write(copier.skip(from, reader.rest())?, calls)?;
            continue;
        }
        if let Some(stack) = ways.and_then(|ways| ways.leaving.receives(from)) {
            pass(opcode, &mut reader)?;
            closed::receive(stack, copier.skip(from, reader.rest())?, calls)?;
            continue;
        }
        if let Some(ways) = ways
            && let Some(way) = ways.out(opcode, reader)?
        {
            way.write(copier.skip(from, way.behind)?, calls)?;
            reader = Reader::new(way.behind);
            continue;
        }
        names(opcode, &mut reader, atoms, &mut copier)?;
        if let Some(ways) = ways
            && opcode == opcodes::LABEL
            && let Some(what) = ways.leaving.begins(from)
        {
            closed::leave(what, copier.skip(reader.rest(), reader.rest())?, calls)?;
        }
    }
    let mut code = copier.finish(&[])?.into_bytes();
    if ways.is_some() {
        closed::raise_highest(&mut code);
    }
    Ok(code)
}

/// Goes along an instruction.
fn pass(opcode: u8, reader: &mut Reader<'_>) -> Result<(), Reason> {
    let count = opcodes::operands(opcode).unwrap_or_default();
    Ok(Operands::new(reader, count)
        .try_for_each(|operand| operand.map(|_| ()))
        .ok_or(UNREADABLE)?)
}

/// An instruction as it is, but for the module's own name.
fn names<'a>(
    opcode: u8,
    reader: &mut Reader<'a>,
    atoms: &Renamed<'_>,
    copier: &mut Copier<'a>,
) -> Result<(), Reason> {
    let count = opcodes::operands(opcode).unwrap_or_default();
    let is_own_name = |place| opcode == opcodes::FUNC_INFO && place == 0;
    for (place, operand) in Operands::new(reader, count).enumerate() {
        let Some(operand) = operand else { return Err(UNREADABLE.into()) };
        let names_module = operand.number.tag == operands::ATOM && operand.number.value == Some(1);
        if names_module && !is_own_name(place) {
            copier.skip(operand.from, operand.behind)?.tagged(operands::ATOM, atoms.old_name())?;
        }
    }
    Ok(())
}

pub(super) const UNREADABLE: Damage =
    Damage::Malformed { chunk: *b"Code", what: "an operand is cut off or of an unknown kind" };

/// A call of a function by names that stand behind its arguments.
struct Call {
    arguments: Option<u64>,
    /// Before a call that is the last: how many words of the stack go.
    deallocate: Option<u32>,
}

impl Call {
    fn read(opcode: u8, reader: &mut Reader<'_>) -> Option<Self> {
        let mut number = || reader.tagged().filter(|number| number.tag == PLAIN);
        let arguments = number()?.value;
        let deallocate = match opcode {
            op::APPLY_LAST => Some(u32::try_from(number()?.value?).ok()?),
            _ => None,
        };
        Some(Call { arguments, deallocate })
    }

    fn write(&self, out: &mut Writer, calls: &mut Calls) -> Result<(), Reason> {
        let (arity, import) = calls.import(by_name::CALL, self.arguments, 2)?;
        out.put(&[if self.deallocate.is_some() { op::CALL_EXT_LAST } else { op::CALL_EXT }])?;
        for number in [Some(arity), Some(import), self.deallocate].into_iter().flatten() {
            out.tagged(PLAIN, number)?;
        }
        Ok(())
    }
}

/// The tag of a plain number.
pub(super) const PLAIN: u8 = 0;
