//! A module as its chunks, and its code as instructions.

use hot_patch_beam::verify;

/// The id of a chunk.
pub(crate) type Id = [u8; 4];

/// What a loader reads. Other chunks are left out, so that changes hit what counts.
const READ: [&Id; 15] = [
    b"AtU8", b"Code", b"StrT", b"ImpT", b"ExpT", b"FunT", b"LitT", b"Meta", b"Attr", b"CInf",
    b"LocT", b"Line", b"Type", b"DbgB", b"Recs",
];

/// The chunks of a module.
#[derive(Clone)]
pub(crate) struct Module(pub(crate) Vec<(Id, Vec<u8>)>);

impl Module {
    /// Takes a file apart, if it is one with chunks.
    pub(crate) fn read(file: &[u8]) -> Option<Module> {
        let mut rest = file.strip_prefix(b"FOR1")?.get(4..)?.strip_prefix(b"BEAM")?;
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let id: Id = *rest.first_chunk()?;
            let size = u32::from_be_bytes(*rest.get(4..)?.first_chunk()?) as usize;
            let data = rest.get(8..8 + size)?.to_vec();
            rest = rest.get(8 + size.next_multiple_of(4)..)?;
            if READ.contains(&&id) {
                chunks.push((id, data));
            }
        }
        Some(Module(chunks))
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut body = b"BEAM".to_vec();
        for (id, data) in &self.0 {
            body.extend(id);
            body.extend((data.len() as u32).to_be_bytes());
            body.extend(data);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut file = b"FOR1".to_vec();
        file.extend((body.len() as u32).to_be_bytes());
        file.extend(body);
        file
    }

    pub(crate) fn chunk(&self, id: &Id) -> Option<&Vec<u8>> {
        self.0.iter().find(|(other, _)| other == id).map(|(_, data)| data)
    }

    pub(crate) fn chunk_mut(&mut self, id: &Id) -> Option<&mut Vec<u8>> {
        self.0.iter_mut().find(|(other, _)| other == id).map(|(_, data)| data)
    }

    /// The name, which stands first in the table of atoms.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        let atoms = self.chunk(b"AtU8")?;
        let is_long = atoms.first()? & 0x80 != 0;
        let mut rest = atoms.get(4..)?;
        let size = if is_long {
            Number::read(&mut rest)?.value as usize
        } else {
            let (size, behind) = rest.split_first()?;
            rest = behind;
            usize::from(*size)
        };
        rest.get(..size)
    }
}

/// A number with a tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(crate) tag: u8,
    pub(crate) value: u64,
}

impl Number {
    pub(crate) fn read(rest: &mut &[u8]) -> Option<Number> {
        let (first, behind) = rest.split_first()?;
        *rest = behind;
        let tag = first & 7;
        if first & 8 == 0 {
            return Some(Number { tag, value: u64::from(first >> 4) });
        }
        if first & 16 == 0 {
            let (low, behind) = rest.split_first()?;
            *rest = behind;
            return Some(Number { tag, value: u64::from(first >> 5) << 8 | u64::from(*low) });
        }
        let size = match first >> 5 {
            7 => Number::read(rest)?.value as usize + 9,
            short => usize::from(short) + 2,
        };
        let bytes = rest.get(..size)?;
        *rest = rest.get(size..)?;
        let value = bytes.iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        Some(Number { tag, value })
    }

    pub(crate) fn write(self) -> Vec<u8> {
        let Number { tag, value } = self;
        let bytes = value.to_be_bytes();
        match value {
            0..16 => vec![(value as u8) << 4 | tag],
            16..0x800 => vec![((value >> 8) as u8) << 5 | 8 | tag, value as u8],
            _ => {
                // The highest bit is a sign.
                let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(6);
                let from = zeros - usize::from(zeros > 0 && bytes[zeros] >= 0x80);
                let digits = &bytes[from..];
                match digits.len() {
                    size @ 2..=8 => {
                        let mut all = vec![((size - 2) as u8) << 5 | 0x18 | tag];
                        all.extend(digits);
                        all
                    }
                    _ => unreachable!("two to eight bytes"),
                }
            }
        }
    }
}

/// An instruction: its opcode, and its operands as bytes, those of lists one by one.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) opcode: u8,
    pub(crate) operands: Vec<Vec<u8>>,
}

/// The header of a `Code` chunk with its size, and the instructions.
pub(crate) fn decode(code: &[u8]) -> Option<(Vec<u8>, Vec<Instruction>)> {
    let size = u32::from_be_bytes(*code.first_chunk()?) as usize;
    let header = code.get(..4 + size)?.to_vec();
    let mut rest = code.get(4 + size..)?;
    let mut all = Vec::new();
    while let Some((opcode, behind)) = rest.split_first() {
        rest = behind;
        let mut left = usize::from(verify::operands(*opcode)?);
        let mut operands = Vec::new();
        while left > 0 {
            let from = rest;
            left = left - 1 + operand(&mut rest)?;
            operands.push(from[..from.len() - rest.len()].to_vec());
        }
        all.push(Instruction { opcode: *opcode, operands });
    }
    Some((header, all))
}

/// Steps over an operand; gives how many more a list brings.
fn operand(rest: &mut &[u8]) -> Option<usize> {
    let number = Number::read(rest)?;
    if number.tag != 7 {
        return Some(0);
    }
    match number.value {
        1 => return Some(Number::read(rest)?.value as usize),
        2 | 4 => {
            Number::read(rest)?;
        }
        3 => {
            for _ in 0..2 * Number::read(rest)?.value {
                Number::read(rest)?;
            }
        }
        5 => {
            Number::read(rest)?;
            Number::read(rest)?;
        }
        _ => return None,
    }
    Some(0)
}

pub(crate) fn encode(header: &[u8], instructions: &[Instruction]) -> Vec<u8> {
    let mut code = header.to_vec();
    for instruction in instructions {
        code.push(instruction.opcode);
        instruction.operands.iter().for_each(|operand| code.extend(operand));
    }
    code
}

#[cfg(test)]
mod tests {
    use super::Number;

    #[test]
    fn numbers_can_be_read_again() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let bytes = Number { tag: 3, value }.write();
                let mut rest = bytes.as_slice();
                let number = Number::read(&mut rest).unwrap();
                assert_eq!((number.tag, number.value, rest.len()), (3, value, 0));
            }
        }
    }
}
