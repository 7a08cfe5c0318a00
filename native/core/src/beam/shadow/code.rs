//! The code of a shadow.

use super::Reason;
use super::names::Renamed;
use crate::beam::code::Code;
use crate::beam::damage::Damage;
use crate::beam::opcodes;
use crate::beam::operands::{self, Operands};
use crate::beam::reader::Reader;
use crate::beam::writer::{Copier, Writer};

/// The chunk `Code` with the module's name as data at its new place. Where a function begins,
/// `func_info` names the module itself: there it stays at the first place, and is the new name.
///
/// Jumps go to numbered labels, so nothing has to know that operands get longer.
pub(super) fn rewrite(
    chunk: &[u8],
    code: Code<'_>,
    atoms: &Renamed<'_>,
) -> Result<Vec<u8>, Reason> {
    let out = Writer::with_room_for(chunk.len().saturating_add(chunk.len() / 8))?;
    let mut copier = Copier::new(out, chunk);
    let mut reader = Reader::new(code.instructions());
    while let Some(opcode) = reader.u8() {
        let count = opcodes::operands(opcode).unwrap_or_default();
        let is_own_name = |place| opcode == opcodes::FUNC_INFO && place == 0;
        for (place, operand) in Operands::new(&mut reader, count).enumerate() {
            let Some(operand) = operand else { return Err(UNREADABLE.into()) };
            let names_module =
                operand.number.tag == operands::ATOM && operand.number.value == Some(1);
            if names_module && !is_own_name(place) {
                copier
                    .skip(operand.from, operand.behind)?
                    .tagged(operands::ATOM, atoms.old_name())?;
            }
        }
    }
    Ok(copier.finish(&[])?.into_bytes())
}

const UNREADABLE: Damage =
    Damage::Malformed { chunk: *b"Code", what: "an operand is cut off or of an unknown kind" };
