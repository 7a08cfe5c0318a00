//! The two hashes: SHA-256 for files and archives, MD5 for what the VM compares modules by.

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// A SHA-256.
pub type Sha256Sum = [u8; 32];

/// An MD5, as `code:module_md5/1` gives.
pub type Md5Sum = [u8; 16];

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Sha256Sum {
    Sha256::digest(bytes).into()
}

/// The MD5 of `parts`, one after the other.
pub(crate) fn md5<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Md5Sum {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    md5.finalize().into()
}
