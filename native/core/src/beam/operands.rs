//! Operands of instructions (beam_file.c, `beamcodereader_read_op`), only to step over them.

use super::reader::Reader;

/// Tags of operands. The first seven are plain: literal number, integer, atom, x and y register,
/// label, character.
const EXTENDED: u8 = 7;

/// Kinds of extended operands.
mod extended {
    pub(super) const LIST: u64 = 1;
    pub(super) const FLOAT_REGISTER: u64 = 2;
    pub(super) const ALLOCATION_LIST: u64 = 3;
    pub(super) const LITERAL: u64 = 4;
    /// A register with a type (OTP 25).
    pub(super) const TYPED_REGISTER: u64 = 5;
}

/// Steps over `count` operands; `None` if one is unknown or cut off. Lists hold operands of their
/// own: they are added to those still to come, so that nothing recurses.
pub(super) fn skip(reader: &mut Reader<'_>, count: u8) -> Option<()> {
    let mut left = u64::from(count);
    while left > 0 {
        left -= 1;
        let operand = reader.tagged()?;
        if operand.tag != EXTENDED {
            continue;
        }
        left = match operand.value? {
            extended::LIST => left.checked_add(number(reader)?)?,
            extended::ALLOCATION_LIST => left.checked_add(number(reader)?.checked_mul(2)?)?,
            extended::FLOAT_REGISTER | extended::LITERAL => left.checked_add(1)?,
            extended::TYPED_REGISTER => left.checked_add(2)?,
            _ => return None,
        };
    }
    Some(())
}

/// A plain number, as lists are counted with.
fn number(reader: &mut Reader<'_>) -> Option<u64> {
    let number = reader.tagged()?;
    if number.tag == 0 { number.value } else { None }
}
