//! The `Code` chunk's header.

use crate::damage::Damage;
use crate::reader::Reader;

/// The only version of the instruction format there has been (`BEAM_FORMAT_NUMBER`).
const FORMAT: u32 = 0;

/// The four words of the header that we know; a longer header is allowed.
const HEADER: usize = 16;

/// The header, and the instructions after it (beam_file.c, `parse_code_chunk`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code<'a> {
    pub(crate) max_opcode: u32,
    /// Labels are numbered from 1 and below this.
    pub(crate) label_count: u32,
    pub(crate) function_count: u32,
    instructions: &'a [u8],
}

impl<'a> Code<'a> {
    pub(crate) fn read(chunk: &'a [u8]) -> Result<Self, Damage> {
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
        let function_count = header.u32().ok_or_else(cut_off)?;
        Ok(Code { max_opcode, label_count, function_count, instructions: reader.rest() })
    }

    pub(crate) fn instructions(&self) -> &'a [u8] {
        self.instructions
    }
}
