//! Archives as common tools write them are accepted, and give back what was put in.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use std::borrow::Cow;

use hot_patch_core::{File, Kind, Options, read_archive};
use support::beam::{AtomFormat, minimal};
use support::random::Random;
use support::read;
use support::zip::{Built, Descriptor, Item, build, deflated, file, folder};

const TEXT: &[u8] = b"to be or not to be, that is the question; to be or not to be";

fn contents(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let composition = read(bytes).unwrap_or_else(|refusal| panic!("{refusal}"));
    composition.files.into_iter().map(|file| (file.path.to_owned(), file.bytes.into())).collect()
}

fn assert_holds(built: &Built, expected: &[(&str, &[u8])]) {
    let expected: Vec<_> =
        expected.iter().map(|(path, content)| ((*path).to_owned(), content.to_vec())).collect();
    assert_eq!(contents(&built.bytes), expected);
}

#[test]
fn stored_and_deflated() {
    let built = build(&[file("a", TEXT), deflated("lib/b", TEXT), file("empty", b"")], b"");
    assert_holds(&built, &[("a", TEXT), ("lib/b", TEXT), ("empty", b"")]);
}

#[test]
fn streamed_with_descriptors() {
    for descriptor in [Descriptor::Bare, Descriptor::Signed] {
        let items = [
            deflated("a", TEXT).streamed(descriptor),
            file("b", TEXT).streamed(Descriptor::Signed),
            folder("c/").streamed(Descriptor::Signed),
            deflated("last", b"").streamed(descriptor),
        ];
        assert_holds(&build(&items, b""), &[("a", TEXT), ("b", TEXT), ("last", b"")]);
    }
}

#[test]
fn a_bare_descriptor_whose_checksum_looks_like_a_signature() {
    // The checksum of these four bytes is the signature of a descriptor.
    let content = preimage(u32::from_le_bytes(*b"PK\x07\x08"));
    let item = deflated("a", &content).streamed(Descriptor::Bare);
    assert_holds(&build(&[item.clone(), file("b", b"x")], b""), &[("a", &content), ("b", b"x")]);
    assert_holds(&build(&[item], b""), &[("a", &content)]);
}

/// Four bytes with the CRC-32 `crc`: the register runs backwards from the result.
fn preimage(crc: u32) -> [u8; 4] {
    let mut register = !crc;
    for _ in 0..32 {
        let low = register >> 31;
        register = (register ^ (low * 0xedb8_8320)) << 1 | low;
    }
    (register ^ u32::MAX).to_le_bytes()
}

#[test]
fn folders_are_checked_and_not_listed() {
    let deflated_folder = Item { packed: vec![3, 0], method: 8, ..folder("b/") };
    let no_attributes = Item { external: 0, ..folder("c/") };
    let items = [folder("a/"), deflated_folder, no_attributes, file("a/x", TEXT)];
    assert_holds(&build(&items, b""), &[("a/x", TEXT)]);
}

#[test]
fn comments_and_harmless_extra_fields() {
    let times = b"\x55\x54\x05\x00\x03\x00\x00\x00\x5f";
    let owner = b"\x75\x78\x0b\x00\x01\x04\xe8\x03\x00\x00\x04\xe8\x03\x00\x00";
    let item = file("ä", TEXT).with(|item| {
        item.local_extra = [&times[..], owner].concat();
        item.central_extra = times.to_vec();
        item.comment = b"a comment".to_vec();
        item.flags = 0x800;
    });
    assert_holds(&build(&[item], b"PK, a comment of the archive"), &[("ä", TEXT)]);
}

#[test]
fn programs_are_told_from_other_files() {
    for (mode, executable) in [(0o644, false), (0o600, false), (0o755, true), (0o700, true)] {
        let item = file("a", TEXT).with(|item| item.external = (0o100_000 | mode) << 16);
        let built = build(&[item], b"");
        assert_eq!(read(&built.bytes).unwrap().files[0].executable, executable, "{mode:o}");
    }
    // Tools that know no modes leave them out.
    let built = build(&[file("a", TEXT).with(|item| item.external = 0)], b"");
    assert!(!read(&built.bytes).unwrap().files[0].executable);
}

#[test]
fn an_archive_in_an_archive() {
    let inner = build(&[file("x", TEXT)], b"").bytes;
    assert_holds(&build(&[file("inner.ez", &inner)], b""), &[("inner.ez", &inner)]);
    // What is deflated says itself where it ends.
    let streamed = deflated("inner.ez", &inner).streamed(Descriptor::Signed);
    assert_holds(&build(&[streamed], b""), &[("inner.ez", &inner)]);
}

#[test]
fn stored_files_are_borrowed() {
    let built = build(&[file("a", TEXT), deflated("b", TEXT)], b"");
    let files = read(&built.bytes).unwrap().files;
    assert!(matches!(files[0].bytes, Cow::Borrowed(_)));
    assert!(matches!(files[1].bytes, Cow::Owned(_)));
}

#[test]
fn limits_are_inclusive() {
    let built = build(&[file("abc", TEXT), deflated("b", TEXT)], b"");
    let options = Options {
        max_archive_bytes: built.bytes.len() as u64,
        max_entries: 2,
        max_unpacked_bytes: 2 * TEXT.len() as u64,
        max_name_bytes: 3,
        ..Options::default()
    };
    assert!(read_archive(&built.bytes, &options).is_ok());
}

#[test]
fn many_files_keep_their_order_and_content() {
    let mut random = Random(7);
    let names: Vec<String> = (0..300).map(|n| format!("lib/{}/f{n}", n % 7)).collect();
    let items: Vec<Item> = names
        .iter()
        .map(|name| {
            let content: Vec<u8> =
                (0..random.below(4000)).map(|_| (random.next() % 17) as u8).collect();
            if random.below(2) == 0 { file(name, &content) } else { deflated(name, &content) }
        })
        .collect();
    let found = contents(&build(&items, b"").bytes);
    assert!(found.iter().map(|(path, _)| path).eq(&names));
    for ((_, bytes), item) in found.iter().zip(&items) {
        assert_eq!(crc32fast::hash(bytes), item.crc32);
    }
}

/// Nothing in an archive says a second time whether a file is a program.
fn without_rights(files: Vec<File<'_>>) -> Vec<File<'_>> {
    files.into_iter().map(|file| File { executable: false, ..file }).collect()
}

#[test]
fn a_changed_byte_is_refused_or_changes_no_content() {
    let items = [
        deflated("m.beam", &minimal(AtomFormat::Utf8).bytes()),
        file("b", TEXT).streamed(Descriptor::Signed),
        folder("c/"),
        deflated("c/d", TEXT).streamed(Descriptor::Bare),
    ];
    let good = build(&items, b"comment").bytes;
    let original = without_rights(read(&good).unwrap().files);
    for at in 0..good.len() {
        for change in [1, 2, 0x10, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            if let Ok(composition) = read(&bytes) {
                let files = without_rights(composition.files);
                assert_eq!(files, original, "byte {at} ^ {change:#x}");
            }
        }
    }
}

#[test]
fn a_cut_or_added_byte_is_refused() {
    let good = build(&[deflated("a", TEXT), file("b", TEXT)], b"").bytes;
    for at in 0..good.len() {
        assert!(read(&good[..at]).is_err(), "cut at {at}");
        let mut bytes = good.clone();
        bytes.remove(at);
        assert!(read(&bytes).is_err(), "without {at}");
        let mut bytes = good.clone();
        bytes.insert(at, bytes[at]);
        assert!(read(&bytes).is_err(), "twice {at}");
    }
}

#[test]
fn random_damage_is_refused_or_changes_no_content() {
    let items = [deflated("a", TEXT), deflated("b", TEXT).streamed(Descriptor::Signed)];
    let good = build(&items, b"").bytes;
    let original = without_rights(read(&good).unwrap().files);
    let mut random = Random(42);
    for _ in 0..20_000 {
        if let Ok(composition) = read(&random.mutate(&good)) {
            assert_eq!(without_rights(composition.files), original);
        }
    }
}

#[test]
fn kinds() {
    let beam = minimal(AtomFormat::Utf8).bytes();
    let kind = |path, bytes: &[u8]| support::kind_of(path, bytes);
    assert!(matches!(kind("lib/m.beam", &beam), Kind::Beam(_)));
    assert!(matches!(kind("lib/x.beam", &beam), Kind::Damaged(_)));
    assert!(matches!(kind("lib/m", &beam), Kind::Damaged(_)));
    assert!(matches!(kind("lib/m.beam", b"text"), Kind::Damaged(_)));
    assert!(matches!(kind("lib/m.beam", b""), Kind::Damaged(_)));
    assert!(matches!(kind("picture", b"FOR1\0\0\0\x04AIFF"), Kind::Other));
    assert!(matches!(kind("m.app", TEXT), Kind::Other));
}
