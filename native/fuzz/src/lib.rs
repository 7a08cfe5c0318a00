//! What the fuzz targets share.

use hot_patch_core::etf::{self, Limits};
use hot_patch_core::reply::{self, Reply};
use hot_patch_core::requests::{self, Request};
use hot_patch_core::{Options, Stop};

/// Small limits: a run of the fuzzer is to be quick, and to reach them.
pub fn options() -> Options {
    Options {
        max_archive_bytes: 1024 * 1024,
        max_entries: 256,
        max_unpacked_bytes: 4 * 1024 * 1024,
        ..Options::default()
    }
}

/// Limits as a request has them: {1 MB, 256, 4 MB, 1024, []}.
pub fn limits() -> Vec<u8> {
    b"\x83h\x05b\0\x10\0\0b\0\0\x01\0b\0\x40\0\0b\0\0\x04\0j".to_vec()
}

/// A reply has the size that was counted, and is a term.
pub fn check(reply: Reply<'_>) {
    let bytes = reply::encode(reply);
    assert_eq!(bytes.len(), reply::encoded_len(reply));
    let limits = Limits { depth: 64, terms: 50_000_000 };
    etf::decode(&bytes, limits).expect("a reply is a term");
    assert!(!bytes.starts_with(b"\x83h\x03w\x06failedw\x08internal"), "it panicked");
}

/// Carries out a request as the NIF and the port do.
pub fn request(name: &str, blobs: &[&[u8]], options: &[u8]) {
    requests::run(&Request { name, blobs, options }, &Stop::default(), check);
}

/// An archive of one stored file.
pub fn stored(path: &str, bytes: &[u8]) -> Vec<u8> {
    let crc = crc32fast::hash(bytes).to_le_bytes();
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let name = u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes();
    // Version 2.0, no flags, stored, 1980-01-01; then checksum, sizes, length of the name, no extra.
    let common = [&b"\x14\0\0\0\0\0\0\0\x21\0"[..], &crc, &size, &size, &name, b"\0\0"].concat();
    let local = [b"PK\x03\x04", common.as_slice(), path.as_bytes(), bytes].concat();
    let central = [b"PK\x01\x02\x14\x03", common.as_slice(), &[0; 14], path.as_bytes()].concat();
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes();
    let end = [&b"PK\x05\x06\0\0\0\0\x01\0\x01\0"[..], &length(&central), &length(&local), b"\0\0"]
        .concat();
    [local, central, end].concat()
}
