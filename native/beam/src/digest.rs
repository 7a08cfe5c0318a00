//! The two hashes: SHA-256 for files and archives, MD5 for what the VM compares modules by.

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub type Sha256Sum = [u8; 32];

/// An MD5, as `code:module_md5/1` gives.
pub type Md5Sum = [u8; 16];

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256Sum {
    Sha256::digest(bytes).into()
}

/// The first 16 bytes of a SHA-256: enough to tell things apart that are compared and not kept.
pub type Short = [u8; 16];

/// A SHA-256 of what comes piece by piece, so that nothing of it has to be kept.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Hashes what comes next.
    pub fn put(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// A tag and a number: what has no size of its own is told apart by them.
    pub fn tagged(&mut self, tag: u8, value: u64) {
        self.put(&[tag]);
        self.put(&value.to_be_bytes());
    }

    /// The first half of the hash of all that came.
    pub fn finish(self) -> Short {
        let sum: Sha256Sum = self.0.finalize().into();
        let mut short = Short::default();
        short.iter_mut().zip(sum).for_each(|(byte, of)| *byte = of);
        short
    }
}

/// The MD5 of `parts`, one after the other.
pub fn md5<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Md5Sum {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    md5.finalize().into()
}
