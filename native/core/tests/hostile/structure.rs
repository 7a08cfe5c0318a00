//! Archives whose parts do not make one archive.

use hot_patch_core::{Options, Rule};

use crate::support::zip::{Built, Descriptor, Item, build, deflated, file, folder, stored};
use crate::{Case, case};

fn good() -> Built {
    stored(&[("a.txt", b"first"), ("b.txt", b"second")])
}

fn limited(rule: Rule, what: &'static str, limit: impl FnOnce(&mut Options)) -> Case {
    let mut options = Options::default();
    limit(&mut options);
    let bytes = build(&[file("a.txt", b"first"), deflated("b.txt", &[0; 5000])], b"").bytes;
    Case { rule, what, bytes, options }
}

pub(crate) fn cases() -> Vec<Case> {
    [limits(), ends(), several(), strays(), directory(), headers()].into_iter().flatten().collect()
}

fn limits() -> Vec<Case> {
    vec![
        limited(Rule::ArchiveTooBig, "one byte over", |options| options.max_archive_bytes = 200),
        limited(Rule::TooManyEntries, "one entry over", |options| options.max_entries = 1),
        limited(Rule::UnpackedTooBig, "declared", |options| options.max_unpacked_bytes = 5004),
        limited(Rule::NameTooLong, "one byte over", |options| options.max_name_bytes = 4),
    ]
}

fn ends() -> Vec<Case> {
    let good = good();
    let whole = good.bytes.clone();
    let end = good.end;
    vec![
        case(Rule::NotAZip, "nothing", Vec::new()),
        case(Rule::NotAZip, "text", b"This is no archive.".to_vec()),
        case(Rule::NotAZip, "a BEAM file", b"FOR1\0\0\0\x04BEAM".to_vec()),
        case(Rule::Truncated, "half", whole[..whole.len() / 2].to_vec()),
        case(Rule::Truncated, "one byte less", whole[..whole.len() - 1].to_vec()),
        case(Rule::Truncated, "comment missing", good.clone().put16(end + 20, 9).bytes),
        case(Rule::EmptyArchive, "an end record only", build(&[], b"").bytes),
        case(Rule::EmptyArchive, "folders only", build(&[folder("a/")], b"").bytes),
        case(Rule::MultiDisk, "disk number", good.clone().put16(end + 4, 1).bytes),
        case(Rule::MultiDisk, "fewer entries here", good.clone().put16(end + 8, 1).bytes),
        case(
            Rule::MultiDisk,
            "entry elsewhere",
            good.clone().put16(good.centrals[0] + 34, 1).bytes,
        ),
        case(Rule::Suffix, "one byte more", [&whole[..], b"\n"].concat()),
        case(Rule::Suffix, "much more", [&whole[..], &[7; 70_000 - 5_000]].concat()),
        case(
            Rule::Zip64,
            "count",
            good.clone().put16(end + 8, 0xffff).put16(end + 10, 0xffff).bytes,
        ),
        case(Rule::Zip64, "offset", good.clone().put32(end + 16, u32::MAX).bytes),
        case(Rule::Zip64, "size", good.clone().put32(good.centrals[0] + 24, u32::MAX).bytes),
        case(Rule::Zip64, "records before the end record", with_zip64_records()),
        case(Rule::Zip64, "sizes in the local header", {
            let sizes = [&[1, 0, 16, 0][..], &[5, 0, 0, 0, 0, 0, 0, 0], &[5, 0, 0, 0, 0, 0, 0, 0]];
            build(&[file("a", b"first").with(|item| item.local_extra = sizes.concat())], b"").bytes
        }),
    ]
}

/// Good zip64 records that say what the normal ones say already.
fn with_zip64_records() -> Vec<u8> {
    let good = good();
    let (directory, size) = (good.directory as u64, (good.end - good.directory) as u64);
    let mut records = b"PK\x06\x06".to_vec();
    records.extend(44u64.to_le_bytes());
    records.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    records.extend([2u64, 2, size, directory].iter().flat_map(|word| word.to_le_bytes()));
    records.extend(b"PK\x06\x07\0\0\0\0");
    records.extend((good.end as u64).to_le_bytes());
    records.extend(1u32.to_le_bytes());
    good.clone().insert(good.end, &records).bytes
}

fn several() -> Vec<Case> {
    let one = stored(&[("a.txt", b"innocent")]);
    let two = stored(&[("b.txt", b"wicked")]);
    vec![
        case(Rule::SecondArchive, "two in a row", [&one.bytes[..], &two.bytes].concat()),
        case(Rule::SecondArchive, "the first in the comment of the second", {
            build(&[file("b.txt", b"wicked")], &one.bytes).bytes
        }),
        case(Rule::SecondArchive, "an end record in the comment", {
            build(&[file("a.txt", b"innocent")], &two.bytes[two.end..]).bytes
        }),
        case(Rule::SecondArchive, "an end record in the comment, not at its end", {
            let comment = [&two.bytes[two.end..], b"..."].concat();
            build(&[file("a.txt", b"innocent")], &comment).bytes
        }),
        case(Rule::SecondArchive, "an entry in the comment", {
            build(&[file("a.txt", b"innocent")], &two.bytes[..two.directory]).bytes
        }),
        case(Rule::SecondArchive, "before the first entry, offsets right", {
            let before = file("b.txt", b"wicked").with(|item| item.before = one.bytes.clone());
            build(&[before], b"").bytes
        }),
    ]
}

fn strays() -> Vec<Case> {
    let with_before = |before: &[u8], index: usize| {
        let mut items = [file("a.txt", b"first"), file("b.txt", b"second")];
        items[index].before = before.to_vec();
        build(&items, b"").bytes
    };
    let good = good();
    let unlisted = |index: usize| {
        let mut items = ["a", "b", "c"].map(|name| file(name, b"content"));
        items[index].listed = false;
        build(&items, b"").bytes
    };
    let none_listed = file("a", b"content").with(|item| item.listed = false);
    vec![
        case(Rule::Prefix, "a program, offsets right", with_before(b"#!/bin/sh\n", 0)),
        case(Rule::Prefix, "a program, offsets as without", {
            good.clone().insert(0, b"#!/bin/sh\n").bytes
        }),
        case(Rule::Gap, "between two entries", with_before(b"....", 1)),
        case(Rule::Gap, "before the directory", {
            let moved = good.clone().insert(good.directory, b"....");
            moved.put32(good.end + 4 + 16, good.directory as u32 + 4).bytes
        }),
        case(Rule::Gap, "behind the directory", good.clone().insert(good.end, b"....").bytes),
        case(Rule::HiddenEntry, "first", unlisted(0)),
        case(Rule::HiddenEntry, "between", unlisted(1)),
        case(Rule::HiddenEntry, "last", unlisted(2)),
        case(Rule::HiddenEntry, "the only one", build(&[none_listed], b"").bytes),
        case(Rule::Overlap, "an entry within the data of another", quoted()),
        case(Rule::Overlap, "data beyond the archive", {
            good.clone().put32(18, 9999).put32(good.centrals[0] + 20, 9999).bytes
        }),
        case(Rule::Overlap, "data that reaches into the next entry", {
            good.clone().put32(18, 9).put32(good.centrals[0] + 20, 9).bytes
        }),
    ]
}

/// An entry whose data is the local header and data of the next one.
fn quoted() -> Vec<u8> {
    let inner = stored(&[("b.txt", b"second")]);
    let entry = &inner.bytes[..inner.directory];
    let outer = build(&[file("a.txt", entry), file("b.txt", b"second")], b"");
    let inner_at = outer.data[0];
    let second = outer.locals[1];
    let mut bytes = outer.bytes.clone();
    let at = outer.centrals[1] + 42;
    bytes[at..at + 4].copy_from_slice(&(inner_at as u32).to_le_bytes());
    // Without the real second entry, the directory moves up.
    bytes.drain(second..outer.directory);
    let end = outer.end - (outer.directory - second);
    bytes[end + 16..end + 20].copy_from_slice(&(second as u32).to_le_bytes());
    bytes
}

fn directory() -> Vec<Case> {
    let good = good();
    let end = good.end;
    vec![
        case(Rule::BadDirectory, "counts one less", {
            good.clone().put16(end + 8, 1).put16(end + 10, 1).bytes
        }),
        case(Rule::BadDirectory, "counts one more", {
            good.clone().put16(end + 8, 3).put16(end + 10, 3).bytes
        }),
        case(Rule::BadDirectory, "reaches beyond the end record", {
            good.clone().put32(end + 12, (end - good.directory) as u32 + 1).bytes
        }),
        case(Rule::BadDirectory, "no signature", good.clone().put32(good.centrals[1], 0).bytes),
        case(Rule::BadDirectory, "a name that reaches beyond", {
            good.clone().put16(good.centrals[1] + 28, 9999).bytes
        }),
    ]
}

fn headers() -> Vec<Case> {
    let good = good();
    let streamed = |descriptor| {
        build(&[deflated("a.txt", b"first").streamed(descriptor), file("b.txt", b"x")], b"")
    };
    let signed = streamed(Descriptor::Signed);
    let bare = streamed(Descriptor::Bare);
    let at = good.locals[1];
    vec![
        case(Rule::BadLocalHeader, "no signature", good.clone().put32(at, 0).bytes),
        case(Rule::BadLocalHeader, "beyond the archive", {
            good.clone().put32(good.centrals[1] + 42, 0x00ff_ffff).bytes
        }),
        case(Rule::HeaderMismatch, "name", renamed(b"c.txt")),
        case(Rule::HeaderMismatch, "method", good.clone().put16(at + 8, 8).bytes),
        case(Rule::HeaderMismatch, "flags", good.clone().put16(at + 6, 0x800).bytes),
        case(Rule::HeaderMismatch, "checksum", good.clone().put32(at + 14, 1).bytes),
        case(Rule::HeaderMismatch, "packed size", good.clone().put32(at + 18, 1).bytes),
        case(Rule::HeaderMismatch, "size", good.clone().put32(at + 22, 1).bytes),
        case(Rule::HeaderMismatch, "size, streamed", signed.clone().put32(22, 1).bytes),
        case(Rule::NameParent, "in the local header only", renamed(b"../xx")),
        case(Rule::NameNul, "in the local header only", renamed(b"b\0txt")),
        case(Rule::BadDescriptor, "signed, checksum", {
            signed.clone().put32(signed.locals[1] - 12, 1).bytes
        }),
        case(Rule::BadDescriptor, "bare, size", bare.clone().put32(bare.locals[1] - 4, 1).bytes),
        case(Rule::BadDescriptor, "missing", {
            build(&[Item { flags: 8, ..file("a.txt", b"first") }], b"").bytes
        }),
        case(Rule::BareDescriptor, "stored", {
            build(&[file("a.txt", b"first").streamed(Descriptor::Bare)], b"").bytes
        }),
        // A reader of a stream takes what is behind the folder for its data.
        case(Rule::BareDescriptor, "a folder", {
            let folder = folder("a/").streamed(Descriptor::Bare);
            let file = deflated("b.txt", b"").streamed(Descriptor::Signed);
            build(&[folder, file], b"").bytes
        }),
        case(Rule::InconsistentHeaders, "another time", good.clone().put16(at + 10, 0x7000).bytes),
    ]
}

/// The good archive with another name of five bytes in the second local header.
fn renamed(name: &[u8; 5]) -> Vec<u8> {
    let good = good();
    let mut bytes = good.bytes;
    let at = good.locals[1] + 30;
    bytes[at..at + 5].copy_from_slice(name);
    bytes
}
