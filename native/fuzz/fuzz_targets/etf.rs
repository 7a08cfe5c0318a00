//! Any bytes as an encoded term: decoded, encoded again, and as JSON.
#![no_main]

use hot_patch_beam::etf::{self, Limits};
use hot_patch_fuzz::request;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { depth: 64, terms: 100_000 };

fuzz_target!(|bytes: &[u8]| {
    if let Ok(term) = etf::decode(bytes, LIMITS) {
        let _ = term.to_string();
        // Once encoded, a term is encoded the same for ever after.
        let encoded = etf::encode(&term);
        let again = etf::decode(&encoded, LIMITS).expect("what was encoded can be decoded");
        assert_eq!(etf::encode(&again), encoded);
    }
    request("encode_json", &[bytes], b"\x83j");
    request("shadow", &[], bytes);
    request("read_archive", &[b""], bytes);
    request("sign", &[b"", b""], bytes);
    request("analyse", &[], bytes);
    request("appup", &[], bytes);
});
