//! Archives whose entries do not unpack to what they declare.

use std::io::Write;

use hot_patch_core::{Options, Rule};

use crate::support::zip::{Descriptor, Item, build, deflate, deflated, file, folder, stored};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [streams(), sizes(), bombs(), records()].into_iter().flatten().collect()
}

fn one(rule: Rule, what: &'static str, item: Item) -> Case {
    case(rule, what, build(&[file("good", b"good"), item], b"").bytes)
}

fn streams() -> Vec<Case> {
    let text = b"to be or not to be, that is the question".repeat(20);
    let damaged = |change: fn(&mut Vec<u8>)| deflated("a", &text).with(|i| change(&mut i.packed));
    vec![
        one(Rule::DamagedStream, "reserved block type", damaged(|packed| packed[0] = 0xff)),
        one(Rule::DamagedStream, "cut off", damaged(|packed| packed.truncate(10))),
        one(Rule::DamagedStream, "no data", damaged(Vec::clear)),
        one(Rule::BytesAfterStream, "one byte", damaged(|packed| packed.push(0))),
        one(Rule::BytesAfterStream, "a second stream", {
            damaged(|packed| packed.extend(deflate(b"hidden")))
        }),
        one(Rule::BytesAfterStream, "in a folder", {
            Item { packed: b"\x03\0hidden".to_vec(), method: 8, ..folder("a/") }
        }),
        one(Rule::BadCrc, "stored", file("a", b"content").with(|item| item.crc32 ^= 1)),
        one(Rule::BadCrc, "deflated", deflated("a", &text).with(|item| item.crc32 ^= 1)),
        one(Rule::BadCrc, "content", file("a", b"content").with(|item| item.packed[0] = b'C')),
        one(Rule::BadCrc, "of a folder", folder("a/").with(|item| item.crc32 = 1)),
    ]
}

fn sizes() -> Vec<Case> {
    let resized = |item: Item, by: i32| {
        item.with(|item| item.size = item.size.checked_add_signed(by).unwrap())
    };
    let text = b"to be or not to be, that is the question".repeat(20);
    let flushed = |empty_block: &[u8]| {
        // An empty stored block first: the stream goes on without output.
        let packed = [empty_block, &deflate(&text)].concat();
        deflated("a", &text).with(|item| item.packed = packed)
    };
    vec![
        one(Rule::SizeTooSmall, "deflated, by one", resized(deflated("a", &text), -1)),
        one(Rule::SizeTooSmall, "deflated, zero", deflated("a", &text).with(|i| i.size = 0)),
        one(Rule::SizeTooSmall, "stored, by one", resized(file("a", &text), -1)),
        one(Rule::SizeTooSmall, "in a folder", {
            Item { packed: deflate(b"hidden"), method: 8, ..folder("a/") }
        }),
        one(Rule::SizeTooSmall, "a stored folder", {
            Item { packed: b"hidden".to_vec(), ..folder("a/") }
        }),
        one(Rule::SizeTooLarge, "deflated, by one", resized(deflated("a", &text), 1)),
        one(Rule::SizeTooLarge, "stored, by one", resized(file("a", &text), 1)),
        one(Rule::SizeTooLarge, "empty blocks first", {
            resized(flushed(&[0, 0, 0, 0xff, 0xff]), 1)
        }),
    ]
}

fn bombs() -> Vec<Case> {
    let options = Options { max_unpacked_bytes: 1_000_000, ..Options::default() };
    let zeros = vec![0; 2_000_000];
    let honest = build(&[deflated("a", &zeros)], b"").bytes;
    let lying = build(&[deflated("a", &zeros).with(|item| item.size = 10)], b"").bytes;
    let in_gzip = build(&[deflated("a.beam", &gzip(&zeros))], b"").bytes;
    let what = "a bomb";
    vec![
        Case { rule: Rule::UnpackedTooBig, what, bytes: honest, options: options.clone() },
        Case { rule: Rule::SizeTooSmall, what, bytes: lying, options: options.clone() },
        Case { rule: Rule::UnpackedTooBig, what: "a module's", bytes: in_gzip, options },
    ]
}

/// Stored, with the size behind the data: who reads a stream ends it at the first record.
fn records() -> Vec<Case> {
    let streamed = |what, content: &[u8]| {
        one(Rule::RecordInData, what, file("a", content).streamed(Descriptor::Signed))
    };
    // A descriptor that fits what is before it, and another file behind it.
    let forged = {
        let text = b"innocent";
        let mut content = text.to_vec();
        content.extend(b"PK\x07\x08");
        content.extend(crc32fast::hash(text).to_le_bytes());
        content.extend([8, 0, 0, 0, 8, 0, 0, 0]);
        content.extend(&stored(&[("b", b"wicked")]).bytes);
        content
    };
    vec![
        streamed("another file", &forged),
        streamed("a descriptor", b"text PK\x07\x08 text"),
        streamed("a local header", b"PK\x03\x04"),
        streamed("a directory", b"text PK\x01\x02"),
        streamed("an end record", b"PK\x05\x06 text"),
    ]
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}
