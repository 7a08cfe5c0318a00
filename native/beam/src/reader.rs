//! Big-endian fields of a chunk, and the compact numbers of the loader format.

/// Reads a chunk front to back; `None` when it ends too early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// A tagged number (beam_file.c, `beamreader_read_tagged`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tagged {
    pub(crate) tag: u8,
    /// The value, if 64 bits hold it.
    pub(crate) value: Option<u64>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(chunk: &'a [u8]) -> Self {
        Reader { rest: chunk }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    /// A count of items of `item_size` bytes each, only if there is room for so many.
    pub(crate) fn count(&mut self, item_size: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count <= self.rest.len() / item_size).then_some(count)
    }

    /// A number: the low three bits of its first byte are the tag, the next two say whether it
    /// has 4 bits, 11 bits, or a length of its own.
    pub(crate) fn tagged(&mut self) -> Option<Tagged> {
        let first = self.u8()?;
        let tag = first & 0b111;
        if first & 0b1000 == 0 {
            return Some(Tagged { tag, value: Some(u64::from(first >> 4)) });
        }
        if first & 0b1_0000 == 0 {
            let high = u64::from(first >> 5) << 8;
            return Some(Tagged { tag, value: Some(high | u64::from(self.u8()?)) });
        }
        let size = match first >> 5 {
            7 => self.long_size()?,
            short => usize::from(short) + 2,
        };
        let bytes = self.take(size)?;
        let fits = size <= 8;
        let value = fits.then(|| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        Some(Tagged { tag, value })
    }

    /// The length of a number of more than eight bytes, itself a number. A length that needs a
    /// length is refused, so this does not recurse.
    fn long_size(&mut self) -> Option<usize> {
        let first = *self.rest.first()?;
        if first & 0b1_1000 == 0b1_1000 && first >> 5 == 7 {
            return None;
        }
        let size = self.tagged()?;
        (size.tag == 0).then_some(usize::try_from(size.value?).ok()?.checked_add(9)?)
    }
}
