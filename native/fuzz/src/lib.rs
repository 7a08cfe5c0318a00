//! What the fuzz targets share.

use hot_patch_beam::Stop;
use hot_patch_beam::etf::{self, Limits};
use hot_patch_core::Options;
use hot_patch_core::reply::{self, Reply};
use hot_patch_core::requests::{self, Request};

/// Small limits: a run of the fuzzer is to be quick, and to reach them.
pub fn options() -> Options {
    Options {
        max_archive_bytes: 1024 * 1024,
        max_entries: 256,
        max_unpacked_bytes: 4 * 1024 * 1024,
        ..Options::default()
    }
}

/// Limits as a request has them: {1 MB, 256, 4 MB, 1024, {limits of modules}, []}.
pub fn limits() -> Vec<u8> {
    let numbers = |all: &[u32]| -> Vec<u8> {
        all.iter().flat_map(|one| [&b"b"[..], &one.to_be_bytes()].concat()).collect()
    };
    let archive = numbers(&[1 << 20, 256, 4 << 20, 1024]);
    let load = numbers(&[4096, 8192, 4096, 8192, 1 << 20, 100, 100, 1 << 24, 1 << 25]);
    [&b"\x83h\x06"[..], &archive, b"h\x09", &load, b"j"].concat()
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

/// A module `m` with this code and these literals, not packed: its tables have something to be
/// named for many kinds of operands, and neither exports nor funs.
pub fn module(code: &[u8], literals: &[u8]) -> Vec<u8> {
    let names: Vec<String> = WORDS
        .iter()
        .map(|word| (*word).to_owned())
        .chain((WORDS.len()..64).map(|n| format!("a{n}")))
        .collect();
    let mut atoms = 64_u32.to_be_bytes().to_vec();
    for name in &names {
        atoms.push(u8::try_from(name.len()).unwrap_or(0));
        atoms.extend(name.as_bytes());
    }
    let words =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
    let imports: Vec<u32> = (0..32).flat_map(|n| [2, 3 + n, n % 4]).collect();
    let lines = [words(&[0, 0, 0, 8, 0]), vec![0x11; 8]].concat();
    let types: Vec<u8> = [words(&[4, 2]), vec![0x1f, 0xff, 0, 0x20]].concat();
    let chunks: [(&[u8; 4], Vec<u8>); 8] = [
        (b"AtU8", atoms),
        (b"Code", code.to_vec()),
        (b"StrT", vec![0; 64]),
        (b"ImpT", [words(&[32]), words(&imports)].concat()),
        (b"ExpT", words(&[0])),
        (b"LitT", [&[0; 4], literals].concat()),
        (b"Line", lines),
        (b"Type", types),
    ];
    let mut body = b"BEAM".to_vec();
    for (id, data) in &chunks {
        body.extend(*id);
        body.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
        body.extend(data);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let size = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    [b"FOR1", &size[..], &body].concat()
}

/// Atoms that say what is in lists of operands, behind the module's name and Erlang's.
const WORDS: [&str; 16] = [
    "m",
    "erlang",
    "append",
    "binary",
    "ensure_at_least",
    "ensure_exactly",
    "=:=",
    "float",
    "get_tail",
    "integer",
    "private_append",
    "skip",
    "string",
    "utf8",
    "all",
    "undefined",
];
