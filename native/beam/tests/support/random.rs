//! Numbers that look random and are the same in every run.

/// A xorshift generator.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// `bytes` with one to four bytes changed.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const TELLING: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
        let mut mutated = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(mutated.len());
            mutated[at] = match self.below(3) {
                0 => TELLING[self.below(TELLING.len())],
                1 => mutated[at] ^ (1 << self.below(8)),
                _ => self.next() as u8,
            };
        }
        mutated
    }
}
