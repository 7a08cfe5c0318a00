//! Any bytes as the unpacked literals of a module.
#![no_main]

use hot_patch_beam::LoadLimits;
use hot_patch_beam::etf::{self, DecodeError, Limits};
use hot_patch_beam::verify;
use hot_patch_fuzz::module;
use libfuzzer_sys::fuzz_target;

/// Functions, and the end: `m:a16/0`.
const CODE: &[u8] = b"\x01\x10\x02\x12\x0a\x11\0\x01\x20\x13\x03";

fuzz_target!(|table: &[u8]| {
    let header: Vec<u8> = [16, 0, 191, 3, 1_u32].iter().flat_map(|one| one.to_be_bytes()).collect();
    let file = module(&[&header, CODE].concat(), table);
    let limits = LoadLimits { literal_depth: 100, ..LoadLimits::default() };
    let Ok(load) = verify::judge(&file, &limits) else { return };
    // What passes is what the decoder of terms takes too, but for external funs.
    let mut rest = table.get(4..).unwrap_or_default();
    let mut seen = 0;
    while let Some((size, behind)) = rest.split_first_chunk() {
        let size = u32::from_be_bytes(*size) as usize;
        let (term, behind) = behind.split_at(size);
        rest = behind;
        seen += 1;
        match etf::decode(term, Limits { depth: 110, terms: 1_000_000 }) {
            Ok(_) | Err(DecodeError::Tag { tag: 113, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(load.literal_words <= 64 * table.len() as u64 + seen);
});
