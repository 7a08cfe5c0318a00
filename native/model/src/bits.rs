//! A state as a few words: one walk over its fields both writes and reads them.

/// The words of a packed state.
pub(crate) type Packed = [u64; 5];

/// Takes field after field, each with its width.
pub(crate) trait Walk {
    fn field(&mut self, value: &mut u8, width: u32);

    fn flag(&mut self, value: &mut bool) {
        let mut byte = u8::from(*value);
        self.field(&mut byte, 1);
        *value = byte != 0;
    }

    fn wide(&mut self, value: &mut u16) {
        let [mut low, mut high] = value.to_le_bytes();
        self.field(&mut low, 8);
        self.field(&mut high, 6);
        *value = u16::from_le_bytes([low, high]);
    }
}

#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) words: Packed,
    at: u32,
}

impl Walk for Writer {
    fn field(&mut self, value: &mut u8, width: u32) {
        assert!(u32::from(*value) < 1 << width, "{value} in {width} bits");
        let (word, shift) = ((self.at / 64) as usize, self.at % 64);
        self.words[word] |= u64::from(*value) << shift;
        if shift + width > 64 {
            self.words[word + 1] |= u64::from(*value) >> (64 - shift);
        }
        self.at += width;
    }
}

pub(crate) struct Reader {
    words: Packed,
    at: u32,
}

impl Reader {
    pub(crate) fn new(words: Packed) -> Self {
        Reader { words, at: 0 }
    }
}

impl Walk for Reader {
    fn field(&mut self, value: &mut u8, width: u32) {
        let (word, shift) = ((self.at / 64) as usize, self.at % 64);
        let mut bits = self.words[word] >> shift;
        if shift + width > 64 {
            bits |= self.words[word + 1] << (64 - shift);
        }
        *value = (bits & ((1 << width) - 1)) as u8;
        self.at += width;
    }
}
