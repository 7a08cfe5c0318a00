//! Any bytes as the manifest of an archive, as its signature, and as a signature that is to be put
//! into one: what of a patch is no module and is still read.
#![no_main]

use hot_patch_core::manifest::{MANIFEST, Manifest, SIGNATURE, Signature};
use hot_patch_core::read_archive;
use hot_patch_fuzz::{check, limits, options, request, stored};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::read(bytes) {
        // Once written, a manifest is read as it was and written the same for ever after.
        let json = manifest.to_json();
        let again = Manifest::read(&json).expect("what was written can be read");
        assert_eq!(again, manifest);
        assert_eq!(again.to_json(), json);
    }
    let _ = Signature::read(bytes);
    for name in [MANIFEST, SIGNATURE] {
        check((&read_archive(&stored(name, bytes), &options())).into());
    }
    request("sign", &[&stored(MANIFEST, EMPTY), bytes], &limits());
});

/// The manifest of a patch without files.
const EMPTY: &[u8] = br#"{"schema": 1, "name": "fix", "files": []}"#;
