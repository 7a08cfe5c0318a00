//! Any bytes as a module: read in an archive, and copied under another name.
#![no_main]

use hot_patch_beam::shadow::{self, Naming};
use hot_patch_core::{Kind, read_archive};
use hot_patch_fuzz::{check, options, request, stored};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let archive = stored("a/m.beam", bytes);
    let outcome = read_archive(&archive, &options());
    if let Ok(composition) = &outcome
        && let Some(file) = composition.files.first()
    {
        assert_eq!(&*file.bytes, bytes);
        if let Kind::Beam(module) = &file.kind {
            assert_eq!(module.name(), "m");
        }
    }
    check((&outcome).into());
    let shadows = shadow::make(&[bytes], &naming("@hot_patch"));
    for shadow in shadows.iter().flatten() {
        // A copy has the old name behind, and can be copied itself.
        assert!(shadow.name.ends_with("@hot_patch"));
        let again = shadow::make(&[&shadow.bytes], &naming("@again"));
        assert!(again.iter().all(Result::is_ok), "{again:?}");
    }
    check(shadows.as_slice().into());
    // Where all that leads out goes elsewhere it is a module all the same.
    let closed = Naming { closed: true, ..naming("@hot_patch") };
    for shadow in shadow::make(&[bytes], &closed).iter().flatten() {
        let again = shadow::make(&[&shadow.bytes], &naming("@again"));
        assert!(again.iter().all(Result::is_ok), "{again:?}");
    }
    // {0, rest, [], false}: it is new, so that all of it is read. See the target `analysis` too.
    request("analyse", &[bytes], b"\x83h\x04a\0w\x04restjw\x05false");
});

fn naming(suffix: &str) -> Naming<'_> {
    Naming { suffix, helper: Some("helper"), closed: false }
}
