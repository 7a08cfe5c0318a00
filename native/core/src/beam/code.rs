//! The `Code` chunk: its header, and whether the module has an `on_load` function.

use memchr::memchr_iter;

use super::damage::Damage;
use super::opcodes;
use super::operands;
use super::reader::Reader;

/// The only version of the instruction format there has been (`BEAM_FORMAT_NUMBER`).
const FORMAT: u32 = 0;

/// The four words of the header that we know; a longer header is allowed.
const HEADER: usize = 16;

/// The header, and the instructions after it (beam_file.c, `parse_code_chunk`).
#[derive(Debug)]
pub(super) struct Code<'a> {
    pub(super) max_opcode: u32,
    /// Labels are numbered from 1 and below this.
    pub(super) label_count: u32,
    instructions: &'a [u8],
}

impl<'a> Code<'a> {
    pub(super) fn read(chunk: &'a [u8]) -> Result<Self, Damage> {
        let malformed = |what| Damage::Malformed { chunk: *b"Code", what };
        let cut_off = || malformed("it is cut off");
        let mut reader = Reader::new(chunk);
        let size = reader.u32().and_then(|size| usize::try_from(size).ok()).ok_or_else(cut_off)?;
        let header = reader.take(size).ok_or_else(cut_off)?;
        if size < HEADER {
            return Err(malformed("its header is too short"));
        }
        let mut header = Reader::new(header);
        if header.u32() != Some(FORMAT) {
            return Err(malformed("its instruction format is unknown"));
        }
        let max_opcode = header.u32().ok_or_else(cut_off)?;
        let label_count = header.u32().ok_or_else(cut_off)?;
        Ok(Code { max_opcode, label_count, instructions: reader.rest() })
    }

    pub(super) fn instructions(&self) -> &'a [u8] {
        self.instructions
    }

    /// Whether the code has an `on_load` instruction. It stands right behind the label where its
    /// function begins; no table or attribute tells of it.
    ///
    /// Bytes that look like that label and instruction are rare, so only where there are any is
    /// the code decoded. If an instruction is unknown, which means a newer OTP, the look of the
    /// bytes decides: the answer may then be a wrong yes, never a wrong no.
    pub(super) fn has_on_load(&self) -> bool {
        self.looks_like_on_load() && self.decodes_on_load().unwrap_or(true)
    }

    fn looks_like_on_load(&self) -> bool {
        memchr_iter(opcodes::ON_LOAD, self.instructions).any(|at| {
            let before = self.instructions.get(..at).unwrap_or_default();
            ends_with_label(before)
        })
    }

    /// Decodes all instructions; `None` at one that is unknown or damaged.
    fn decodes_on_load(&self) -> Option<bool> {
        let mut reader = Reader::new(self.instructions);
        while !reader.rest().is_empty() {
            let opcode = reader.u8()?;
            if opcode == opcodes::ON_LOAD {
                return Some(true);
            }
            if opcode == opcodes::INT_CODE_END {
                return Some(false);
            }
            operands::skip(&mut reader, opcodes::operands(opcode)?)?;
        }
        Some(false)
    }
}

/// Whether `code` ends like a label instruction: its opcode and a number of one to five bytes.
fn ends_with_label(code: &[u8]) -> bool {
    let label = |number: &[u8]| match number {
        [first] => first & 0b1111 == 0,
        [first, _] => first & 0b1_1111 == 0b0_1000,
        [first, rest @ ..] => {
            first & 0b1_1111 == 0b1_1000 && usize::from(first >> 5) + 2 == rest.len()
        }
        [] => false,
    };
    (1..=5).any(|size| {
        let Some(start) = code.len().checked_sub(size) else { return false };
        let (before, number) = code.split_at(start);
        before.last() == Some(&opcodes::LABEL) && label(number)
    })
}

#[cfg(test)]
mod tests {
    use super::Code;

    fn has_on_load(instructions: &[u8]) -> bool {
        Code { max_opcode: 0, label_count: 0, instructions }.has_on_load()
    }

    #[test]
    fn finds_on_load_behind_labels_of_any_size() {
        assert!(has_on_load(&[1, 0x20, 149, 3]));
        assert!(has_on_load(&[1, 0x08, 0x7f, 149, 3]));
        assert!(has_on_load(&[1, 0x18, 0x10, 0x00, 149, 3]));
        assert!(has_on_load(&[1, 0x38, 1, 0, 0, 149, 3]));
    }

    #[test]
    fn is_not_misled_by_operands() {
        // line 1; label 2; move {integer, ..149}; return; int_code_end
        assert!(!has_on_load(&[153, 0x10, 1, 0x20, 19, 3]));
        // move {literal whose number's bytes are 1, 0x20, 149}, x0
        assert!(!has_on_load(&[64, 0x47, 0x38, 1, 0x20, 149, 0, 0x03, 19, 3]));
    }

    #[test]
    fn believes_the_look_of_unknown_code() {
        assert!(has_on_load(&[255, 1, 0x20, 149]));
        assert!(!has_on_load(&[255, 149]));
    }
}
