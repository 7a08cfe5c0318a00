//! Operands of instructions (beam_file.c, `beamcodereader_read_op`), one after the other.

use crate::reader::{Reader, Tagged};

/// The tag of an atom; the value is its place in the table, or 0 for the empty list.
pub(crate) const ATOM: u8 = 2;

/// The tag of a label that is named.
pub(crate) const LABEL: u8 = 5;

/// Tags of operands. The first seven are plain: literal number, integer, atom, x and y register,
/// label, character.
const EXTENDED: u8 = 7;

/// Kinds of extended operands.
mod extended {
    pub(crate) const LIST: u64 = 1;
    pub(crate) const FLOAT_REGISTER: u64 = 2;
    pub(crate) const ALLOCATION_LIST: u64 = 3;
    pub(crate) const LITERAL: u64 = 4;
    /// A register with a type (OTP 25).
    pub(crate) const TYPED_REGISTER: u64 = 5;
}

/// A tagged number, and the code from its first byte and behind its last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a> {
    pub(crate) number: Tagged,
    pub(crate) from: &'a [u8],
    pub(crate) behind: &'a [u8],
}

/// The operands of an instruction, those in lists too; the last is `None` if one is unknown or
/// cut off.
#[derive(Debug)]
pub(crate) struct Operands<'r, 'a> {
    reader: &'r mut Reader<'a>,
    /// How many are still to come. Lists hold operands of their own: they are added, so that
    /// nothing recurses.
    left: u64,
}

impl<'r, 'a> Operands<'r, 'a> {
    pub(crate) fn new(reader: &'r mut Reader<'a>, count: u8) -> Self {
        Operands { reader, left: count.into() }
    }

    fn read(&mut self) -> Option<Operand<'a>> {
        let from = self.reader.rest();
        let number = self.reader.tagged()?;
        if number.tag == EXTENDED {
            self.left = self.left.checked_add(self.extended(number.value?)?)?;
        }
        Some(Operand { number, from, behind: self.reader.rest() })
    }

    /// How many operands an extended one of this kind brings along.
    fn extended(&mut self, kind: u64) -> Option<u64> {
        match kind {
            extended::LIST => self.count(),
            extended::ALLOCATION_LIST => self.count()?.checked_mul(2),
            extended::FLOAT_REGISTER | extended::LITERAL => Some(1),
            extended::TYPED_REGISTER => Some(2),
            _ => None,
        }
    }

    /// A plain number, as lists are counted with.
    fn count(&mut self) -> Option<u64> {
        let number = self.reader.tagged()?;
        if number.tag == 0 { number.value } else { None }
    }
}

impl<'a> Iterator for Operands<'_, 'a> {
    type Item = Option<Operand<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let operand = self.read();
        if operand.is_none() {
            self.left = 0;
        }
        Some(operand)
    }
}
