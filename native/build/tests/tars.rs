//! Tars of releases that are not what they say.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[allow(dead_code, unreachable_pub)]
#[path = "../../beam/tests/support/beam.rs"]
mod beam;
#[allow(dead_code)]
mod support;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use support::{Folder, module, request, try_build};
use tar::{Builder, EntryType, Header};

/// A module in two versions, and what more a test puts beside the second.
fn releases(test: &str, more: impl FnOnce(&mut Builder<Vec<u8>>)) -> (Folder, Vec<u8>) {
    let from = Folder::new(&format!("tars_{test}"));
    from.put("lib/shop-1/ebin/a.beam", &module("a", 1).bytes());
    let mut to = Builder::new(Vec::new());
    put(&mut to, b"./lib/shop-1/ebin/a.beam", EntryType::Regular, &module("a", 2).bytes());
    more(&mut to);
    (from, to.into_inner().unwrap())
}

fn put(tar: &mut Builder<Vec<u8>>, name: &[u8], kind: EntryType, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn outcome(test: &str, from: &Folder, tar: &[u8], most: Option<u64>) -> Result<usize, String> {
    let path: PathBuf = from.0.with_extension(test);
    fs::write(&path, tar).unwrap();
    let mut request = request(&from.0, &path);
    request.most_unpacked = most;
    try_build(&request).map(|built| built.manifest.files.len()).map_err(|error| error.to_string())
}

#[test]
fn what_is_right_is_read() {
    let (from, tar) = releases("right", |tar| {
        put(tar, b"./", EntryType::Directory, b"");
        // Of what is not taken a link does no harm.
        put(tar, b"bin/shop", EntryType::Symlink, b"");
    });
    assert_eq!(outcome("tar", &from, &tar, None), Ok(1));
    let gz = packed(&tar);
    assert_eq!(outcome("tar.gz", &from, &gz, Some(tar.len() as u64 + 1)), Ok(1));
}

#[test]
fn entries_are_judged_as_those_of_a_zip() {
    let file = EntryType::Regular;
    for (name, kind, why) in [
        (&b"../lib/shop-1/ebin/b.beam"[..], file, "has a part `..`"),
        (b"/lib/shop-1/ebin/b.beam", file, "is an absolute path"),
        (b"lib/shop-1/ebin/b\x07.beam", file, "has a control character"),
        (b"lib\\shop-1", file, "has a backslash"),
        (b"lib/shop-1/ebin/a.beam", file, "it has lib/shop-1/ebin/a.beam twice"),
        (b"lib/shop-1/priv/fifo", EntryType::Fifo, "is neither a file nor a folder"),
        (b"lib/shop-1/priv/disk", EntryType::Block, "is neither a file nor a folder"),
        (b"lib/shop-1/priv/link", EntryType::Symlink, "is a link"),
    ] {
        let (from, tar) = releases("judged", |tar| put(tar, name, kind, b""));
        let error = outcome("tar", &from, &tar, None).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn nothing_comes_behind_the_end() {
    let (from, tar) = releases("behind", |_| ());
    let (_, other) = releases("behind", |tar| {
        put(tar, b"lib/shop-1/ebin/b.beam", EntryType::Regular, &module("b", 1).bytes());
    });
    let hidden = [&tar[..], &other].concat();
    for (what, bytes) in [
        ("a second tar", hidden.clone()),
        ("a second tar, packed", packed(&hidden)),
        ("a second gzip", [packed(&tar), packed(&other)].concat()),
    ] {
        let error = outcome("tar", &from, &bytes, None).unwrap_err();
        assert!(error.contains("goes on behind its end"), "{what}: {error}");
    }
    // A checksum that is wrong is noticed, though all entries came before it.
    let mut damaged = packed(&tar);
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    assert!(outcome("tar.gz", &from, &damaged, None).unwrap_err().contains("holds no build"));
}

#[test]
fn it_is_unpacked_to_no_more_than_is_allowed() {
    let (from, tar) = releases("large", |tar| {
        // Also what is not taken.
        put(tar, b"erts-13.1/bin/beam.smp", EntryType::Regular, &vec![0; 1 << 20]);
    });
    let error = outcome("tar.gz", &from, &packed(&tar), Some(1 << 20)).unwrap_err();
    assert!(error.contains("more bytes than are allowed"), "{error}");
    assert_eq!(outcome("tar.gz", &from, &packed(&tar), Some(2 << 20)), Ok(1));
}
