//! The HotPatch core as a command line.

fn main() {}
