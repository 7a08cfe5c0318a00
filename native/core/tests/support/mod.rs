//! Builds archives and modules byte by byte, right ones and wrong ones.

// Each test program uses a part of this, and all numbers here are small.
#![allow(dead_code, unreachable_pub, clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[path = "../../../beam/tests/support/beam.rs"]
pub mod beam;
#[path = "../../../beam/tests/support/compiled.rs"]
pub mod compiled;
#[path = "../../../beam/tests/support/random.rs"]
pub mod random;
pub mod zip;

use hot_patch_core::{Composition, Kind, Options, Refusal};

/// Reads an archive under the default options.
pub fn read(bytes: &[u8]) -> Result<Composition<'_>, Refusal> {
    hot_patch_core::read_archive(bytes, &Options::default())
}

/// What the file `bytes` named `path` is taken for.
pub fn kind_of(path: &str, bytes: &[u8]) -> Kind {
    let archive = zip::stored(&[(path, bytes)]).bytes;
    let mut files = read(&archive).expect("the archive itself is right").files;
    assert_eq!(files.len(), 1);
    files.remove(0).kind
}
