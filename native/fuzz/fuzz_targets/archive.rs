//! Any bytes as an archive.
#![no_main]

use hot_patch_core::read_archive;
use hot_patch_fuzz::{check, options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let outcome = read_archive(bytes, &options());
    if let Ok(composition) = &outcome {
        let total: usize = composition.files.iter().map(|file| file.bytes.len()).sum();
        assert!(total as u64 <= options().max_unpacked_bytes);
        for file in &composition.files {
            assert_eq!(crc32fast::hash(&file.bytes), file.crc32);
            let parts = || file.path.split('/');
            assert!(parts().all(|part| !matches!(part, "" | "." | "..")), "{:?}", file.path);
        }
    }
    check((&outcome).into());
});
