//! Builds chunks: big-endian fields and the compact numbers of the loader format.

use crate::damage::Damage;
use crate::reader::Reader;

/// Bytes that grow only where there is memory.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_room_for(size: usize) -> Result<Self, Damage> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| Damage::OutOfMemory)?;
        Ok(Writer(bytes))
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        self.0.try_reserve(bytes.len()).map_err(|_| Damage::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), Damage> {
        self.put(&value.to_be_bytes())
    }

    /// A number as [`Reader::tagged`] reads it, as short as can be.
    pub(crate) fn tagged(&mut self, tag: u8, value: u32) -> Result<(), Damage> {
        let [top, high, middle, low] = value.to_be_bytes();
        match value {
            0..16 => self.put(&[low << 4 | tag]),
            16..0x800 => self.put(&[middle << 5 | 0b0_1000 | tag, low]),
            // The highest bit would be a sign.
            0x800..0x8000 => self.put(&[0b1_1000 | tag, middle, low]),
            0x8000..0x80_0000 => self.put(&[1 << 5 | 0b1_1000 | tag, high, middle, low]),
            0x80_0000..0x8000_0000 => self.put(&[2 << 5 | 0b1_1000 | tag, top, high, middle, low]),
            _ => self.put(&[3 << 5 | 0b1_1000 | tag, 0, top, high, middle, low]),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Copies bytes except for some numbers among them.
#[derive(Debug)]
pub(crate) struct Copier<'a> {
    out: Writer,
    /// What is not copied yet, to its end.
    rest: &'a [u8],
}

impl<'a> Copier<'a> {
    pub(crate) fn new(out: Writer, source: &'a [u8]) -> Self {
        Copier { out, rest: source }
    }

    /// Copies what stands before `from` and goes on at `behind`, both ends of the source; what is
    /// in between can be replaced by what is written to the result.
    pub(crate) fn skip(&mut self, from: &[u8], behind: &'a [u8]) -> Result<&mut Writer, Damage> {
        let before = self.rest.len().saturating_sub(from.len());
        self.out.put(Reader::new(self.rest).take(before).unwrap_or_default())?;
        self.rest = behind;
        Ok(&mut self.out)
    }

    /// Copies the rest up to `end`.
    pub(crate) fn finish(mut self, end: &'a [u8]) -> Result<Writer, Damage> {
        self.skip(end, end)?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::Writer;
    use crate::reader::Reader;

    #[test]
    fn numbers_can_be_read_again() {
        let edges = [0, 15, 16, 0x7ff, 0x800, 0x7fff, 0x8000, 0x7f_ffff, 0x80_0000, u32::MAX];
        for value in edges {
            let mut out = Writer::default();
            out.tagged(2, value).unwrap();
            let number = Reader::new(&out.into_bytes()).tagged().unwrap();
            assert_eq!((number.tag, number.value), (2, Some(value.into())));
        }
    }
}
