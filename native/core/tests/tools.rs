//! Archives in the shape that tools give them which do not run here: the Mac's, those of Windows.
//! Those that do are asked themselves, in test/hot_patch/archive_test.exs.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use hot_patch_core::{Rule, read_archive};
use support::read;
use support::zip::{Built, Descriptor, Item, build, deflated, file, folder};

const TEXT: &[u8] = b"to be or not to be, that is the question; to be or not to be";

/// An extra field.
fn field(id: u16, body: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &(body.len() as u16).to_le_bytes(), body].concat()
}

/// Times of NTFS: a tag, its size, three times.
fn ntfs() -> Vec<u8> {
    field(0x000a, &[&[0, 0, 0, 0, 1, 0, 24, 0][..], &[7; 24]].concat())
}

fn times() -> Vec<u8> {
    field(0x5455, &[1, 0, 0, 0, 0x5f])
}

/// "UX", as the Mac has it: two times, and in the local header user and group.
fn ux(local: bool) -> Vec<u8> {
    field(0x5855, &[1; 12][..if local { 12 } else { 8 }])
}

fn unicode_path(name: &str) -> Vec<u8> {
    let body = [&[1][..], &crc32fast::hash(name.as_bytes()).to_le_bytes(), name.as_bytes()];
    field(0x7075, &body.concat())
}

/// With the system and version that made it, and the version that it takes, in all its headers.
fn made(mut built: Built, made_by: u16, needs: u16) -> Vec<u8> {
    for at in built.centrals.clone() {
        built = built.put16(at + 4, made_by).put16(at + 6, needs);
    }
    for at in built.locals.clone() {
        built = built.put16(at + 4, needs);
    }
    built.bytes
}

fn holds(bytes: &[u8], expected: &[&str]) {
    let composition = read(bytes).unwrap_or_else(|refusal| panic!("{refusal}"));
    let paths: Vec<&str> = composition.files.iter().map(|file| file.path).collect();
    assert_eq!(paths, expected);
    assert!(composition.files.iter().all(|file| *file.bytes == *TEXT));
}

/// As Archive Utility and ditto make it: streamed, UTF-8 names without the flag that says so.
fn by_the_mac(item: Item) -> Item {
    let streams = !item.name.ends_with(b"/");
    let item = item.with(|item| {
        item.external |= 0x4000;
        item.external &= !0x10;
        item.local_extra = ux(true);
        item.central_extra = ux(false);
    });
    if streams { item.streamed(Descriptor::Signed) } else { item }
}

/// What the Mac adds: beside each file its attributes, and the settings of a window.
fn with_additions() -> Vec<Item> {
    let double = [b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ", TEXT].concat();
    [
        folder("lib/"),
        deflated("lib/.DS_Store", b"\0\0\0\x01Bud1"),
        folder("__MACOSX/"),
        folder("__MACOSX/lib/"),
        deflated("__MACOSX/lib/._.DS_Store", &double),
        // Not composed, as its file system has them.
        deflated("lib/gro\u{308}\u{df}e.txt", TEXT),
        deflated("__MACOSX/lib/._gro\u{308}\u{df}e.txt", &double),
        folder("lib/a-1.0/"),
        folder("lib/a-1.0/ebin/"),
        deflated("lib/a-1.0/ebin/a.txt", TEXT),
        deflated("lib/a-1.0/ebin/._a.beam", &double),
    ]
    .map(by_the_mac)
    .to_vec()
}

#[test]
fn the_mac() {
    let bytes = made(build(&with_additions(), b""), 0x0315, 20);
    let composition = read(&bytes).unwrap_or_else(|refusal| panic!("{refusal}"));
    let paths: Vec<&str> = composition.files.iter().map(|file| file.path).collect();
    assert_eq!(paths, ["lib/gro\u{308}\u{df}e.txt", "lib/a-1.0/ebin/a.txt"]);
    // What is left out is told, file by file.
    assert_eq!(
        composition.left_out,
        [
            "lib/.DS_Store",
            "__MACOSX/lib/._.DS_Store",
            "__MACOSX/lib/._gro\u{308}\u{df}e.txt",
            "lib/a-1.0/ebin/._a.beam",
        ]
    );
}

#[test]
fn what_the_mac_adds_is_checked_as_all_else() {
    let damaged = |change: fn(&mut Item)| {
        let mut items = with_additions();
        change(&mut items[4]);
        read(&build(&items, b"").bytes).unwrap_err().rule
    };
    assert_eq!(damaged(|item| item.crc32 ^= 1), Rule::BadCrc);
    assert_eq!(damaged(|item| item.external = 0o120_777 << 16), Rule::Symlink);
    assert_eq!(damaged(|item| item.name = b"__MACOSX/../x".to_vec()), Rule::NameParent);
    // Nor is there a patch that is nothing else.
    let nothing = [deflated("__MACOSX/._a", TEXT), file(".DS_Store", b"")];
    assert_eq!(read(&build(&nothing, b"").bytes).unwrap_err().rule, Rule::EmptyArchive);
}

#[test]
fn the_mac_of_late() {
    let items = [deflated("lib/a", TEXT).streamed(Descriptor::Signed)].map(|item| {
        item.with(|item| {
            let owner = field(0x7875, b"\x01\x04\xf5\x01\0\0\x04\x14\0\0\0");
            item.local_extra = [times(), owner.clone()].concat();
            item.central_extra = [times(), owner].concat();
        })
    });
    holds(&made(build(&items, b""), 0x0315, 20), &["lib/a"]);
}

#[test]
fn explorer() {
    let plain = |item: Item| item.with(|item| item.external = 0x20);
    let items = [
        Item { external: 0x10, ..folder("empty/") },
        plain(deflated("lib/a", TEXT)),
        plain(file("lib/b", TEXT)),
        plain(deflated("lib/größe", TEXT)).with(|item| item.flags = 0x800),
    ];
    holds(&made(build(&items, b""), 0x0014, 20), &["lib/a", "lib/b", "lib/größe"]);
}

#[test]
fn winzip_and_winrar() {
    let items = [
        Item { external: 0x10, central_extra: ntfs(), ..folder("lib/") },
        deflated("lib/a", TEXT).with(|item| {
            item.external = 0x20;
            item.central_extra = ntfs();
            item.local_extra = ntfs();
        }),
        deflated("lib/größe", TEXT).with(|item| {
            item.external = 0x2020;
            item.central_extra = [ntfs(), unicode_path("lib/größe")].concat();
            item.local_extra = unicode_path("lib/größe");
            item.flags = 0x800;
        }),
    ];
    for made_by in [0x0014, 0x003f, 0x0a14, 0x0b14] {
        holds(&made(build(&items, b""), made_by, 20), &["lib/a", "lib/größe"]);
    }
}

#[test]
fn seven_zip_on_windows() {
    let items = [deflated("a", TEXT).with(|item| {
        item.external = 0x80;
        item.central_extra = ntfs();
    })];
    holds(&made(build(&items, b""), 0x003f, 20), &["a"]);
}

#[test]
fn dot_net() {
    let item = deflated("a", TEXT).with(|item| item.external = 0);
    holds(&made(build(std::slice::from_ref(&item), b""), 0x0014, 20), &["a"]);
    let unix = item.with(|item| item.external = 0o100_644 << 16);
    holds(&made(build(&[unix.streamed(Descriptor::Signed)], b""), 0x0314, 20), &["a"]);
}

#[test]
fn java_and_ant() {
    let marked = deflated("a", TEXT).streamed(Descriptor::Signed).with(|item| {
        item.external = 0;
        item.flags |= 0x800;
        item.local_extra = field(0xcafe, b"");
        item.central_extra = field(0xcafe, b"");
    });
    let asi = |mode: u16| {
        let body = [&[0; 4][..], &mode.to_le_bytes(), &[0; 8]].concat();
        field(0x756e, &body)
    };
    let ant = deflated("b", TEXT).with(|item| {
        item.local_extra = asi(0o100_644);
        item.central_extra = asi(0o100_644);
    });
    let its_folder = folder("c/").with(|item| item.central_extra = asi(0o040_755));
    holds(&made(build(&[marked, ant, its_folder], b""), 0x0314, 20), &["a", "b"]);
}

#[test]
fn info_zip_on_windows_and_of_old() {
    let items = [
        deflated("a", TEXT).with(|item| {
            item.external = 0x20;
            item.central_extra = [times(), field(0x4453, &[4, 0, 0, 0])].concat();
            item.local_extra = [times(), field(0x4453, &[7; 40])].concat();
        }),
        deflated("b", TEXT).with(|item| {
            item.local_extra = field(0x7855, &[1, 0, 1, 0]);
            item.central_extra = field(0x7855, b"");
        }),
        deflated("c", TEXT).with(|item| item.local_extra = field(0x000d, &[5; 12])),
        deflated("d", TEXT).with(|item| {
            item.central_extra = [unicode_path("d"), field(0x6375, &[1, 0, 0, 0, 0])].concat();
            item.local_extra = unicode_path("d");
        }),
    ];
    holds(&made(build(&items, b""), 0x0b17, 20), &["a", "b", "c", "d"]);
}

#[test]
fn a_version_that_names_its_system_is_that_version() {
    let built = build(&[deflated("a", TEXT)], b"");
    holds(&made(built.clone(), 0x0314, 0x0314), &["a"]);
    holds(&made(built.clone(), 0x032d, 45), &["a"]);
    let newer = made(built, 0x033f, 46);
    assert_eq!(
        read_archive(&newer, &hot_patch_core::Options::default()).unwrap_err().rule,
        Rule::UnsupportedVersion
    );
}
