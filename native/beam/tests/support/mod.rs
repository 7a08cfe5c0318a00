//! Builds modules byte by byte, right ones and wrong ones.

// Each test program uses a part of this, and all numbers here are small.
#![allow(dead_code, unreachable_pub, clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod beam;
pub mod compiled;
pub mod random;

use hot_patch_beam::{Judge, LoadLimits, MOST_UNPACKED, Reading, SIGNIFICANT_CHUNKS};

/// What the file `bytes` named `path` is taken for, under the default limits.
pub fn reading_of(path: &str, bytes: &[u8]) -> Reading {
    let limits = LoadLimits::default();
    Judge::new(&limits, &SIGNIFICANT_CHUNKS, MOST_UNPACKED, 0).read_file(path, bytes)
}
